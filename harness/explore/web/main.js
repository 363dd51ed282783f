// The page: its header, the drawing on the left and a panel on the right, both by what stands behind the #.

function render(focus) {
  const [view, route] = routed();
  document.documentElement.lang = LANGUAGES[state.language];
  document.querySelector(".skip").textContent = t("skip");
  const own = { network: DATA.network, look: () => null, panel: () => overview() };
  const shown = {
    overview: () => own,
    operation: () => ({ ...own, panel: () => operationPanel(route[0]) }),
    traps: () => {
      const trap = DATA.traps.find(({ name }) => name === route[0]);
      return { ...own, look: trapLook(trap), panel: () => laboratoryPanel(trap?.name) };
    },
    compare: () => {
      const pair = compared(route);
      return { network: DATA.comparisons.networks[pair[0]], look: comparingLook(...pair), panel: () => comparingPanel(pair) };
    },
  }[view]();
  const focused = whereFocusIs();
  document.getElementById("header").replaceChildren(...header(view));
  const map = document.getElementById("drawing");
  const scrolled = map.scrollTop;
  map.replaceChildren(...drawingPane(shown));
  document.querySelector("main").style.setProperty("--wide", `${map.querySelector("svg").getAttribute("width")}px`);
  map.scrollTop = scrolled;
  document.getElementById("panel").replaceChildren(h("div", {}, shown.panel()));
  for (const box of map.querySelectorAll("a.node")) {
    if (view === "operation" && box.dataset.name === route[0]) box.setAttribute("aria-current", "true");
  }
  const again = focused && document.querySelector(focused);
  again?.focus({ preventScroll: true });
  if (focus) arrive(view, map, again);
}

/** A selector of what has the focus, which is made anew. */
function whereFocusIs() {
  const at = document.activeElement;
  if (at.id) return `#${at.id}`;
  if (at.dataset.name) return `a.node[data-name="${CSS.escape(at.dataset.name)}"]`;
  const group = at.closest("[role=group]")?.getAttribute("aria-label");
  return group && `[role=group][aria-label="${CSS.escape(group)}"] [aria-pressed=true]`;
}

/** The view and what follows in the address. */
function routed() {
  const [first, ...rest] = location.hash.slice(1).split("/"); // no name needs an escape
  if (first === "traps") return ["traps", rest];
  if (first === "compare" && Object.keys(DATA.comparisons.networks).length > 1) return ["compare", rest];
  const known = [DATA.network.operations, DATA.network.stages].some((all) => Object.hasOwn(all, first));
  return known ? ["operation", [first]] : ["overview", []];
}

/** After a change of the address: the panel from its start, and the box in sight. */
function arrive(view, map, focused) {
  const panel = document.getElementById("panel");
  const beside = getComputedStyle(map).position === "sticky";
  const top = document.querySelector("main").offsetTop;
  if (beside && window.scrollY > top) window.scrollTo(0, top);
  const box = map.querySelector("[aria-current], .made, .differs");
  if (box) {
    const [inner, outer] = [box.getBoundingClientRect(), map.getBoundingClientRect()];
    if (inner.top < outer.top || inner.bottom > outer.bottom) map.scrollTop += inner.top - outer.top - outer.height / 3;
  }
  if (!beside && view !== "overview") panel.scrollIntoView();
  const heading = document.getElementById("heading");
  document.getElementById("status").textContent = heading.textContent; // is read aloud
  if (!focused) heading.focus({ preventScroll: true });
}

function header(view) {
  const { network } = DATA;
  const [channels, height, width] = network.input;
  const views = [["", "network", ["overview", "operation"]], ["traps", "view_traps", ["traps"]]];
  if (Object.keys(DATA.comparisons.networks).length > 1) views.push(["compare", "view_compare", ["compare"]]);
  const fact = (word, value) => h("div", {}, h("dt", {}, word), h("dd", {}, value));
  return [
    h(
      "div",
      { class: "title" },
      h("h1", {}, network.preset),
      h("p", {}, network.source),
      h(
        "dl",
        {},
        fact(t("input"), `${channels} × ${height} × ${width}`),
        fact(t("classes"), count(network.classes)),
        fact(t("by_parameters"), count(network.parameters)),
        fact(t("by_multiply_adds"), count(network.multiply_adds)),
      ),
    ),
    h(
      "nav",
      { "aria-label": t("views") },
      views.map(([hash, word, of]) => h("a", { href: `#${hash}`, "aria-current": of.includes(view) && "page" }, t(word))),
      h(
        "button",
        { type: "button", id: "language", class: "quiet", lang: LANGUAGES[1 - state.language], onclick: () => change("language", 1 - state.language) },
        t("language"),
      ),
    ),
  ];
}

function drawingPane({ network, look }) {
  const sizes = [t("by_parameters"), t("by_multiply_adds")];
  return [
    h(
      "div",
      { class: "tools" },
      h("span", {}, t("size_by")),
      choice(t("size_by"), sizes, state.size, (i) => change("size", i)),
    ),
    h("div", { class: "canvas", onkeydown: walkWithKeys }, drawing(network, look)),
    h("p", { class: "note" }, sentences(t("drawing_keys"), t("size_note"))),
  ];
}

function overview() {
  const { framework, version, dtype } = DATA.computed;
  const worst = Math.max(...Object.values(DATA.errors));
  return [
    h("div", { class: "heading" }, h("h2", { tabindex: -1, id: "heading" }, t("overview")), h("p", { class: "sub" }, t("overview_note"))),
    topClasses(),
    h("p", { class: "note" }, t("error_all", { framework, version, dtype, error: digits(worst) })),
    wholeTable(),
    h("p", { class: "note" }, t("written")),
  ];
}

/** Change a choice, and show it where the reader is. */
function change(name, value) {
  const at = window.scrollY;
  if (name === "picture") state.picture = value;
  else keep(name, value);
  render(false);
  window.scrollTo(0, at);
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // what stands behind the # is the view
  document.getElementById("heading").focus();
});
window.addEventListener("hashchange", () => render(true));
render(location.hash.length > 1);
