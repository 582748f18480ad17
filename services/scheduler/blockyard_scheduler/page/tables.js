// Tasks, workers and throughput: everything that one event says.
import { bar, count, duration, element, finished, left, rate, share, voxels } from "./format.js";

const rows = new Map();

function sum(tasks) {
  const all = { total: 0 };
  for (const task of tasks) {
    for (const state of ["total", "done", "skipped", "leased", "ready", "pending", "failed", "orphaned"]) {
      all[state] = (all[state] ?? 0) + task[state];
    }
  }
  return all;
}

export function showHeadline(live) {
  const all = sum(live.tasks);
  const online = live.pools.reduce((n, pool) => n + pool.connected, 0);
  const over = !["running", "paused"].includes(live.state);
  const numbers = [
    ["finished", share(finished(all), all.total)],
    ["blocks", `${count(finished(all))} of ${count(all.total)}`],
    over ? ["took", duration(live.elapsed_s)] : ["time left", left(live.eta_s, live.eta_p10_s, live.eta_p90_s)],
    ["workers", count(online)],
  ];
  const written = live.tasks.reduce((n, task) => n + (task.voxels_per_s ?? 0), 0);
  if (written) numbers.push(["written", voxels(written)]);
  if (all.failed) numbers.push(["failed", count(all.failed)]);
  if (live.quiet_s) numbers.push(["nothing is leased for", duration(live.quiet_s)]);
  document.getElementById("run").textContent = live.run;
  const badge = document.getElementById("state");
  badge.textContent = badge.dataset.state = live.state;
  document.title = `${share(finished(all), all.total)} ${live.run}`;
  document.getElementById("headline").replaceChildren(
    ...numbers.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))),
  );
  bar(document.getElementById("overall"), all);
  document.getElementById("pause").hidden = live.state !== "running";
  document.getElementById("resume").hidden = live.state !== "paused";
  document.getElementById("cancel").hidden = over;
  document.getElementById("retry").hidden = !all.failed;
}

function row(task, choose) {
  const name = element("button", { type: "button", className: "link", title: "Show this task on the map" }, task.id);
  name.addEventListener("click", () => choose(task.id));
  const cells = ["finished", "running", "rate", "time left", "failed", "orphaned", "retries"].map((label) =>
    element("td", { data: { label } }));
  const made = element("tr", {}, element("td", {}, name), element("td", {}, element("div", { className: "bar" })), ...cells);
  rows.set(task.id, { made, name, bar: made.querySelector(".bar"), cells });
  return made;
}

export function showTasks(live, chosen, choose) {
  const body = document.querySelector("#tasks tbody");
  for (const task of live.tasks) {
    if (!rows.has(task.id)) body.append(row(task, choose));
    const { name, bar: itsBar, cells } = rows.get(task.id);
    name.setAttribute("aria-pressed", String(task.id === chosen));
    bar(itsBar, task);
    const limit = task.num_workers === null ? "" : ` of ${count(task.num_workers)}`;
    const time = task.over ? "over" : task.eta_s === null ? (task.leased ? "unknown" : "waits") : left(task.eta_s, task.eta_p10_s, task.eta_p90_s);
    const texts = [
      `${count(finished(task))} of ${count(task.total)}`, count(task.leased) + limit, rate(task.rate), time,
      count(task.failed), count(task.orphaned), count(task.retries),
    ];
    cells.forEach((cell, i) => { cell.textContent = texts[i]; });
    cells[2].title = task.voxels_per_s ? voxels(task.voxels_per_s) : "";
    cells[4].classList.toggle("trouble", task.failed > 0);
  }
}

export function showWorkers(live) {
  const head = element("tr", {}, ...["pool", "workers", "lost", "slots busy", "blocks held", "finished"].map((name) =>
    element("th", { scope: "col" }, name)));
  const pools = live.pools.map((pool) => element("tr", {}, ...[
    pool.pool, count(pool.connected), count(pool.lost), `${count(pool.busy)} of ${count(pool.slots)}`, count(pool.leases),
    count(pool.finished)].map((text) => element("td", {}, text))));
  const slow = live.stragglers.map((block) => element("li", {},
    `block ${block.index.join(", ")} of ${block.task} runs for ${duration(block.seconds)} on ${block.worker}` +
    ` (usual: ${duration(block.median_s)})`));
  document.getElementById("workers").replaceChildren(
    pools.length ? element("div", { className: "scroll" }, element("table", {}, element("thead", {}, head), element("tbody", {}, ...pools)))
      : element("p", { className: "faint" }, "No worker is connected. Blocks wait until one is."),
    slow.length ? element("div", {}, element("h3", {}, "Unusually slow"), element("ul", {}, ...slow)) : "",
  );
}

