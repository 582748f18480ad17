// What failed, grouped by what is wrong.
import { Age } from "./age.js";
import { Refused, getJson, understood } from "./api.js";
import { blockLink, count, counted, element, keep, text } from "./format.js";

function group(acts) {
  return (found) => {
    const again = element("button", { type: "button" });
    again.addEventListener("click", async () => {
      again.disabled = true;
      await acts.retry({ task: found.task, error: { kind: found.kind, message: found.message } });
      again.disabled = false;
    });
    return element("details", { className: "failure" },
      element("summary", {}, element("b", {}, found.kind), element("span"), element("span", { className: "faint" })),
      element("p", { className: "faint" }), element("pre", { tabIndex: 0 }), element("div", { className: "blocks" }), element("p", {}, again));
  };
}

function update(made, found, acts) {
  const [summary, example, traceback, blocks, last] = made.children;
  const first = found.example;
  text(summary.children[1], ` in ${found.task}: ${found.message} `);
  text(summary.children[2], `(${counted(found.attempts, "attempt")}, ` +
    (found.failed ? `${counted(found.failed, "block")} failed for good)` : "all tried again)"));
  text(example, `For example block ${first.index.join(", ")}, attempt ${first.attempt}` +
    (first.worker ? `, on ${first.worker}` : "") + (first.log ? `; its log: ${first.log}` : ""));
  text(traceback, first.traceback);
  traceback.hidden = !first.traceback;
  const indices = found.blocks.map((id) => acts.indexOf(found.task, id)).filter(Boolean);
  keep(blocks, [...indices, null], (index) => String(index),
    (index) => (index ? blockLink(found.task, index, acts.show) : element("span", { className: "faint" })),
    (child, index) => { if (!index) text(child, indices.length === 20 ? "and others" : ""); });
  last.hidden = !found.failed;
  text(last.firstChild, `Retry ${found.failed === 1 ? "this block" : `these ${count(found.failed)} blocks`}`);
}

const age = new Age("What failed", document.getElementById("failures-old"));

// `acts` retries, shows a block on the map, and gives the index of a block's id.
export async function showFailures(acts) {
  try {
    const found = await getJson("failures", { whole: 0 });
    await understood(() => showGroups(found, acts));
    age.known();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    age.unknown(error);
    throw error;
  }
}

function showGroups(found, acts) {
  keep(document.getElementById("failures"), found.groups, (each) => `${each.task} ${each.kind} ${each.message}`, group(acts),
    (made, each) => update(made, each, acts));
  text(document.getElementById("no-failures"), found.groups.length ? "" : "No attempt at any block has failed.");
  const left = found.n_groups - found.groups.length;
  text(document.getElementById("more-failures"), left > 0 ? `and ${counted(left, "more kind")}: 'blockyard failures' lists them` : "");
}
