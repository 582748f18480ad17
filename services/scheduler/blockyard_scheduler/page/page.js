// The page: listens to the run and shows it. Nothing is polled: maps and failures are asked for when an event says that
// they changed.
import { Refused, getJson, listen, needsToken, post, setToken } from "./api.js";
import { showFailures } from "./failures.js";
import { BlockMap } from "./map.js";
import { showHeadline, showKubernetes, showTasks, showThroughput, showWorkers } from "./tables.js";

const message = document.getElementById("message");
const tokenForm = document.getElementById("token");
const map = new BlockMap({ retry, rerun });
let last = null;
let failuresOf = "";
let known = "";
let listening = null;

function say(text, bad = false) {
  message.hidden = !text;
  message.textContent = text;
  message.classList.toggle("bad", bad);
}

async function act(path, value) {
  try {
    const answer = await post(path, value);
    say(answer.pools ? "Kubernetes is asked for it." : answer.blocks === undefined ? `The run is ${answer.state}.`
      : `${answer.blocks} blocks wait to be run again; the run is ${answer.state}.`);
    return answer;
  } catch (error) {
    say(error.message, true);
    return null;
  }
}

function retry(what) {
  return act("retry", what);
}

function rerun(what) {
  const sure = window.confirm("Run this block again, and all that depends on it? What is done of that counts as not done until then.");
  return sure ? act("rerun", what) : null;
}

async function heard(live) {
  if (last === null || message.dataset.about === "connection") {
    say("");
    delete message.dataset.about;
  }
  last = live;
  showHeadline(live);
  showTasks(live, map.task, (task) => map.choose(task));
  showWorkers(live);
  showKubernetes(live, (what) => act("scale", what));
  showThroughput(live.throughput);
  const names = live.tasks.map((task) => `${task.id}:${task.total}`).join();
  try {
    if (names !== known) {
      known = names;
      map.setTasks(await getJson("tasks"));
    } else {
      map.live(live.seq);
    }
    const troubles = live.tasks.map((task) => `${task.failed}:${task.retries}`).join();
    if (troubles !== failuresOf) {
      failuresOf = troubles;
      await showFailures((task, id) => map.find(task, id), retry);
    }
  } catch (error) {
    say(error.message, true);
  }
}

async function follow() {
  let wait = 1000;
  for (;;) {
    if (document.hidden) await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
    listening = new AbortController();
    try {
      await listen("events", (live) => { wait = 1000; heard(live); }, listening.signal);
      lost("The scheduler has ended this connection");
    } catch (error) {
      if (listening.signal.aborted) continue;
      if (error instanceof Refused && error.status === 401) {
        await new Promise((given) => tokenForm.addEventListener("submit", given, { once: true }));
        continue;
      }
      lost(error instanceof Refused ? error.message : "The scheduler does not answer");
    }
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(wait * 2, 15000);
  }
}

function lost(why) {
  message.dataset.about = "connection";
  const over = last && !["running", "paused"].includes(last.state);
  say(over ? "The run is over and its scheduler has ended; this is how it stood." : `${why}; trying again.`, !over);
  if (!over) {
    const badge = document.getElementById("state");
    badge.textContent = "no connection";
    badge.dataset.state = "lost";
  }
}

needsToken.addEventListener("asked", () => {
  tokenForm.hidden = false;
  say("The scheduler asks for its token.", true);
});
tokenForm.addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(document.getElementById("token-value").value);
  tokenForm.hidden = true;
  say("");
});
document.addEventListener("visibilitychange", () => { if (document.hidden) listening?.abort(); });
document.getElementById("pause").addEventListener("click", () => act("pause"));
document.getElementById("resume").addEventListener("click", () => act("resume"));
document.getElementById("retry").addEventListener("click", () => act("retry"));
document.getElementById("cancel").addEventListener("click", () => {
  if (window.confirm("End this run? Blocks that are running are thrown away.")) act("cancel");
});
follow();
