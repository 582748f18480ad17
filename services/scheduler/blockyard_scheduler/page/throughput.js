// How fast the run went since this scheduler began to lead: all tasks together, and each by itself.
import { duration, element, keep, rate, text, voxels } from "./format.js";

const place = document.getElementById("throughput");
const unit = document.getElementById("throughput-unit");
let samples = null;
let ended = false; // the run is over: nothing is "now"
new ResizeObserver(() => showThroughput()).observe(place);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => showThroughput());
unit.addEventListener("change", () => showThroughput());

export function showThroughput(throughput, over = ended) {
  samples = throughput ?? samples;
  ended = over;
  if (!samples) return;
  const lists = Object.entries(samples[unit.value]);
  const length = Math.max(0, ...lists.map(([, list]) => list.length));
  const total = Array.from({ length }, (_, i) => lists.reduce((n, [, list]) => n + (list[i] ?? 0), 0));
  const rows = lists.length > 1 ? [["all tasks", total], ...lists] : lists;
  keep(place, rows, ([name], i) => name, row, (made, [name, list]) => {
    const perSecond = list.map((n) => n / samples.bucket_s);
    const whole = perSecond.length > 1 ? perSecond.slice(0, -1) : perSecond; // the last interval is not over yet
    const words = inWords(whole);
    text(made.children[0].firstChild, name);
    text(made.children[0].lastChild, words);
    made.children[1].setAttribute("aria-label", `${name}: ${words}`);
    draw(made.children[1], whole.length > 1 ? whole : [...whole, ...whole]);
  });
  text(document.getElementById("throughput-text"), total.some((n) => n)
    ? `The last ${duration(total.length * samples.bucket_s)}, in intervals of ${duration(samples.bucket_s)}; each line has its own height.`
    : "Nothing has finished since this scheduler began to lead.");
}

function row() {
  return element("div", { className: "speed" }, element("p", {}, element("b"), element("span", { className: "faint" })),
    element("canvas", { role: "img" }));
}

function inWords(values) {
  const said = unit.value === "voxels" ? voxels : rate;
  const most = Math.max(...values, 0);
  if (!most) return "nothing yet";
  const recent = values.slice(-Math.max(1, Math.round(10 / samples.bucket_s)));
  const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
  return `${ended ? "" : `${said(mean(recent))} now, `}${said(mean(values))} on average, ${said(most)} at most`;
}

function draw(canvas, values) {
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * devicePixelRatio;
  canvas.height = height * devicePixelRatio;
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  pen.scale(devicePixelRatio, devicePixelRatio);
  const most = Math.max(...values, 0) || 1;
  const [top, bottom] = [3, height - 1.5];
  const x = (i) => (width * i) / Math.max(values.length - 1, 1);
  const y = (value) => bottom - ((bottom - top) * value) / most;
  const line = () => values.forEach((value, i) => pen.lineTo(x(i), y(value)));
  pen.strokeStyle = style.getPropertyValue("--line");
  pen.beginPath();
  for (const level of [bottom, (top + bottom) / 2]) { pen.moveTo(0, level); pen.lineTo(width, level); }
  pen.stroke();
  pen.fillStyle = pen.strokeStyle = style.getPropertyValue("--done");
  pen.beginPath();
  pen.moveTo(0, bottom);
  line();
  pen.lineTo(width, bottom);
  pen.globalAlpha = 0.2;
  pen.fill();
  pen.globalAlpha = 1;
  pen.beginPath();
  line();
  pen.lineWidth = 1.5;
  pen.stroke();
}
