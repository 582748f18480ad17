// What failed, grouped by what is wrong.
import { getJson } from "./api.js";
import { count, element } from "./format.js";

let open = new Set();

function group(found, show, retry) {
  const key = `${found.task} ${found.kind} ${found.message}`;
  const example = found.example;
  const blocks = found.blocks.map((id) => {
    const made = element("button", { type: "button", className: "link" }, `block ${id}`);
    made.addEventListener("click", () => show(found.task, id));
    return made;
  });
  const again = element("button", { type: "button", hidden: !found.failed }, `Retry all failed of ${found.task}`);
  again.addEventListener("click", () => retry({ task: found.task }));
  const failed = found.failed ? `, ${count(found.failed)} ${found.failed === 1 ? "block" : "blocks"} failed for good` : ", all tried again";
  const made = element("details", { className: "failure", open: open.has(key) },
    element("summary", {}, element("b", {}, found.kind), ` in ${found.task}: ${found.message} `,
      element("span", { className: "faint" }, `(${count(found.attempts)} ${found.attempts === 1 ? "attempt" : "attempts"}${failed})`)),
    element("p", { className: "faint" }, `For example block ${example.index.join(", ")}, attempt ${example.attempt}` +
      (example.worker ? `, on ${example.worker}` : "") + (example.log ? `; its log: ${example.log}` : "")),
    example.traceback ? element("pre", { tabIndex: 0 }, example.traceback) : null,
    element("div", { className: "blocks" }, ...blocks),
    element("p", {}, again));
  made.addEventListener("toggle", () => (made.open ? open.add(key) : open.delete(key)));
  return made;
}

export async function showFailures(show, retry) {
  const found = await getJson("failures");
  const groups = found.groups.map((each) => group(each, show, retry));
  document.getElementById("failures").replaceChildren(
    ...(groups.length ? groups : [element("p", { className: "faint" }, "No attempt at any block has failed.")]));
}
