// Pools of pods that the scheduler scales: how many there are, why not more, and a number of one's own.
import { count, element, keep, text } from "./format.js";

const DECIDES = { auto: "the scheduler", person: "a person", nobody: "nobody here" };

// A form is made once for each pool, so that a number being typed stays.
function form(scale) {
  return (pool) => {
    const number = element("input", { type: "number", min: 0, required: true, value: pool.replicas, ariaLabel: `Workers of pool ${pool.pool}` });
    const auto = element("button", { type: "button" }, "Let the scheduler decide");
    const made = element("form", { className: "pool" }, element("p"), element("ul"), number, element("button", { type: "submit" }, "Scale"), auto);
    number.addEventListener("input", () => { number.dataset.typed = "yes"; });
    made.addEventListener("submit", (event) => { event.preventDefault(); delete number.dataset.typed; scale({ pool: pool.pool, workers: Number(number.value) }); });
    auto.addEventListener("click", () => scale({ pool: pool.pool, workers: null }));
    return made;
  };
}

export function showKubernetes(live, scale) {
  keep(document.getElementById("kubernetes"), live.kubernetes, (pool) => pool.pool, form(scale), (made, pool) => {
    const waiting = pool.pending ? ` ${count(pool.pending)} cannot start yet.` : "";
    text(made.children[0], `Pool ${pool.pool} on Kubernetes: ${count(pool.replicas)} pods asked for, ${count(pool.ready)} ready.${waiting}` +
      ` ${count(pool.desired)} could have blocks to run now. Decided by ${DECIDES[pool.decides]}.`);
    keep(made.children[1], [...new Set([...pool.reasons, ...(pool.error ? [pool.error] : [])])], (reason) => reason,
      (reason) => element("li", {}, reason), () => {});
    if (!made.children[2].dataset.typed) made.children[2].value = pool.replicas;
    made.lastElementChild.hidden = pool.decides === "auto";
  });
}
