// The page: listens to the run and shows it. Nothing is polled: maps and failures are asked for when an event says that
// they changed.
import { Refused, getJson, listen, needsToken, post, setToken } from "./api.js";
import { Age } from "./age.js";
import { showFailures } from "./failures.js";
import { count, element, sentence } from "./format.js";
import { showKubernetes } from "./kubernetes.js";
import { BlockMap } from "./map.js";
import { isOver, showHeadline, showNotices, showTasks } from "./overview.js";
import { showThroughput } from "./throughput.js";
import { showWorkers } from "./workers.js";

const NEWS_MS = 15_000; // how long it is said what a button did,
const BAD_NEWS_MS = 60_000; // or why it did not
const SETTLED_MS = 3000;
const SILENT_MS = 10_000; // events come every second
const SILENT = new Error("silent");
const FAILURES_PAUSE = 5; // times what they took the last time, before they are asked for again

const message = document.getElementById("message");
const tokenForm = document.getElementById("token");
const map = new BlockMap({ retry, rerun });
let last = null;
let failures = { of: "", nextMs: 0 };
let known = "";
let listening = null;
let forgetting = 0;
let said = {}; // what the message is about
let heardMs = 0;
const page = new Age("What is shown", element("span"));

// What a button did is said while it is true: until the run is in another state than `state`, and for a while at most.
function say(words, { bad = false, connection = false, state = "" } = {}) {
  message.hidden = !words;
  message.replaceChildren(words);
  message.classList.toggle("bad", bad);
  said = { connection, state, seen: false, ms: performance.now() };
  clearTimeout(forgetting);
  if (words && !connection) forgetting = setTimeout(() => say(""), bad ? BAD_NEWS_MS : NEWS_MS);
}

// The state of the run as an event tells it; one that was on its way may still tell of the state before.
function outdate(state) {
  if (said.state === state) said.seen = true;
  else if (said.state && (said.seen || performance.now() - said.ms > SETTLED_MS)) say("");
}

