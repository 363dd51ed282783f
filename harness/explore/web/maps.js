// The pictures on their way: the strongest maps of a stage or a branch, and where on the picture a unit looks.

function mapsSection(name) {
  const operation = DATA.network.operations[name] ?? headOf(name);
  if (operation.head) return section(t("way"), h("p", { class: "note" }, t("way_head")));
  const maps = DATA.maps[name]?.[state.picture];
  if (!maps) return section(t("way"), h("p", { class: "note" }, t("way_none")));
  const view = new View(name, operation, maps);
  return section(t("way"), h("p", { class: "note" }, errorText(operation.stage)), view.element());
}

function errorText(stage) {
  const { framework, version, dtype } = DATA.computed;
  const error = DATA.errors[stage];
  return t("error", { framework, version, dtype, error: error ? digits(error) : t("error_zero") });
}

/** Thumbnails of which one is chosen. */
function choosePicture() {
  return h(
    "div",
    { class: "thumbs", role: "group", "aria-label": t("choose_picture") },
    DATA.pictures.map((picture, i) =>
      h(
        "button",
        { type: "button", "aria-pressed": String(i === state.picture), title: picture.name, onclick: () => change("picture", i) },
        h("img", { src: `data:image/png;base64,${picture.png}`, alt: picture.name, width: 56, height: 56 }),
      ),
    ),
  );
}

class View {
  constructor(name, operation, maps) {
    Object.assign(this, { name, operation, maps });
    const [, height, width] = operation.out.length === 3 ? operation.out : [0, 1, 1];
    this.units = [height, width];
    const [, tall, wide] = DATA.network.input;
    this.frame = s("rect", { class: "look" });
    this.told = h("p", { class: "told", "aria-live": "polite" });
    const picture = DATA.pictures[state.picture];
    const src = `data:image/png;base64,${picture.png}`;
    this.picture = s(
      "svg",
      { viewBox: `0 0 ${wide} ${tall}`, class: "picture", role: "img", "aria-label": picture.name },
      s("image", { href: src, width: wide, height: tall }),
      this.frame,
    );
    this.look(0, ...maps.at[0]);
  }

  element() {
    const { maps, units } = this;
    const smaller = maps.size[0] < units[0] || maps.size[1] < units[1];
    const note = [
      t(units[0] * units[1] > 1 ? "way_note" : "way_numbers", { shown: maps.channels.length, count: count(maps.count) }),
      maps.signed && t("way_signed"),
      smaller && t("way_smaller", { height: maps.size[0], width: maps.size[1] }),
    ];
    return h(
      "div",
      { class: "way" },
      h("div", { class: "source" }, this.picture, choosePicture(), this.told),
      h(
        "div",
        {},
        units[0] * units[1] === 1 ? this.numbers() : h("div", { class: "maps" }, maps.channels.map((_, i) => this.map(i))),
        h("p", { class: "note" }, sentences(...note)),
        units[0] * units[1] > 1 && h("p", { class: "note" }, t("way_unit")),
      ),
    );
  }

  /** Of maps of one number each the numbers. */
  numbers() {
    const { channels, peaks } = this.maps;
    const most = Math.max(...peaks.map(Math.abs)) || 1;
    const bar = (x) => h("span", { class: x < 0 ? "measure hot" : "measure" }, h("span", { style: { width: `${(100 * Math.abs(x)) / most}%` } }));
    return measures(t("way"), channels.map((channel, i) => [t("channel", { channel }), bar(peaks[i]), digits(peaks[i])]));
  }

  map(i) {
    const { maps } = this;
    const [row, column] = maps.at[i];
    const many = maps.channels.length;
    const peak = digits(maps.peaks[i]);
    const place = many > 1 ? (100 * i) / (many - 1) : 0;
    const label = t("map", { channel: maps.channels[i], peak, row: row + 1, column: column + 1 });
    const cell = h("button", {
      type: "button",
      class: "map",
      "aria-label": label,
      title: label,
      style: {
        "background-image": `url(data:image/png;base64,${maps.png})`,
        "background-size": `100% ${100 * many}%`,
        "background-position": `0 ${place}%`,
        "aspect-ratio": `${maps.size[1]} / ${maps.size[0]}`,
      },
      onfocus: () => this.look(i, row, column),
      onpointermove: (event) => this.point(i, event),
      onclick: (event) => event.detail && this.point(i, event),
      onkeydown: (event) => this.walk(i, event),
    });
    return h("figure", {}, cell, h("figcaption", {}, t("channel", { channel: maps.channels[i] }), h("small", {}, ` ${peak}`)));
  }

  point(i, event) {
    const box = event.currentTarget.getBoundingClientRect();
    const unit = (share, side) => Math.min(Math.max(Math.floor(share * side), 0), side - 1);
    const [height, width] = this.units;
    this.look(i, unit((event.clientY - box.top) / box.height, height), unit((event.clientX - box.left) / box.width, width));
  }

  walk(i, event) {
    const step = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const [row, column] = this.at.map((x, axis) => Math.min(Math.max(x + step[axis], 0), this.units[axis] - 1));
    this.look(i, row, column);
  }

  /** Show where a unit looks. */
  look(i, row, column) {
    this.at = [row, column];
    const [top, bottom] = this.operation.rows[row] ?? this.operation.rows[0];
    const [left, right] = this.operation.columns[column] ?? this.operation.columns[0];
    for (const [key, value] of Object.entries({ x: left, y: top, width: right - left, height: bottom - top })) {
      this.frame.setAttribute(key, value);
    }
    const place = { channel: this.maps.channels[i], row: row + 1, column: column + 1 };
    this.told.textContent = t("unit", { ...place, top: top + 1, bottom, left: left + 1, right });
  }
}

/** The likeliest classes of the chosen picture. */
function topClasses() {
  const picture = DATA.pictures[state.picture];
  const { weights } = DATA.computed;
  const most = Math.max(...picture.top.map((x) => x.probability));
  const row = ({ class: name, probability }) => [
    name,
    h("span", { class: "measure" }, h("span", { style: { width: `${(100 * probability) / most}%` } })),
    percent(probability),
  ];
  return section(
    t("top"),
    h("p", { class: "note" }, weights ? t("trained", { weights }) : t("random")),
    h("div", { class: "way" }, h("div", { class: "source" }, bigPicture(picture), choosePicture()), measures(t("top"), picture.top.map(row))),
  );
}

function bigPicture(picture) {
  return h("img", { class: "picture", src: `data:image/png;base64,${picture.png}`, alt: picture.name });
}

/** Rows of a name, bars and numbers. */
function measures(caption, rows) {
  return h(
    "table",
    { class: "measures", "aria-label": caption },
    h("tbody", {}, rows.map(([name, ...cells]) => h("tr", {}, h("th", { scope: "row" }, name), cells.map((cell) => h("td", {}, cell))))),
  );
}
