// What the map says in words and beside it: the legend, what is seen and how much of it, the ramp of values, and in a
// line what is in a cell.
import { MEANING, STATES, chip, count, counted, element, seconds, share, text } from "./format.js";

const at = (id) => document.getElementById(id);

export function describe(task, shape, cuts, colour, tile) {
  const total = Object.values(tile.totals).reduce((a, b) => a + b, 0);
  at("legend").replaceChildren(...STATES.map((state) => element("li", {
    hidden: !tile.totals[state] && ["skipped", "outside", "orphaned"].includes(state), title: MEANING[state],
  }, colour === "state" ? chip(state) : "", `${state} `, element("b", {}, count(tile.totals[state] ?? 0)))));
  const parts = STATES.filter((state) => tile.totals[state]).map((state) => `${state} ${share(tile.totals[state], total)}`);
  const how = [...cuts].map(([axis, index]) =>
    index === null ? `seen through all ${count(shape[axis])} blocks of axis ${axis}` : `slice ${index} of axis ${axis}`);
  const axes = tile.header.shown.map((axis) => `axis ${axis} (${counted(shape[axis], "block")})`);
  const where = axes.length > 1 ? `${axes[0]} runs down, ${axes[1]} across` : `${axes[0]} runs in rows`;
  const cell = total && Math.max(...tile.header.step) > 1 ? `; a cell is ${tile.header.step.join(" \u00d7 ")} of them` : "";
  text(at("map-text"), `Task ${[task, ...how].join(", ")}: ${where}${cell}. ` +
    (total ? `Of ${counted(total, "block")}: ${parts.join(", ")}.` : "It has no blocks: there is nothing to do for it."));
  at("map").setAttribute("aria-label", `Map of task ${task}`);
  at("ramp").hidden = !tile.scale;
  if (tile.scale) describeRamp(colour, tile.scale);
}

function describeRamp(colour, { least, most, together, logarithmic }) {
  const [key, words] = at("ramp").children;
  key.hidden = least === null;
  const [low, high] = [inUnits(colour, least), inUnits(colour, most)];
  const range = `mean ${colour} of a cell, ${low === high ? `${low} everywhere` : `from ${low} to ${high}`}${logarithmic ? " (logarithmic)" : ""}`;
  const regions = together.length ? `; blocks that are done are recorded by regions of ${together.join(" \u00d7 ")}` : "";
  text(words, least === null ? `Nothing is recorded yet of the ${colour} of these blocks.` : range + regions);
}

function inUnits(colour, value) {
  return colour === "duration" ? seconds(value) : (value ?? 0).toFixed(2).replace(/\.?0+$/, "");
}

// "Blocks 0-7, 3, 4: 6 done, 2 leased; duration on average 46 ms"
export function inALine(colour, tile, cell, [from, to]) {
  const one = from.every((index, axis) => to[axis] === index + 1);
  const ranges = from.map((index, axis) => (to[axis] === index + 1 ? index : `${index}\u2013${to[axis] - 1}`));
  const states = Object.entries(tile.counts(cell)).map(([state, n]) => (one ? state : `${count(n)} ${state}`));
  const value = tile.values?.[cell] ?? NaN;
  const mean = isNaN(value) ? "" : `; ${colour} ${one ? "" : "on average "}${inUnits(colour, value)}`;
  return `${one ? "Block" : "Blocks"} ${ranges.join(", ")}: ${states.join(", ")}${mean}`;
}
