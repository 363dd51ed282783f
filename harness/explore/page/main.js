// The page: its header, the drawing on the left and a panel on the right, both by what stands behind the #.

function render(focus) {
  const [view, route] = routed();
  document.documentElement.lang = LANGUAGES[state.language];
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
  if (focus) arrive(view, map);
}

/** The view and what follows in the address. */
function routed() {
  const [first, ...rest] = decodeURIComponent(location.hash.slice(1)).split("/");
  if (first === "traps") return ["traps", rest];
  if (first === "compare" && Object.keys(DATA.comparisons.networks).length > 1) return ["compare", rest];
  const known = first in DATA.network.operations || first in DATA.network.stages;
  return known ? ["operation", [first]] : ["overview", []];
}

/** After a change of the address: the panel from its start, and the box in sight. */
function arrive(view, map) {
  const panel = document.getElementById("panel");
  panel.scrollTop = 0;
  const box = map.querySelector("[aria-current], .made, .differs");
  if (box) {
    const [inner, outer] = [box.getBoundingClientRect(), map.getBoundingClientRect()];
    if (inner.top < outer.top || inner.bottom > outer.bottom) map.scrollTop += inner.top - outer.top - outer.height / 3;
  }
  if (getComputedStyle(map).position !== "sticky" && view !== "overview") panel.scrollIntoView();
  if (!map.contains(document.activeElement)) document.getElementById("heading")?.focus({ preventScroll: true });
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
        { type: "button", class: "quiet", lang: LANGUAGES[1 - state.language], onclick: () => change("language", 1 - state.language) },
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
  const panel = document.getElementById("panel");
  const [top, page] = [panel.scrollTop, window.scrollY];
  const at = document.activeElement?.closest("[role=group]")?.getAttribute("aria-label");
  if (name === "picture") state.picture = value;
  else keep(name, value);
  render(false);
  panel.scrollTop = top;
  window.scrollTo(0, page);
  const group = at && document.querySelector(`[role=group][aria-label="${CSS.escape(at)}"] [aria-pressed=true]`);
  group?.focus({ preventScroll: true });
}

window.addEventListener("hashchange", () => render(true));
render(location.hash.length > 1);
