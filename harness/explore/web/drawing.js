// The network drawn: stages from top to bottom, branches side by side. Every box is a link to what it is.

const COLUMN = 95; // widths and heights in units of the drawing, which are pixels where there is room
const GAP = 10;
const LINE = 18; // between two boxes, for the line that joins them
const SMALLEST = 34;
const LARGEST = 92;
const TITLE = 26; // height of a frame's title

/** An SVG of a network; `look(name)` gives classes and a tooltip to boxes, or nothing. */
function drawing(network, look = () => null) {
  const by = ["parameters", "multiply_adds"][state.size];
  const most = Math.max(...Object.values(network.operations).map((x) => x[by]), 1);
  const pen = new Pen(network, by, most, look);
  const columns = Math.max(...network.layout.map(columnsOf), 2);
  const width = columns * (COLUMN + GAP) + 3 * GAP;
  let y = pen.source(width / 2);
  for (const part of network.layout) y = part.head ? pen.head(part, width, y) : pen.part(part, 0, width, y, true);
  const label = t("drawing");
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${y + 4}`, width, height: y + 4, role: "group", "aria-label": label },
    pen.boxes,
  );
}

/** How many columns a part takes. */
function columnsOf(part) {
  if (part.branches) return part.branches.reduce((sum, branch) => sum + columnsOfChain(branch), 0);
  if (part.chain) return columnsOfChain(part.chain) + 0.5;
  return 1;
}

function columnsOfChain(chain) {
  return Math.max(1, ...chain.map(columnsOf));
}

class Pen {
  constructor(network, by, most, look) {
    Object.assign(this, { network, by, most, look, boxes: [] });
  }

  source(x) {
    const [channels, height, width] = this.network.input;
    const text = `${t("picture_in")} · ${height} × ${width} × ${channels}`;
    this.boxes.push(s("text", { x, y: 16, class: "note", "text-anchor": "middle" }, text));
    this.line(x, 22, x, 22 + LINE);
    return 22 + LINE;
  }

  line(x1, y1, x2, y2, kind = "") {
    const bend = (y1 + y2) / 2;
    const d = x1 === x2 ? `M${x1} ${y1}V${y2}` : `M${x1} ${y1}C${x1} ${bend} ${x2} ${bend} ${x2} ${y2}`;
    this.boxes.push(s("path", { d, class: `line ${kind}` }));
  }

  /** One part within x and x + width from y on, and the line to the next; where that begins. */
  part(part, x, width, y, onward) {
    const end = part.branches || part.chain ? this.frame(part, x, width, y) : this.box(part, x, width, y);
    if (!onward) return end;
    this.line(x + width / 2, end, x + width / 2, end + LINE);
    return end + LINE;
  }

  /** A box of its own; as high as its number is large. */
  box(part, x, width, y) {
    const operation = this.network.operations[part.name];
    const height = SMALLEST + (LARGEST - SMALLEST) * Math.sqrt(operation[this.by] / this.most);
    const wide = Math.min(width - GAP, part.name === operation.stage ? 2 * COLUMN + GAP : COLUMN);
    const left = x + (width - wide) / 2;
    const leaf = part.name.slice(part.name.indexOf(".") + 1);
    const middle = { x: x + width / 2, "text-anchor": "middle" };
    this.link(part.name, `box ${operation.settings.kind}`, { x: left, y, width: wide, height, rx: 5 }, [
      s("text", { ...middle, y: y + height / 2 - 3, class: "what" }, boxText(operation)),
      s("text", { ...middle, y: y + height / 2 + 11, class: "name" }, leaf),
    ]);
    return y + height;
  }

  /** A block or a residual in a frame with a title. */
  frame(part, x, width, y) {
    const top = y + TITLE;
    const center = x + width / 2;
    const inner = part.branches ?? [part.chain];
    const columns = columnsOf(part);
    const unit = Math.min(COLUMN + GAP, (width - 2 * GAP) / columns);
    const left = center - (unit * columns) / 2;
    const own = this.boxes;
    this.boxes = [];
    let at = left + (part.chain && part.shortcut ? unit / 2 : 0);
    const ends = inner.map((chain) => {
      const wide = unit * columnsOfChain(chain);
      this.line(center, top - 4, at + wide / 2, top + LINE);
      let end = top + LINE;
      chain.forEach((item, i) => {
        end = this.part(item, at, wide, end, i < chain.length - 1);
      });
      at += wide;
      return { x: at - wide / 2, y: end };
    });
    const bottom = Math.max(...ends.map((end) => end.y)) + LINE;
    for (const end of ends) this.line(end.x, end.y, end.x, bottom);
    if (part.chain && part.shortcut) {
      const d = `M${center} ${top - 4}C${left + unit / 4} ${top + 4} ${left + unit / 4} ${top} ${left + unit / 4} ${top + LINE}V${bottom}`;
      this.boxes.push(s("path", { d, class: "line" }));
    }
    const bar = { x: left + 4, y: bottom, width: unit * columns - 8, height: 6, rx: 3, class: "bar" };
    const within = this.boxes;
    this.boxes = own;
    const size = { x: left, y, width: unit * columns, height: bottom + 14 - y, rx: 9 };
    const shape = this.network.operations[part.name].out;
    this.link(part.name, "frame", size, [
      s("text", { x: left + 10, y: y + 17, class: "title" }, part.name.slice(part.name.lastIndexOf(".") + 1)),
      s("text", { x: left + unit * columns - 10, y: y + 17, class: "note", "text-anchor": "end" }, shape.join(" × ")),
      s("rect", bar),
    ]);
    this.boxes.push(...within);
    return bottom + 14;
  }

  /** A head beside the trunk, which goes on. */
  head(part, width, y) {
    const center = width / 2;
    const left = center + 2 * GAP;
    const wide = Math.min(COLUMN + 2 * GAP, width - left - 4);
    const own = this.boxes;
    this.boxes = [];
    let end = y + TITLE + 4;
    part.head.forEach((item, i) => {
      end = this.part(item, left, wide, end, i < part.head.length - 1);
    });
    const within = this.boxes;
    this.boxes = own;
    this.link(part.name, "frame beside", { x: left, y, width: wide, height: end + GAP - y, rx: 9 }, [
      s("text", { x: left + 10, y: y + 17, class: "title" }, part.name),
    ]);
    this.boxes.push(...within);
    this.boxes.push(s("path", { d: `M${center} ${y}C${center} ${y + 14} ${center} ${y + 14} ${left} ${y + 14}`, class: "line dashed" }));
    this.line(center, y, center, end + GAP + LINE);
    return end + GAP + LINE;
  }

  link(name, kind, size, content) {
    const found = this.look(name);
    const label = [name, wordsOf(this.network, name), found?.label].filter(Boolean).join(", ");
    const classes = ["node", kind, found?.kind].filter(Boolean).join(" ");
    const style = found?.style ?? {};
    this.boxes.push(
      s("a", { href: `#${name}`, class: classes, "data-name": name, "aria-label": label, style }, [
        s("title", {}, label),
        s("rect", size),
        content,
      ]),
    );
  }
}

