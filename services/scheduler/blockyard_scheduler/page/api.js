// Asking the scheduler. All addresses are relative, so that the page works behind a path prefix. The token, where one is
// needed, stays in this tab; a link may bring it after '#token=', which browsers never send.
import { decoded } from "./address.js";

const KEY = "blockyard-token:" + location.pathname;
const ANSWER_MS = 60_000; // for an answer, the streams of events apart

// Gives whether a token stood in the address.
function takeToken() {
  const brought = /[#&]token=([^&]+)/.exec(location.hash);
  if (!brought) return false;
  sessionStorage.setItem(KEY, decoded(brought[1]));
  const rest = location.hash.slice(1).split("&").filter((part) => !part.startsWith("token="));
  history.replaceState(null, "", location.pathname + location.search + (rest.length ? `#${rest.join("&")}` : ""));
  return true;
}

takeToken();
// A link with a token that is opened in a tab which shows the page already: all of it is asked for anew.
addEventListener("hashchange", () => { if (takeToken()) location.reload(); });

export const needsToken = new EventTarget();

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error ?? `the scheduler answered ${status}`);
    this.status = status;
    this.page = answer.page ?? ""; // of the scheduler that leads, where this one does not
  }
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

function headers(more) {
  const token = sessionStorage.getItem(KEY);
  return token ? { ...more, Authorization: `Bearer ${token}` } : more;
}

async function answered(answer) {
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({})); // a proxy's own page is no JSON
  if (answer.status === 401) needsToken.dispatchEvent(new Event("asked"));
  throw new Refused(answer.status, said);
}

// Status 0: nobody answers.
async function ask(url, options) {
  let answer;
  try {
    answer = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS), ...options });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refused(0, { error: "the scheduler does not answer" });
  }
  return answered(answer);
}

// What `read` makes of an answer; an answer that broke off, or is none of ours, is an error like any other.
export async function understood(read) {
  try {
    return await read();
  } catch {
    throw new Refused(-1, { error: "the scheduler's answer broke off, or can't be read" });
  }
}

export function get(path, parameters = {}, options = {}) {
  const query = new URLSearchParams(parameters).toString();
  return ask(`api/v1/${path}${query ? "?" + query : ""}`, { headers: headers({}), ...options });
}

export async function getJson(path, parameters) {
  const answer = await get(path, parameters);
  return understood(() => answer.json());
}

export async function post(path, value = {}) {
  const answer = await ask(`api/v1/${path}`, {
    method: "POST",
    headers: headers({ "Content-Type": "application/json", "X-Blockyard": "1" }),
    body: JSON.stringify(value),
  });
  return understood(() => answer.json());
}

// Server-sent events by fetch, since an EventSource can send no token. Ends, or throws, when the connection does.
export async function listen(path, heard, signal) {
  const answer = await get(path, {}, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const events = text.split("\n\n");
    text = events.pop();
    for (const event of events) {
      const data = event.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
      if (data.length) heard(await understood(() => JSON.parse(data.join("\n"))));
    }
  }
}
