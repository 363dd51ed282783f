// Words, numbers and elements. Whatever the page shows is set as text: nothing that stands in the data is markup.

const DATA = JSON.parse(document.getElementById("data").textContent);
const LANGUAGES = ["en", "zh-CN"];
const state = {
  language: stored("language") ?? (navigator.language.startsWith("zh") ? 1 : 0),
  size: stored("size") ?? 0, // of the boxes: by parameters, or by multiply-adds
  code: stored("code") ?? 0, // the framework whose tab is open
  beside: stored("beside") ?? 0, // whether all frameworks stand side by side
  picture: 0,
};

/** A number that this browser has kept; some browsers keep nothing for files. */
function stored(name) {
  try {
    const value = localStorage.getItem(`googlenet-${name}`);
    return value === null ? null : Number(value);
  } catch {
    return null;
  }
}

function keep(name, value) {
  state[name] = value;
  try {
    localStorage.setItem(`googlenet-${name}`, value);
  } catch {
    // It holds for as long as the page is open.
  }
}

/** A text in the chosen language, with values in the places of {names}. */
function t(key, values = {}) {
  const words = DATA.words[key];
  if (!words) throw new Error(`no words for ${key}`);
  return filled(words, values);
}

function filled(words, values = {}) {
  return words[state.language].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Sentences one after the other, in which Chinese has no spaces. */
function sentences(...texts) {
  return texts.filter(Boolean).join(state.language ? "" : " ");
}

/** A count with separators. */
function count(n) {
  return n.toLocaleString(LANGUAGES[state.language]);
}

/** Millions and billions in three digits. */
function short(n) {
  const units = [[1e9, "G"], [1e6, "M"], [1e3, "k"]];
  const [size, unit] = units.find(([size]) => n >= size) ?? [1, ""];
  return unit ? `${Number((n / size).toPrecision(3))}${unit}` : String(n);
}

/** A number in two digits. */
function digits(x) {
  if (x === 0) return "0";
  if (x < 0) return `−${digits(-x)}`;
  if (x < 1e-3 || x >= 1e4) return x.toExponential(1);
  return x < 100 ? x.toPrecision(2) : String(Number(x.toPrecision(2)));
}

function percent(x) {
  return x.toLocaleString(LANGUAGES[state.language], { style: "percent", maximumSignificantDigits: 2 });
}

/** Channels × height × width. */
function shapeText(shape) {
  return shape.join(" × ");
}

/** An element with attributes (`on...` are listeners) and children: elements, texts, and nothing. */
function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, x] of Object.entries(value)) element.style.setProperty(key, x);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** A table that scrolls by itself where the screen is narrow. */
function table(caption, headings, rows, kind = "") {
  return h(
    "div",
    { class: `wide ${kind}`, tabindex: 0, role: "region", "aria-label": caption },
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, headings.map((text) => h("th", { scope: "col" }, text)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell) => h("td", {}, cell))))),
    ),
  );
}

function section(title, ...children) {
  return h("section", {}, h("h3", {}, title), children);
}

/** Buttons of which one is pressed. */
function choice(label, texts, chosen, choose) {
  return h(
    "div",
    { class: "choice", role: "group", "aria-label": label },
    texts.map((text, i) =>
      h("button", { type: "button", "aria-pressed": String(i === chosen), onclick: () => choose(i) }, text),
    ),
  );
}

function link(name, text = name) {
  return h("a", { href: `#${name}` }, text);
}

/** The first few places as links, and how many more there are. */
function places(names, most = 6) {
  const links = names.slice(0, most).flatMap((name) => [name === "images" ? t("images") : link(name), ", "]);
  links.pop();
  const more = names.length - most;
  return more > 0 ? [links, " ", t("more", { count: count(more) })] : links;
}