const DECIDES = { auto: "the scheduler", person: "a person", nobody: "not scaled here" };

// Pools of pods: how many there are and why not more; built once a pool, so that a number being typed stays.
export function showKubernetes(live, scale) {
  const place = document.getElementById("kubernetes");
  for (const pool of live.kubernetes) {
    let made = [...place.children].find((child) => child.dataset.pool === pool.pool);
    if (!made) {
      const number = element("input", { type: "number", min: 0, required: true, value: pool.replicas, ariaLabel: `Workers of pool ${pool.pool}` });
      const auto = element("button", { type: "button" }, "Let the scheduler decide");
      made = element("form", { className: "pool", data: { pool: pool.pool } }, element("p"), element("ul"), number,
        element("button", { type: "submit" }, "Scale"), auto);
      made.addEventListener("submit", (event) => { event.preventDefault(); scale({ pool: pool.pool, workers: Number(number.value) }); });
      auto.addEventListener("click", () => scale({ pool: pool.pool, workers: null }));
      place.append(made);
    }
    made.querySelector("p").textContent = `Pool ${pool.pool} on Kubernetes: ${count(pool.ready)} of ${count(pool.replicas)} pods ready, ` +
      `${count(pool.desired)} of use${pool.pending ? `, ${count(pool.pending)} pending` : ""}; decides: ${DECIDES[pool.decides]}.`;
    made.querySelector("ul").replaceChildren(...[...pool.reasons, ...(pool.error ? [pool.error] : [])].map((text) => element("li", {}, text)));
    made.lastElementChild.hidden = pool.decides === "auto";
  }
}

let samples = null;
new ResizeObserver(() => showThroughput()).observe(document.getElementById("throughput"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => showThroughput());

export function showThroughput(throughput) {
  samples = throughput ?? samples;
  if (!samples) return;
  const length = Math.max(0, ...Object.values(samples.tasks).map((list) => list.length));
  const sums = Array.from({ length }, (_, i) =>
    Object.values(samples.tasks).reduce((n, list) => n + (list[i] ?? 0), 0) / samples.bucket_s);
  const whole = sums.length > 1 ? sums.slice(0, -1) : [...sums, ...sums]; // the last interval is not over yet
  draw(document.getElementById("throughput"), whole, samples.bucket_s);
}

function draw(canvas, values, bucket) {
  const scale = devicePixelRatio;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  pen.scale(scale, scale);
  pen.font = "12px system-ui, sans-serif";
  const most = Math.max(...values, 0);
  const text = document.getElementById("throughput-text");
  if (!most) {
    text.textContent = "Nothing has finished since this scheduler began to lead.";
    canvas.setAttribute("aria-label", text.textContent);
    return;
  }
  const [left, top, bottom] = [8, 22, height - 20];
  const right = width - 8;
  const x = (i) => left + ((right - left) * i) / Math.max(values.length - 1, 1);
  const y = (value) => bottom - ((bottom - top) * value) / most;
  pen.strokeStyle = colour("--line");
  pen.beginPath();
  for (const level of [0, 0.5, 1]) { pen.moveTo(left, y(level * most)); pen.lineTo(right, y(level * most)); }
  pen.stroke();
  pen.beginPath();
  pen.moveTo(x(0), bottom);
  values.forEach((value, i) => pen.lineTo(x(i), y(value)));
  pen.lineTo(x(values.length - 1), bottom);
  pen.fillStyle = colour("--done");
  pen.globalAlpha = 0.22;
  pen.fill();
  pen.globalAlpha = 1;
  pen.beginPath();
  values.forEach((value, i) => pen.lineTo(x(i), y(value)));
  pen.strokeStyle = colour("--done");
  pen.lineWidth = 2;
  pen.stroke();
  pen.fillStyle = colour("--faint");
  pen.fillText(`${rate(most)} at most`, left, 14);
  pen.fillText(`${duration(values.length * bucket)} ago`, left, height - 5);
  pen.textAlign = "right";
  pen.fillText("now", right, height - 5);
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const recent = values.slice(-Math.max(1, Math.round(10 / bucket)));
  const now = recent.reduce((a, b) => a + b, 0) / recent.length;
  text.textContent = `All tasks together: ${rate(now)} now, ${rate(mean)} on average, ${rate(most)} at most` +
    ` (in intervals of ${duration(bucket)}).`;
  canvas.setAttribute("aria-label", text.textContent);
}
