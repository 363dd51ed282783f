// What opens on a click: a stage, a branch or a layer with its row, cost, field, pictures, code, names and traps.

function operationPanel(name) {
  const { network } = DATA;
  const stage = network.operations[name]?.stage ?? name;
  return [
    heading(name),
    facts(name),
    stage === name ? tableRow(name) : null,
    trapsHere(name),
    mapsSection(name),
    name === lastStage() ? topClasses() : null,
    codeSection(name, stage),
    namesSection(name),
  ];
}

function heading(name) {
  const inside = (stage) => Object.keys(DATA.network.operations).filter((x) => DATA.network.operations[x].stage === stage);
  const order = Object.keys(DATA.network.stages).flatMap((stage) => (isHead(stage) ? [stage, ...inside(stage)] : inside(stage)));
  const at = order.indexOf(name);
  const near = (i, word) => order[i] && h("a", { href: `#${order[i]}`, class: "near" }, t(word, { name: order[i] }));
  return h(
    "div",
    { class: "heading" },
    h("h2", { tabindex: -1, id: "heading" }, name),
    h("p", { class: "sub" }, wordsOf(DATA.network, name)),
    h("p", { class: "nears" }, near(at - 1, "previous"), near(at + 1, "next")),
  );
}

/** Names and values, in a grid. */
function facts(name) {
  const { network } = DATA;
  const operation = network.operations[name] ?? headOf(name);
  const costs = network.stages[name] ?? operation;
  const rows = [
    [t("output"), shapeText(operation.out)],
    [t("input"), shapeText(operation.into)],
    ...["parameters", "multiply_adds"].map((what) => [t(what), counted(costs[what], network[what])]),
    [t("field"), fieldText(operation)],
    [t("step"), stepText(operation)],
    ...settingRows(operation.settings),
  ];
  return h(
    "dl",
    { class: "facts" },
    rows.map(([word, value]) => h("div", {}, h("dt", {}, word), h("dd", {}, value))),
  );
}

/** A whole head has no operation of its own. */
function isHead(stage) {
  return !(stage in DATA.network.operations);
}

/** What a whole head takes, puts out and sees. */
function headOf(stage) {
  const inside = Object.values(DATA.network.operations).filter((x) => x.stage === stage);
  return { ...inside.at(-1), into: inside[0].into, settings: {} };
}

function counted(n, all) {
  return [count(n), n > 0 && h("small", {}, ` ${t("share", { share: percent(n / all) })}`)];
}

function fieldSize({ field }) {
  return field ? t("field_is", { height: field[0], width: field[1] }) : t("field_whole");
}

function fieldText({ field }) {
  const text = fieldSize({ field });
  if (!field) return text;
  const beyond = field[0] > DATA.network.input[1] || field[1] > DATA.network.input[2];
  return beyond ? [text, h("small", {}, ` ${t("field_beyond")}`)] : text;
}

function stepText({ step }) {
  if (!step) return t("step_none");
  return t(step[0] === step[1] ? "step_is" : "step_are", { down: step[0], across: step[1] });
}

const SHOWN_AS_ROWS = ["kernel", "stride", "pad", "ceil", "count_pad", "activation", "norm", "bias", "dropout"];
const OF_OTHERS = ["order", "size", "alpha", "beta", "k", "scale", "shortcut"];

function settingRows(settings) {
  return [...SHOWN_AS_ROWS, ...OF_OTHERS]
    .filter((what) => what in settings && (settings[what] !== null || what !== "dropout"))
    .map((what) => [t(what === "kernel" && settings.kind !== "convolution" ? "window" : what), settingText(what, settings[what])]);
}

/** A setting's value in words. */
function settingText(what, value) {
  if (what === "kind") return t(value);
  if (what === "activation") return t(value ?? "none");
  if (what === "norm") return value ? normText(value) : t("none");
  if (value === undefined || value === null) return "–";
  if (what === "pad") return padText(value);
  if (what === "stride" && value[0] === value[1]) return String(value[0]);
  if (what === "kernel" || what === "stride") return value.join(" × ");
  if (what === "ceil" || what === "count_pad") return t(`${what}_${value}`);
  if (what === "order") return value.join(", ");
  if (typeof value === "boolean") return t(value ? "yes" : "no");
  return String(value);
}

