// Two presets side by side: what differs between their tables lights up in the drawing of the first.

function comparison(left, right) {
  const found = DATA.comparisons.differences.find((x) => [x.left, x.right].includes(left) && [x.left, x.right].includes(right));
  if (!found) return [];
  if (found.left === left) return found.differences;
  return found.differences.map((x) => ({ ...x, left: x.right, right: x.left }));
}

/** The two presets of a route, or two that make sense. */
function compared(route) {
  const known = Object.keys(DATA.comparisons.networks);
  const left = known.includes(route[0]) ? route[0] : DATA.network.preset;
  const right = known.includes(route[1]) && route[1] !== left ? route[1] : known.find((name) => name !== left);
  return [left, right];
}

function comparingPanel([left, right]) {
  const found = comparison(left, right);
  const select = (word, chosen, go) =>
    h(
      "label",
      {},
      t(word),
      h(
        "select",
        { id: word, onchange: (event) => go(event.target.value) },
        Object.keys(DATA.comparisons.networks).map((name) => h("option", { value: name, selected: name === chosen }, name)),
      ),
    );
  const go = (one, other) => {
    location.hash = `compare/${one}/${other}`;
  };
  return [
    h("div", { class: "heading" }, h("h2", { tabindex: -1, id: "heading" }, t("compare")), h("p", { class: "sub" }, t("compare_note"))),
    h(
      "div",
      { class: "selects" },
      select("compare_first", left, (name) => go(name, name === right ? left : right)),
      select("compare_second", right, (name) => go(name === left ? right : left, name)),
      h("button", { type: "button", id: "exchange", class: "quiet", onclick: () => go(right, left) }, t("compare_exchange")),
    ),
    sources([left, right]),
    found.length === 0 ? h("p", {}, t("compare_same")) : differencesTable(found, left, right),
  ];
}

function sources(names) {
  return h(
    "div",
    { class: "sources" },
    names.map((name) => {
      const network = DATA.comparisons.networks[name];
      const size = t("compare_size", { parameters: count(network.parameters), multiply_adds: short(network.multiply_adds) });
      return h(
        "div",
        {},
        h("strong", {}, name),
        h("p", { class: "note" }, network.source),
        h("p", { class: "note" }, size),
        name !== DATA.network.preset && h("p", { class: "note" }, t("compare_here", { preset: name })),
      );
    }),
  );
}

function differencesTable(found, left, right) {
  const rows = found.map(({ what, left: ours, right: theirs, places: names }) => [
    t(what),
    settingText(what, ours),
    settingText(what, theirs),
    linksOf(names),
  ]);
  const title = t("compare_counted", { count: found.length });
  return section(title, table(title, [t("compare_what"), left, right, t("compare_where")], rows, "wraps"));
}

/** Places as links where the page's own network has them. */
function linksOf(names) {
  const own = (name) => name in DATA.network.operations;
  if (names.length > 12) return [t("everywhere", { count: count(names.length) }), " (", placesOrTexts(names.slice(0, 3), own), ", …)"];
  return placesOrTexts(names, own);
}

function placesOrTexts(names, own) {
  return names.flatMap((name, i) => [i > 0 && ", ", name === "images" ? t("images") : own(name) ? link(name) : name]);
}

function comparingLook(left, right) {
  const differing = new Map();
  for (const { what, places: names } of comparison(left, right)) {
    for (const name of names) differing.set(name, [...(differing.get(name) ?? []), t(what)]);
  }
  return (name) => differing.has(name) && { kind: "differs", label: differing.get(name).join(", ") };
}
