// Numbers, times and elements.
const WHOLE = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const STATES = ["done", "skipped", "leased", "ready", "pending", "failed", "orphaned", "outside"];
// Signs beside colours, so that states can be told apart without them.
export const SIGNS = { done: "", skipped: "\u2013", leased: "\u25cf", ready: "\u25cb", pending: "", failed: "\u00d7", orphaned: "/", outside: "" };
export const MEANING = {
  done: "done", skipped: "skipped: was done already", leased: "with a worker", ready: "ready to run",
  pending: "waiting", failed: "failed for good", orphaned: "never runs: waits for a failed block", outside: "not in this run",
};

export const count = (n) => WHOLE.format(n);

// In percent: 100 % is said of all of it only, 0 % of none only.
export function share(part, whole) {
  if (part >= whole) return "100 %";
  const tenths = Math.min(Math.round((1000 * part) / whole), 999);
  return tenths ? `${(tenths / 10).toFixed(1)} %` : part ? "< 0.1 %" : "0 %";
}

export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return "\u2013";
  if (perSecond >= 0.5 || !perSecond) return `${SHORT.format(perSecond)} / s`;
  return perSecond * 60 >= 0.5 ? `${SHORT.format(perSecond * 60)} / min` : `${SHORT.format(perSecond * 3600)} / h`;
}

const UNITS = [[1, "s"], [60, "min"], [3600, "h"], [86400, "d"]];

// In the two largest units: "1 h 7 min", "3 min 20 s", "1 min".
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !isFinite(seconds)) return "unknown";
  const whole = Math.round(seconds);
  const large = whole < 60 ? 0 : whole < 3570 ? 1 : whole < 84600 ? 2 : 3;
  const [size, name] = UNITS[large];
  if (!large) return `${whole} ${name}`;
  const [small, its] = UNITS[large - 1];
  const smalls = Math.round(whole / small);
  const [first, second] = [Math.floor(smalls / (size / small)), smalls % (size / small)];
  return second ? `${first} ${name} ${second} ${its}` : `${first} ${name}`;
}

// A range in one unit: "3.8 to 5 min".
function span(low, high) {
  const [size, name] = high < 100 ? UNITS[0] : high < 6000 ? UNITS[1] : high < 259200 ? UNITS[2] : UNITS[3];
  const digits = (n) => (n / size < 9.95 ? Number((n / size).toFixed(1)) : Math.round(n / size));
  return digits(low) === digits(high) ? "" : `${digits(low)} to ${digits(high)} ${name}`;
}

// A short time, with as many digits as are worth it.
export function seconds(s) {
  if (s >= 100) return duration(s);
  return s >= 0.1 ? `${SHORT.format(s)} s` : `${SHORT.format(1000 * s)} ms`;
}

// "3 min 20 s (2 to 5 min)"
export function left(point, low, high) {
  const range = point === null || low === null || high === null ? "" : span(low, high);
  return duration(point) + (range ? ` (${range})` : "");
}

// "1.23 M"
function short(n) {
  const [size, unit] = n >= 1e12 ? [1e12, " T"] : n >= 1e9 ? [1e9, " G"] : n >= 1e6 ? [1e6, " M"] : n >= 1e4 ? [1e3, " k"] : [1, ""];
  return SHORT.format(n / size) + unit;
}

export const voxels = (perSecond) => `${short(perSecond)} voxels / s`;

export const sentence = (error) => `${error.message[0].toUpperCase()}${error.message.slice(1)}.`;

export const counted = (n, noun) => `${count(n)} ${noun}${n === 1 ? "" : "s"}`;

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "data") Object.assign(made.dataset, value);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const chip = (state) => element("span", { className: "chip", data: { of: state }, ariaHidden: "true" }, SIGNS[state]);

// A bar of all states that a task's blocks are in, for eyes and, in words, for ears.
export function bar(made, task) {
  const parts = STATES.filter((state) => task[state] > 0);
  const old = new Map([...made.children].map((child) => [child.dataset.of, child]));
  const segments = parts.map((state) => {
    const segment = old.get(state) ?? element("i", { data: { of: state } });
    segment.classList.toggle("trouble", state === "failed" || state === "orphaned");
    segment.style.flexGrow = task[state] / task.total;
    segment.title = `${count(task[state])} ${state}`;
    return segment;
  });
  if (segments.length !== made.children.length || segments.some((segment, i) => segment !== made.children[i])) {
    made.replaceChildren(...segments);
  }
  made.setAttribute("aria-label", parts.map((state) => `${state} ${count(task[state])}`).join(", ") || "no blocks");
  made.setAttribute("role", "img");
}

// Brings the children of an element into line with items, by key: each is made once and then updated, so that focus,
// selection and what is open stay where they are.
export function keep(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const children = items.map((item) => {
    const child = old.get(key(item)) ?? make(item);
    child.dataset.key = key(item);
    update(child, item);
    return child;
  });
  if (children.length !== parent.children.length || children.some((child, i) => child !== parent.children[i])) {
    const focused = parent.contains(document.activeElement) ? document.activeElement : null;
    parent.replaceChildren(...children);
    if (focused && parent.contains(focused)) focused.focus({ preventScroll: true });
  }
}

export function text(place, words) {
  if (place.textContent !== words) place.textContent = words;
}

// A button that looks like a link: it shows a block, on the map and in words.
export function blockLink(task, index, show) {
  const made = element("button", { type: "button", className: "link" }, index.join(", "));
  made.addEventListener("click", () => show(task, index));
  return made;
}
