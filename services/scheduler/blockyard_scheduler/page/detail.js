// The chosen cell or block: where it is, how it stands and why.
import { getJson } from "./api.js";
import { MEANING, chip, count, element } from "./format.js";

const place = () => document.getElementById("detail");

export function showHint() {
  place().replaceChildren(
    element("h3", {}, "Blocks"),
    element("p", { className: "faint" }, "Choose a cell of the map to see its blocks: what they read and write, why they wait, what went wrong."));
}

function failing(error) {
  place().replaceChildren(element("p", {}, error.message));
}

// A cell of many blocks: how many of each state, and the first of them.
export async function showCell(task, from, to, counts, showBlock) {
  try {
    const found = await getJson("blocks", { task, from: from.join(","), to: to.join(","), limit: 6, states: "failed,leased,orphaned,ready,pending,done,skipped,outside" });
    const parts = Object.entries(found).map(([state, blocks]) => {
      const links = blocks.map((block) => {
        const made = element("button", { type: "button", className: "link" }, block.index.join(", "));
        made.addEventListener("click", () => showBlock(task, block.block_id));
        return made;
      });
      return element("div", {},
        element("p", {}, chip(state), ` ${counts[state] === undefined ? "" : count(counts[state])} ${MEANING[state]}`),
        element("div", { className: "blocks" }, ...links, counts[state] > blocks.length ? "\u2026" : ""));
    });
    place().replaceChildren(
      element("h3", {}, `Blocks from ${from.join(", ")} to ${to.map((n) => n - 1).join(", ")}`),
      element("p", { className: "faint" }, `of task ${task}; the first of each state:`), ...parts);
  } catch (error) {
    failing(error);
  }
}

// "[0:20, -16:1024]" as offset and shape.
function roiOf(text) {
  const axes = text.slice(1, -1).split(", ").map((axis) => axis.split(":").map(Number));
  return { offset: axes.map(([begin]) => begin), shape: axes.map(([begin, end]) => end - begin) };
}

function failure(attempt) {
  return element("details", {}, element("summary", {}, element("b", {}, attempt.kind), ` in attempt ${attempt.attempt}: ${attempt.message}`),
    element("p", { className: "faint" }, (attempt.worker ? `on ${attempt.worker}` : "") + (attempt.log ? `; its log: ${attempt.log}` : "")),
    attempt.traceback ? element("pre", { tabIndex: 0 }, attempt.traceback) : null);
}

export async function showBlock(task, id, acts) {
  try {
    const block = await getJson("explain", { task, block: id });
    const worker = block.worker || block.failures.at(-1)?.worker;
    const facts = [
      ["state", element("span", {}, chip(block.state), ` ${block.state}`)], ["writes", block.write_roi], ["reads", block.read_roi],
      ["attempt", block.attempt], ["block id", block.block_id], ...(worker ? [["worker", worker]] : []),
    ];
    const failed = block.state === "failed";
    const over = failed || block.state === "done" || block.state === "skipped";
    const again = element("button", { type: "button", hidden: !over }, failed ? "Retry this block" : "Run it again");
    again.addEventListener("click", async () => {
      again.disabled = true;
      await (failed ? acts.retry : acts.rerun)({ task, roi: roiOf(block.write_roi) });
      showBlock(task, id, acts);
    });
    place().replaceChildren(
      element("h3", {}, `Block ${block.index.join(", ")} of ${task}`),
      element("p", {}, block.text.replace(/^block \(.*?\) of \S+ /, "It ") + "."),
      element("dl", {}, ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
      block.waits_for.length ? element("div", {}, "Waits for:", element("ul", {}, ...block.waits_for.map((text) => element("li", {}, text)))) : "",
      ...block.failures.toReversed().map(failure), again);
    return block;
  } catch (error) {
    failing(error);
    return null;
  }
}
