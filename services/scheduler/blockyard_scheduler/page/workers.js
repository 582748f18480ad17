// Who works: pools, workers one by one with what they run, and blocks that take unusually long.
import { blockLink, count, counted, duration, element, keep, text } from "./format.js";

const POOL = ["pool", "workers", "lost", "slots busy", "blocks held", "finished"];
const WORKER = ["worker", "pool", "slots busy", "runs", "finished", "heard of"];

const place = document.getElementById("workers");
const none = element("p", { className: "faint" });
const pools = table("pools", POOL);
const workers = table("each", WORKER);
const more = element("p", { className: "faint" });
const slow = element("ul");
const unusual = element("div", {}, element("h3", {}, "Unusually slow"), slow);
place.append(none, pools, workers, more, unusual);

function table(name, heads) {
  const head = element("tr", {}, ...heads.map((label) => element("th", { scope: "col" }, label)));
  return element("div", { className: `scroll ${name}` }, element("table", {}, element("thead", {}, head), element("tbody")));
}

function cells(labels) {
  return () => element("tr", {}, ...labels.map((label) => element("td", { data: { label } })));
}

function fill(row, texts) {
  texts.forEach((words, i) => { if (words !== null) text(row.children[i], words); });
}

export function showWorkers(live, over, show) {
  none.hidden = live.n_workers > 0;
  text(none, over ? "The run is over, and no worker is connected." : "No worker is connected. Blocks wait until one is.");
  pools.hidden = live.pools.length < 2;
  keep(pools.querySelector("tbody"), live.pools, (pool) => pool.pool, cells(POOL), (row, pool) => fill(row, [
    pool.pool, count(pool.connected), count(pool.lost), `${count(pool.busy)} of ${count(pool.slots)}`, count(pool.leases), count(pool.finished),
  ]));
  workers.hidden = !live.n_workers;
  keep(workers.querySelector("tbody"), live.workers, (worker) => worker.id, cells(WORKER), (row, worker) => {
    fill(row, [
      worker.id, worker.pool, `${count(worker.busy)} of ${count(worker.slots)}`, null, count(worker.finished),
      over && !worker.connected ? "has left" : heard(worker),
    ]);
    row.classList.toggle("lost", !worker.connected && !over);
    runs(row.children[3], worker, show);
  });
  const hidden = live.n_workers - live.workers.length;
  more.hidden = !hidden;
  text(more, `${counted(hidden, "more worker")}: the first ${live.workers.length} are shown.`);
  unusual.hidden = !live.stragglers.length;
  keep(slow, live.stragglers, (block) => `${block.task} ${block.index}`,
    (block) => element("li", {}, blockLink(block.task, block.index, show), element("span")),
    (item, block) => text(item.lastChild, ` of ${block.task} runs for ${duration(block.seconds)} on ${block.worker} (usual: ${duration(block.median_s)})`));
}

function heard(worker) {
  const ago = worker.heard_s_ago < 5 ? "now" : `${duration(worker.heard_s_ago)} ago`;
  return worker.connected ? ago : `${ago}, not connected`;
}

// The blocks that a worker runs, each with the time since it began.
function runs(cell, worker, show) {
  if (!worker.running.length) {
    text(cell, Object.entries(worker.held).map(([task, n]) => `${counted(n, "block")} of ${task}`).join(", ") || "nothing");
    return;
  }
  if (!cell.firstElementChild) cell.replaceChildren();
  keep(cell, worker.running, (block) => `${block.task} ${block.index}`,
    (block) => element("div", {}, blockLink(block.task, block.index, show), element("span")),
    (item, block) => text(item.lastChild, ` of ${block.task}, ${duration(block.seconds)}`));
}
