// The view in the page's address, after '#': a link, a reload and the browser's back and forward show the same again. A
// fragment is sent to nobody, and is the same behind any path prefix.

const indices = (text) => (text ? text.split(",").map((part) => (/^\d+$/.test(part) ? Number(part) : null)) : []);

// {task, axis, slices, colour, block}: the task's id, the axis looked along, for each axis that is not shown the index
// of the slice or null (all of it is seen through), what colours say, and the index of the chosen block, or null.
export function readView() {
  const given = Object.fromEntries(location.hash.slice(1).split("&").map((part) => part.split("=", 2).map(decoded)));
  return {
    task: given.task ?? null, axis: Number(given.axis) || 0, slices: indices(given.slice), colour: given.colour ?? "state",
    block: given.block ? indices(given.block) : null,
  };
}

// With `push` the view before stays behind the back button.
export function writeView({ task, axis, slices, colour, block }, push) {
  const parts = [`task=${encodeURIComponent(task)}`];
  if (axis) parts.push(`axis=${axis}`);
  if (slices.some((at) => at !== null)) parts.push(`slice=${slices.map((at) => at ?? "all").join(",")}`);
  if (colour !== "state") parts.push(`colour=${colour}`);
  if (block) parts.push(`block=${block.join(",")}`);
  const hash = `#${parts.join("&")}`;
  if (hash !== location.hash) history[push ? "pushState" : "replaceState"](null, "", hash);
}

export function onMove(show) {
  addEventListener("popstate", () => show(readView()));
}

export function decoded(text) {
  try {
    return decodeURIComponent(text ?? "");
  } catch {
    return text; // typed by hand
  }
}
