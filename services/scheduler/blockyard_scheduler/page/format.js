// Numbers, times and elements.
const WHOLE = new Intl.NumberFormat("en");
const SHORT = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const STATES = ["done", "skipped", "leased", "ready", "pending", "failed", "orphaned", "outside"];
// Signs beside colours, so that states can be told apart without them.
export const SIGNS = { done: "", skipped: "\u2013", leased: "\u25cf", ready: "\u25cb", pending: "", failed: "\u00d7", orphaned: "/", outside: "" };
export const MEANING = {
  done: "done", skipped: "skipped: was done already", leased: "with a worker", ready: "ready to run",
  pending: "waits", failed: "failed for good", orphaned: "never runs: waits for a failed block", outside: "not in this run",
};

export const count = (n) => WHOLE.format(n);

export function share(part, whole) {
  if (!whole) return "0 %";
  const percent = (100 * part) / whole;
  if (part === whole) return "100 %";
  return `${percent > 99.9 ? "99.9" : percent < 0.1 && part ? "< 0.1" : percent.toFixed(1)} %`;
}

export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return "\u2013";
  if (perSecond >= 0.5) return `${SHORT.format(perSecond)} / s`;
  return perSecond * 60 >= 0.5 ? `${SHORT.format(perSecond * 60)} / min` : `${SHORT.format(perSecond * 3600)} / h`;
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || !isFinite(seconds)) return "unknown";
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

// A short time, with as many digits as are worth it.
export function seconds(s) {
  if (s >= 100) return duration(s);
  return s >= 0.1 ? `${SHORT.format(s)} s` : `${SHORT.format(1000 * s)} ms`;
}

// "3 min 20 s (2 min to 5 min)"
export function left(point, low, high) {
  const known = point !== null && low !== null && high !== null && duration(low) !== duration(high);
  return duration(point) + (known ? ` (${duration(low)} to ${duration(high)})` : "");
}

export const voxels = (perSecond) => `${new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(perSecond)} voxels / s`;

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

export function finished(task) {
  return task.done + task.skipped;
}

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