function normText({ epsilon, momentum, scale, unbiased }) {
  const words = [t("norm_is", { epsilon, momentum }), !scale && t("norm_no_scale"), !unbiased && t("norm_biased")];
  return words.filter(Boolean).join(", ");
}

function padText([[above, below], [left, right]]) {
  if (above === below && left === right) return above === left ? String(above) : `${above} × ${left}`;
  return t("pad_sides", { above, below, left, right });
}

/** Of a stage its row of the table; of a block the rows of its operations as well. */
function tableRow(stage) {
  const { network } = DATA;
  const inside = Object.entries(network.operations).filter(([name, x]) => x.stage === stage && name !== stage);
  const headings = ["layer", "kernel", "channels", "output", "parameters", "multiply_adds_short", "field"].map((x) => t(x));
  const rows = inside.map(([name, x]) => [
    link(name, name.slice(stage.length + 1)),
    x.settings.kernel ? `${x.settings.kernel.join(" × ")}${x.settings.stride[0] > 1 ? ` / ${x.settings.stride[0]}` : ""}` : "",
    count(x.out[0]),
    shapeText(x.out),
    x.parameters ? count(x.parameters) : "",
    x.multiply_adds ? count(x.multiply_adds) : "",
    fieldSize(x),
  ]);
  return inside.length > 0 && section(t("table_row"), table(t("table_row"), headings, rows));
}

/** The whole table, as the command prints it. */
function wholeTable() {
  const headings = ["stage", "kernel", "output", "parameters", "multiply_adds_short"].map((x) => t(x));
  const rows = Object.entries(DATA.network.stages).map(([name, row]) => [
    link(name),
    row.kernel,
    shapeText(row.shape),
    row.parameters ? count(row.parameters) : "",
    row.multiply_adds ? count(row.multiply_adds) : "",
  ]);
  return section(t("table_all"), table(t("table_all"), headings, rows));
}

function trapsHere(name) {
  const here = DATA.traps.filter((trap) => trap.places.some((place) => place === name || place.startsWith(`${name}.`)));
  if (here.length === 0) return null;
  const line = (trap) => {
    const error = trap.stages[lastStage()];
    const effect = error === null ? t("trap_other_shape") : t("here_trap", { error: digits(error) });
    return h("li", {}, link(`traps/${trap.name}`, filled(DATA.trap_words[trap.name].title)), h("small", {}, ` ${effect}`));
  };
  return section(t("here_traps"), h("ul", { class: "plain" }, here.map(line)));
}

/** The stage that puts out the logits. */
function lastStage() {
  return Object.keys(DATA.errors).at(-1);
}

// ---------------------------------------------------------------------------------------------------------- code

function codeSection(name, stage) {
  const frameworks = Object.keys(DATA.frameworks);
  const titles = Object.values(DATA.frameworks);
  const listing = (framework) => codeOf(DATA.listings[framework], name, stage);
  const beside = h(
    "button",
    { type: "button", id: "beside", class: "quiet", onclick: () => change("beside", 1 - state.beside) },
    t(state.beside ? "in_tabs" : "side_by_side"),
  );
  const body = state.beside
    ? h("div", { class: "beside", tabindex: 0, role: "region", "aria-label": t("code") }, frameworks.map((x, i) => h("div", {}, h("h4", {}, titles[i]), listing(x))))
    : [
        h(
          "div",
          { class: "tabs", role: "tablist", "aria-label": t("code"), onkeydown: walkTabs },
          titles.map((title, i) => tab(title, i)),
        ),
        h("div", { role: "tabpanel", id: "listing", "aria-labelledby": `tab${state.code}`, tabindex: 0 }, listing(frameworks[state.code])),
      ];
  return h("section", { class: "code" }, h("div", { class: "row" }, h("h3", {}, t("code")), beside), body);
}