async function act(path, value) {
  try {
    const answer = await post(path, value);
    const again = answer.blocks === 1 ? "1 block waits" : `${count(answer.blocks ?? 0)} blocks wait`;
    say(answer.pools ? answer.error || "Kubernetes is asked for it." : answer.blocks === undefined ? `The run is ${answer.state}.`
      : `${again} to be run again; the run is ${answer.state}.`, { state: answer.state ?? "" });
    return answer;
  } catch (error) {
    if (error.status !== 401) say(sentence(error), { bad: true, connection: error.status === 0 }); // else the form says it
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
  if (last === null || said.connection) say("");
  outdate(live.state);
  document.body.classList.remove("stale", "empty");
  last = live;
  page.known();
  heardMs = performance.now();
  showHeadline(live);
  showNotices(live);
  showTasks(live, map.task, (task) => map.chooseTask(task));
  showWorkers(live, isOver(live), map.acts.show);
  showKubernetes(live, (what) => act("scale", what));
  showThroughput(live.throughput, isOver(live));
  const names = live.tasks.map((task) => `${task.id}:${task.total}`).join();
  try {
    if (names !== known) {
      const before = known;
      known = names;
      try {
        map.setTasks(await getJson("tasks"), usualTask(live.tasks));
      } catch (error) {
        known = before; // asked for again with the next event
        throw error;
      }
    } else {
      map.live(live.seq, isOver(live));
    }
    await followFailures(live);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    // Failures and map say of themselves that they are not known; where nobody answers, or leads, the connection does.
    if (map.tasks.size === 0 && error.status > 0 && error.status !== 503) say(sentence(error), { bad: true, connection: true });
  }
}

// What is shown before anything is chosen: the task that works.
function usualTask(tasks) {
  return (tasks.find((task) => task.leased) ?? tasks.find((task) => !task.over) ?? tasks.at(-1))?.id ?? null;
}

async function followFailures(live) {
  const of = live.tasks.map((task) => `${task.failed}:${task.retries}`).join();
  const now = performance.now();
  if (of === failures.of || (now < failures.nextMs && !isOver(live))) return;
  failures = { of, nextMs: Infinity };
  try {
    await showFailures({ retry, show: map.acts.show, indexOf: (task, id) => indexOf(map.tasks.get(task)?.shape, id) });
  } catch (error) {
    failures.of = ""; // asked for again with a later event
    throw error;
  } finally {
    failures.nextMs = performance.now() + FAILURES_PAUSE * (performance.now() - now);
  }
}

function indexOf(shape, id) {
  return shape?.toReversed().map((size) => { const at = id % size; id = Math.floor(id / size); return at; }).toReversed();
}

async function follow() {
  let wait = 1000;
  for (;;) {
    if (document.hidden) await new Promise((seen) => document.addEventListener("visibilitychange", seen, { once: true }));
    listening = new AbortController();
    try {
      await listen("events", (live) => { wait = 1000; heard(live); }, listening.signal);
      lost("the scheduler has ended this connection; trying again");
    } catch (error) {
      if (listening.signal.reason === SILENT) lost("the scheduler has said nothing for a while; trying again");
      if (listening.signal.aborted) continue;
      if (error.status === 401) {
        await new Promise((given) => tokenForm.addEventListener("submit", given, { once: true }));
        continue;
      }
      if (error.status > 0) refused(error);
      else lost(error.status === 0 ? "the scheduler does not answer; trying again" : `${error.message}; trying again`);
    }
    await new Promise((done) => setTimeout(done, wait));
    wait = Math.min(wait * 2, 15000);
  }
}

function mark(state, words) {
  const badge = document.getElementById("state");
  badge.textContent = words;
  badge.dataset.state = state;
}

// What is shown stays, and says how old it is.
function old(error) {
  if (last === null) return say(sentence(error), { bad: true, connection: true });
  say(page.place, { bad: true, connection: true });
  page.unknown(error);
  document.body.classList.add("stale");
}

function lost(why) {
  if (last && isOver(last)) {
    document.body.classList.add("ended");
    return say("The run is over and its scheduler has ended; this is how it stood. 'blockyard report' keeps it in a file.", { connection: true });
  }
  old(new Error(why));
  mark("lost", "no connection");
}

// The scheduler answers, but does not lead: it stands by, or comes to lead in a moment.
function refused(error) {
  const words = element("span", {}, `${sentence(error)} `);
  if (error.page) words.append("Its page: ", element("a", { href: error.page }, error.page), ". ");
  words.append("This one shows the run as soon as this scheduler leads.");
  if (last !== null) words.append(` What is shown is as of ${new Date(page.knownMs).toLocaleTimeString()}.`);
  say(words, { connection: true });
  document.body.classList.toggle("stale", last !== null);
  mark("standby", "stands by");
}

needsToken.addEventListener("asked", () => {
  tokenForm.hidden = false;
  say(tokenForm.dataset.tried ? "That is not the scheduler's token." : "The scheduler asks for its token.", { bad: true });
  document.body.classList.toggle("stale", last !== null);
  if (last === null) document.getElementById("token-value").focus();
});
tokenForm.addEventListener("submit", (event) => {
  event.preventDefault();
  setToken(document.getElementById("token-value").value);
  tokenForm.dataset.tried = "yes";
  tokenForm.hidden = true;
  say("");
});
document.addEventListener("visibilitychange", () => { if (document.hidden) listening?.abort(); });
setInterval(() => {
  if (last !== null && !document.hidden && performance.now() - heardMs > SILENT_MS) { heardMs = performance.now(); listening?.abort(SILENT); }
}, 1000);
document.getElementById("pause").addEventListener("click", () => act("pause"));
document.getElementById("resume").addEventListener("click", () => act("resume"));
document.getElementById("retry").addEventListener("click", () => retry({}));
document.getElementById("cancel").addEventListener("click", () => {
  if (window.confirm("End this run? Blocks that are running are thrown away; what is done stays done.")) act("cancel");
});
follow();
