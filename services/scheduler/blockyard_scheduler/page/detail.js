// The chosen cell or block: where it is, how it stands and why.
import { Age } from "./age.js";
import { Refused, getJson, understood } from "./api.js";
import { MEANING, blockLink, chip, count, element, sentence } from "./format.js";

const place = document.getElementById("detail");
const age = new Age("This block");
let latest = 0; // what was chosen last: an answer about something before it comes too late

export function showHint() {
  latest += 1;
  place.replaceChildren(
    element("h3", {}, "Blocks"),
    element("p", { className: "faint" }, "Choose a cell of the map to see its blocks: what they read and write, why they wait, what went wrong."));
}

function failing(error) {
  if (!(error instanceof Refused)) throw error;
  if (error.status === 400) return place.replaceChildren(element("p", {}, sentence(error))); // there is no such block
  if (!place.querySelector("dl")) age.forget(); // else what is shown stays until it is known again
  if (!place.querySelector("dl")) place.replaceChildren();
  place.prepend(age.place);
  age.unknown(error);
}

// A cell of many blocks: how many of each state, and the first of them.
export async function showCell(task, from, to, counts, show) {
  const mine = (latest += 1);
  try {
    const found = await getJson("blocks", { task, from: from.join(","), to: to.join(","), limit: 6, states: "failed,leased,orphaned,ready,pending,done,skipped,outside" });
    if (mine !== latest) return;
    const parts = await understood(() => Object.entries(found).map(([state, blocks]) => element("div", {},
      element("p", {}, chip(state), ` ${counts[state] === undefined ? "" : count(counts[state])} ${MEANING[state]}`),
      element("div", { className: "blocks" }, ...blocks.map((block) => blockLink(task, block.index, show)), counts[state] > blocks.length ? "\u2026" : ""))));
    place.replaceChildren(
      element("h3", {}, `Blocks from ${from.join(", ")} to ${to.map((n) => n - 1).join(", ")}`),
      element("p", { className: "faint" }, `of task ${task}; the first of each state:`), ...parts);
  } catch (error) {
    if (mine === latest) failing(error);
  }
}

// "[0:20, -16:1024]" as offset and shape.
function roiOf(text) {
  const axes = text.slice(1, text.indexOf("]")).split(", ").map((axis) => axis.split(":").map(Number));
  return { offset: axes.map(([begin]) => begin), shape: axes.map(([begin, end]) => end - begin) };
}

function failure(attempt) {
  return element("details", {}, element("summary", {}, element("b", {}, attempt.kind), ` in attempt ${attempt.attempt}: ${attempt.message}`),
    element("p", { className: "faint" }, (attempt.worker ? `on ${attempt.worker}` : "") + (attempt.log ? `; its log: ${attempt.log}` : "")),
    attempt.traceback ? element("pre", { tabIndex: 0 }, attempt.traceback) : null);
}

const ATTEMPT = { leased: "attempt", done: "done at attempt", failed: "failed at attempt" };

function facts(block) {
  const worker = block.worker || block.failures.at(-1)?.worker;
  const attempt = ATTEMPT[block.state] ?? (block.attempt > 1 ? "next attempt" : "");
  return [
    ["state", element("span", {}, chip(block.state), ` ${MEANING[block.state]}`)], ["writes", block.write_roi], ["reads", block.read_roi],
    ...(attempt && block.attempt ? [[attempt, block.attempt]] : []), ...(worker ? [["worker", worker]] : []), ["block id", block.block_id],
  ];
}

// A button that runs the block again, where it is over.
function again(block, acts) {
  const failed = block.state === "failed";
  const made = element("button", { type: "button", hidden: !["failed", "done", "skipped"].includes(block.state) },
    failed ? "Retry this block" : "Run it again");
  made.addEventListener("click", async () => {
    made.disabled = true;
    const asked = await (failed ? acts.retry : acts.rerun)({ task: block.task, roi: roiOf(block.write_roi) });
    if (asked === null) made.disabled = false;
    else showBlock(block.task, block.index, acts);
  });
  return made;
}

// "block (0, 0, 1) of smooth, ready", as a link to it.
function named(text, acts) {
  const [, index, task, rest] = /^block \(([-\d, ]+?),?\) of (.+?), (.*)$/.exec(text) ?? [];
  return index ? element("li", {}, blockLink(task, index.split(", ").map(Number), acts.show), ` of ${task}, ${rest}`) : element("li", {}, text);
}

const about = (block) => block.text.replace(/^block \(.*?\) of \S+ /, "It ") + ".";
const standing = (block) => JSON.stringify([block.task, block.block_id, block.state, block.attempt, block.waits_for, block.failures.length]);
let shown = "";

// Gives whether there is such a block. What has not changed stays, with what is open in it.
export async function showBlock(task, index, acts) {
  const mine = (latest += 1);
  try {
    const block = await getJson("explain", { task, index: index.join(",") });
    const stands = await understood(() => standing(block));
    if (mine !== latest) return true;
    if (shown === stands && place.querySelector("dl")) {
      age.place.remove();
      place.querySelector("p").textContent = about(block);
      age.known();
      return true;
    }
    place.replaceChildren(
      element("h3", {}, `Block ${block.index.join(", ")} of ${task}`),
      element("p", {}, about(block)),
      element("dl", {}, ...facts(block).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
      block.waits_for.length ? element("div", {}, "Waits for:", element("ul", {}, ...block.waits_for.map((text) => named(text, acts)))) : "",
      ...block.failures.toReversed().map(failure), again(block, acts));
    shown = stands;
    age.known();
    return true;
  } catch (error) {
    if (mine === latest) failing(error);
    return false;
  }
}
