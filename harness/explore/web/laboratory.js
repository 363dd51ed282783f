// The trap laboratory: a switch for each mistake; the drawing shows from where on the stages are others.

const SAME = 1e-12; // below it only rounding differs
const LEAST = -5; // log10 of the error from which on bars and colors grow

function laboratoryPanel(chosen) {
  const trap = DATA.traps.find(({ name }) => name === chosen);
  return [
    h("div", { class: "heading" }, h("h2", { tabindex: -1, id: "heading" }, t("traps")), h("p", { class: "sub" }, t("traps_note"))),
    DATA.traps.length === 0 && h("p", {}, t("traps_none")),
    h("div", { class: "switches", role: "group", "aria-label": t("traps") }, trapSwitch(null, chosen), DATA.traps.map((x) => trapSwitch(x, chosen))),
    trap ? trapSections(trap) : null,
  ];
}

function trapSwitch(trap, chosen) {
  const on = trap ? trap.name === chosen : !chosen;
  const words = trap ? filled(DATA.trap_words[trap.name].title) : t("trap_off");
  const error = trap && trap.stages[lastStage()];
  const effect = trap && (error === null ? t("trap_other_shape") : digits(error));
  const go = () => {
    location.hash = trap ? `traps/${trap.name}` : "traps";
  };
  return h("button", { type: "button", "aria-pressed": String(on), onclick: go }, words, effect && h("small", {}, effect));
}

function trapSections(trap) {
  const error = trap.stages[lastStage()];
  const parameters = count(DATA.network.parameters);
  const flipped = { flipped: trap.flipped, count: DATA.pictures.length };
  const first = trap.first && t("trap_first", { stage: trap.first, error: error === null ? t("trap_other_shape") : digits(error) });
  const shapes = trap.misshapen ? t("trap_misshapen", { stage: trap.misshapen, parameters }) : t("trap_shapes", { parameters });
  return [
    h(
      "div",
      { class: "verdict", "aria-live": "polite" },
      h("h3", {}, filled(DATA.trap_words[trap.name].title)),
      h("p", {}, filled(DATA.trap_words[trap.name].how)),
      h("p", { class: "strong" }, first ?? t("trap_nothing")),
      h("p", {}, sentences(shapes, t(trap.flipped ? "trap_flipped" : "trap_flipped_none", flipped))),
      h("p", { class: "note" }, t("trap_where"), " ", places(trap.places)),
    ),
    section(t("trap_stages"), h("p", { class: "note" }, t("trap_scale")), measures(t("trap_stages"), stageRows(trap))),
    section(t("trap_logits"), logits(trap)),
  ];
}

/** 0 for rounding, 1 for an error as large as the numbers themselves. */
function heat(error) {
  if (error === null) return 1;
  return error > SAME ? Math.min(Math.max(1 - Math.log10(error) / LEAST, 0.02), 1) : 0;
}

function stageRows(trap) {
  return Object.entries(trap.stages).map(([stage, error]) => [
    link(stage),
    h("span", { class: "measure hot" }, h("span", { style: { width: `${100 * heat(error)}%` } })),
    error === null ? t("trap_other_shape") : error <= SAME ? t("trap_same") : digits(error),
  ]);
}

/** Each class twice: as it should be, and with the mistake. */
function logits(trap) {
  const picture = DATA.pictures[state.picture];
  const wrong = trap.logits[state.picture];
  const all = [...picture.logits.map(({ logit }) => logit), ...wrong];
  const [low, high] = [Math.min(0, ...all), Math.max(0, ...all)];
  const place = (x) => (100 * (x - low)) / (high - low || 1);
  const bar = (x, kind) => {
    const [left, right] = [Math.min(place(x), place(0)), Math.max(place(x), place(0))];
    return h("span", { class: `measure ${kind}` }, h("span", { style: { "margin-left": `${left}%`, width: `${right - left}%` } }));
  };
  const row = ({ class: name, logit }, i) => [
    name,
    [bar(logit, ""), bar(wrong[i], "hot")],
    [h("div", {}, logit.toPrecision(4)), h("div", { class: "hot" }, wrong[i].toPrecision(4))],
  ];
  const legend = h("p", { class: "note legend" }, h("span", { class: "key" }), ` ${t("right")} `, h("span", { class: "key hot" }), ` ${t("wrong")}`);
  return h(
    "div",
    { class: "way" },
    h("div", { class: "source" }, bigPicture(picture), choosePicture()),
    h("div", {}, legend, measures(t("trap_logits"), picture.logits.map(row))),
  );
}

/** The operations that a trap is made in, and all that come after one. */
function reachedBy(trap) {
  const reached = new Set(trap.places);
  for (const [name, { reads }] of Object.entries(DATA.network.operations)) {
    if (reads.some((read) => reached.has(read))) reached.add(name);
  }
  return reached;
}

/** How a trap shows in the drawing; errors are known of whole stages. */
function trapLook(trap) {
  if (!trap) return () => null;
  const reached = reachedBy(trap);
  return (name) => {
    const { stage } = DATA.network.operations[name] ?? {};
    const made = trap.places.includes(name);
    const error = trap.stages[stage];
    if (error === undefined) return null;
    const off = reached.has(name) && (error === null || error > SAME);
    const effect = error === null ? t("trap_other_shape") : digits(error);
    const label = !off ? t("trap_same") : name === stage ? effect : `${stage}: ${effect}`;
    return { kind: [off && "off", made && "made"].filter(Boolean).join(" "), label, style: { "--heat": `${100 * heat(error)}%` } };
  };
}