/** What a box says: ``3 × 3 conv, 64``. */
function boxText({ settings, out }) {
  const what = t(`short_${settings.kind}`);
  if (settings.kind === "dense") return `${what}, ${count(out[0])}`;
  if (!settings.kernel) return what;
  const stride = settings.stride[0] > 1 ? ` /${settings.stride[0]}` : "";
  const kernel = `${settings.kernel.join("×")} ${what}${stride}`;
  return settings.channels ? `${kernel}, ${settings.channels}` : kernel;
}

/** An operation in words. */
function wordsOf(network, name) {
  const operation = network.operations[name];
  if (!operation) return t("head");
  const { settings, out } = operation;
  const words = [settings.kernel ? `${settings.kernel.join(" × ")} ${t(settings.kind)}` : t(settings.kind)];
  if (settings.kind === "convolution" || settings.kind === "dense") words.push(`${count(out[0])} ${t("channels")}`);
  if (settings.norm) words.push(t("norm"));
  if (settings.activation) words.push(t(settings.activation));
  return words.join(state.language ? "，" : ", ");
}

/** Arrow keys walk from box to box. */
function walkWithKeys(event) {
  const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
  const boxes = [...event.currentTarget.querySelectorAll("a.node")];
  const at = boxes.indexOf(document.activeElement);
  if (!step || at < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  boxes[Math.min(Math.max(at + step, 0), boxes.length - 1)].focus();
}