function tab(title, i) {
  const chosen = i === state.code;
  const attributes = { type: "button", role: "tab", id: `tab${i}`, "aria-selected": String(chosen), tabindex: chosen ? 0 : -1 };
  return h("button", { ...attributes, "aria-controls": chosen ? "listing" : null, onclick: () => chooseTab(i) }, title);
}

function chooseTab(i) {
  change("code", i);
  document.getElementById(`tab${i}`).focus();
}

function walkTabs(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const many = Object.keys(DATA.frameworks).length;
  if (step) chooseTab((state.code + step + many) % many);
}

/** The lines of the network, then the definitions that they call. */
function codeOf(listings, name, stage) {
  const lines = listings.stages[stage] ?? [];
  const definitions = (listings.nodes[name] ?? listings.nodes[stage] ?? []).map((key) => ({
    ...listings.definitions[key],
    marked: listings.marks[name]?.[key] ?? [],
  }));
  return [...joined(lines), ...definitions].map(code);
}

/** Listings of one file in one frame. */
function joined(listings) {
  if (listings.length === 0) return [];
  const numbered = listings.flatMap(({ first, lines }) => lines.map((text, i) => [first + i, text]));
  return [{ file: listings[0].file, numbers: numbered.map(([n]) => n), lines: numbered.map(([, text]) => text), marked: [] }];
}

function code({ file, first, numbers, lines, marked }) {
  const row = (text, i) => {
    const number = numbers?.[i] ?? first + i;
    const mark = marked.includes(number) && "marked";
    return h("span", { class: mark }, h("i", { "aria-hidden": "true" }, String(number)), colored(text), "\n");
  };
  const pre = h("pre", { tabindex: 0, role: "region", "aria-label": file }, h("code", {}, lines.map(row)));
  return h("figure", {}, h("figcaption", {}, file), pre);
}

const TOKENS = /(#.*$)|("""[^]*?"""|f?"[^"]*")|\b(class|def|return|for|in|if|else|is|not|None|True|False|self|super)\b/g;

/** Comments, texts and keywords of Python, each in its color. */
function colored(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(TOKENS)) {
    parts.push(text.slice(end, match.index), h("span", { class: match[1] ? "comment" : match[2] ? "text" : "word" }, match[0]));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}

// --------------------------------------------------------------------------------------------------------- names

const LIBRARIES = {
  torch: "PyTorch", gluon: "Gluon", symbol: "MXNet", tensorflow: "TensorFlow", keras: "Keras", nnx: "Flax NNX", linen: "Flax Linen",
};

function namesSection(name) {
  const arrays = Object.keys(DATA.names.shapes).filter((array) => layerOf(array) === name);
  if (arrays.length === 0) {
    const below = Object.keys(DATA.names.shapes).some((array) => array.startsWith(`${name}.`));
    return section(t("names"), h("p", { class: "note" }, t(below ? "names_below" : "names_none")));
  }
  const headings = ["array", "whose", "name", "shape"].map((x) => t(x));
  const rows = arrays.flatMap((array) => {
    const shape = DATA.names.shapes[array];
    const schemes = DATA.names.schemes.filter(({ names }) => array in names);
    return schemes.map(({ name: scheme, kind, formats, names, layout }, i) => [
      i === 0 ? array.slice(name.length + 1) : "",
      formats.length > 0 ? [t("names_ours"), h("small", {}, ` ${formats.join(", ")}`)] : [LIBRARIES[kind], h("small", {}, ` ${scheme}`)],
      h("code", {}, names[array]),
      turned(shape, layout[shape.length]),
    ]);
  });
  return h("section", {}, h("details", {}, h("summary", {}, h("h3", {}, t("names"))), table(t("names"), headings, rows)));
}

function layerOf(array) {
  return array.slice(0, array.lastIndexOf(".")).replace(/\.norm$/, "");
}

/** A canonical shape in another order of its axes, with that order. */
function turned(shape, order) {
  const canonical = { 1: "O", 2: "OI", 4: "OIHW" }[order.length];
  const sides = [...order].map((axis) => shape[canonical.indexOf(axis)] ?? 1);
  return [sides.join(" × "), order.length > 1 && h("small", {}, ` ${order}`)];
}
