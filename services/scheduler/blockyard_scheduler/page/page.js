"use strict";
// The token, where one is needed, stays in this tab.
const COLUMNS = ["id", "total", "pending", "ready", "leased", "done", "skipped", "failed", "orphaned"];

async function ask(path) {
  const token = sessionStorage.getItem("token");
  const answer = await fetch(path, token ? { headers: { Authorization: `Bearer ${token}` } } : {});
  if (answer.status === 401) {
    const given = window.prompt("Token of the scheduler");
    if (given) sessionStorage.setItem("token", given);
    throw new Error("the scheduler asks for its token");
  }
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error);
  return body;
}

function row(cells, kind) {
  const tr = document.createElement("tr");
  for (const text of cells) tr.appendChild(document.createElement(kind)).textContent = text;
  return tr;
}

async function show() {
  const line = document.getElementById("line");
  try {
    const status = await ask("api/v1/status");
    document.getElementById("run").textContent = status.run;
    const eta = status.eta_s === null ? "unknown" : `${Math.round(status.eta_s)} s`;
    line.textContent = `${status.state}, ${status.workers.length} workers, ETA ${eta}`;
    const rows = status.tasks.map((task) => row(COLUMNS.map((name) => task[name]), "td"));
    document.getElementById("tasks").replaceChildren(row(COLUMNS, "th"), ...rows);
  } catch (error) {
    line.textContent = error.message;
  }
  setTimeout(show, 2000);
}
show();
