// How far the run is: its numbers, and its tasks.
import { bar, count, duration, element, keep, left, rate, share, text, voxels } from "./format.js";

const COUNTS = ["total", "finished", "done", "skipped", "leased", "ready", "pending", "failed", "orphaned"];
const CELLS = ["finished", "running", "rate", "time left", "failed", "never runs", "retries"];

export const isOver = (live) => !["running", "paused"].includes(live.state);

function sum(tasks) {
  return Object.fromEntries(COUNTS.map((name) => [name, tasks.reduce((n, task) => n + task[name], 0)]));
}

export function showHeadline(live) {
  const all = sum(live.tasks);
  const slots = live.pools.reduce((n, pool) => n + pool.slots, 0);
  const busy = live.pools.reduce((n, pool) => n + pool.busy, 0);
  const over = isOver(live);
  const written = live.tasks.reduce((n, task) => n + (task.voxels_per_s ?? 0), 0);
  const numbers = [
    ["finished", share(all.finished, all.total)],
    ["blocks", `${count(all.finished)} of ${count(all.total)}`],
    over ? ["took", duration(live.elapsed_s)] : ["time left", left(live.eta_s, live.eta_p10_s, live.eta_p90_s)],
  ];
  if (!over) numbers.push(["slots busy", `${count(busy)} of ${count(slots)}`]);
  if (written && !over) numbers.push(["written", voxels(written)]);
  if (all.failed) numbers.push(["failed", count(all.failed)]);
  if (all.orphaned) numbers.push(["never run (need a failed one)", count(all.orphaned)]);
  if (live.quiet_s) numbers.push(["nothing is leased for", duration(live.quiet_s)]);
  text(document.getElementById("run"), live.run);
  const badge = document.getElementById("state");
  text(badge, (badge.dataset.state = live.state));
  document.title = `${share(all.finished, all.total)} ${live.run}`;
  keep(document.getElementById("headline"), numbers, ([name]) => name,
    ([name]) => element("div", {}, element("dt", {}, name), element("dd")), (made, [, value]) => text(made.lastChild, value));
  bar(document.getElementById("overall"), all);
  const show = (id, when) => { document.getElementById(id).hidden = !when; };
  show("pause", live.state === "running");
  show("resume", live.state === "paused" || live.state === "cancelled");
  show("cancel", !over);
  show("retry", all.failed > 0);
}

// What a person should know now, whatever part of the run it is about.
export function showNotices(live) {
  const place = document.getElementById("notices");
  place.hidden = !live.notices.length;
  keep(place, live.notices, (notice) => JSON.stringify([notice.kind, notice.task, notice.worker, notice.pool]),
    () => element("li"), (made, notice) => text(made, notice.text));
}

function row(choose) {
  return (task) => {
    const name = element("button", { type: "button", className: "link", title: "Show this task on the map" }, task.id);
    name.addEventListener("click", () => choose(task.id));
    const cells = CELLS.map((label) => element("td", { data: { label } }));
    return element("tr", {}, element("td", {}, name), element("td", {}, element("div", { className: "bar" })), ...cells);
  };
}

export function showTasks(live, chosen, choose) {
  keep(document.querySelector("#tasks tbody"), live.tasks, (task) => task.id, row(choose), (made, task) => {
    const [name, progress, ...cells] = made.children;
    name.firstChild.setAttribute("aria-pressed", String(task.id === chosen));
    bar(progress.firstChild, task);
    const limit = task.num_workers === null ? "" : ` of ${count(task.num_workers)}`;
    const time = task.over || isOver(live) ? "over" : task.eta_s === null ? (task.leased ? "unknown" : "waits")
      : left(task.eta_s, task.eta_p10_s, task.eta_p90_s);
    const texts = [
      `${count(task.finished)} of ${count(task.total)}`, count(task.leased) + limit, task.over ? "\u2013" : rate(task.rate), time,
      count(task.failed), count(task.orphaned), count(task.retries),
    ];
    cells.forEach((cell, i) => text(cell, texts[i]));
    cells[2].title = task.voxels_per_s ? voxels(task.voxels_per_s) : "";
    cells[4].classList.toggle("trouble", task.failed > 0);
    cells[5].classList.toggle("trouble", task.orphaned > 0);
  });
}
