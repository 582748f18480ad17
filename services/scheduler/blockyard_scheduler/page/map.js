// The map: the grid of a task, cut or looked through along the axes that are not shown.
import { get } from "./api.js";
import { MEANING, SIGNS, STATES, chip, count, element, seconds, share } from "./format.js";
import { showBlock, showCell, showHint } from "./detail.js";
import { Tile, colours, headerOf, rampColours } from "./tile.js";

const MOST_CELLS = 512;
const LARGEST_FIT = 40; // pixels a cell when all is shown
const LARGEST = 160;
const SIGNS_FROM = 11;
const GAPS_FROM = 6;
const THIN = 6; // a thin grid is stretched at most so much on its short axis

export class BlockMap {
  constructor(acts) {
    this.canvas = document.getElementById("map");
    this.acts = acts; // retry and rerun
    this.tasks = new Map();
    this.task = null;
    this.value = "state"; // what a cell's colour says
    this.scale = null; // least and most of the value, in the whole picture
    this.cuts = new Map(); // axis not shown -> index, or null: looked through
    this.tile = this.detail = null;
    this.cursor = null;
    this.loading = false;
    this.seq = -1;
    this.palette = colours();
    this.view = { x: 0, y: 0, sx: 1, sy: 1 };
    this.fitted = true;
    this.controls();
    this.pointers();
    new ResizeObserver(() => this.resized()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.palette = colours();
      for (const tile of [this.tile, this.detail]) tile?.paint(this.palette);
      if (this.value === "state") this.draw();
      else this.changed();
    });
    showHint();
  }

  // --- what is shown ------------------------------------------------------------------------------------------------

  setTasks(tasks) {
    this.tasks = new Map(tasks.map((task) => [task.id, task]));
    const select = document.getElementById("map-task");
    select.replaceChildren(...tasks.map((task) => element("option", { value: task.id }, task.id)));
    if (!this.tasks.has(this.task) && tasks.length) this.choose(tasks[0].id);
  }

  choose(task) {
    this.task = task;
    document.getElementById("map-task").value = task;
    const n = this.grid.shape.length;
    const axes = document.getElementById("map-axis");
    axes.replaceChildren(...this.grid.shape.map((size, axis) => element("option", { value: axis }, `axis ${axis}`)));
    document.getElementById("axis-label").hidden = n < 3;
    this.lookAlong(0);
  }

  get grid() { return this.tasks.get(this.task); }

  lookAlong(axis) {
    const n = this.grid.shape.length;
    document.getElementById("map-axis").value = axis;
    const others = [...Array(n).keys()].filter((other) => other !== axis);
    const hidden = n < 3 ? [] : [axis, ...others.slice(0, n - 3)];
    this.cuts = new Map(hidden.map((each) => [each, null]));
    document.getElementById("cuts").replaceChildren(...hidden.map((each) => this.cutControl(each)));
    this.fitted = true;
    this.cursor = null;
    showHint();
    this.changed();
  }

  cutControl(axis) {
    const most = this.grid.shape[axis] - 1;
    const on = element("input", { type: "checkbox", id: `cut-${axis}` });
    const range = element("input", { type: "range", min: 0, max: most, value: most >> 1, disabled: true, ariaLabel: `Slice of axis ${axis}` });
    const number = element("input", { type: "number", min: 0, max: most, value: most >> 1, disabled: true, ariaLabel: `Slice of axis ${axis}` });
    const set = (value) => {
      const at = Math.min(Math.max(Math.round(Number(value)) || 0, 0), most);
      range.value = number.value = at;
      range.disabled = number.disabled = !on.checked;
      this.cuts.set(axis, on.checked ? at : null);
      this.changed();
    };
    on.addEventListener("change", () => set(range.value));
    range.addEventListener("input", () => set(range.value));
    number.addEventListener("change", () => set(number.value));
    const control = element("fieldset", { className: "cut" }, element("label", { htmlFor: on.id }, on, ` slice of axis ${axis}`), range, number);
    control.show = (index) => { if (on.checked && Number(range.value) !== index[axis]) set(index[axis]); };
    control.slice = (by) => { on.checked = true; set(Number(range.value) + by); };
    return control;
  }

  changed() {
    this.detail = null;
    this.loaded = this.load();
  }

  // --- asking -------------------------------------------------------------------------------------------------------

  // Called with each event: nothing is asked for where nothing has changed.
  live(seq) {
    if (seq !== this.seq && !this.loading && this.task !== null) this.load();
  }

  async load() {
    const ticket = (this.ticket = (this.ticket ?? 0) + 1);
    this.loading = true;
    try {
      const tile = await this.fetchTile();
      if (ticket !== this.ticket) return;
      this.tile = tile;
      this.seq = tile.header.seq;
      if (this.detail) this.detail = await this.fetchTile(this.window(this.detail)).catch(() => null);
      if (ticket !== this.ticket) return;
      if (this.fitted) this.fit();
      this.draw();
      this.describe();
    } catch (error) {
      document.getElementById("map-text").textContent = error.message;
    } finally {
      if (ticket === this.ticket) this.loading = false;
    }
  }

  async fetchTile(window = []) {
    const cuts = [...this.cuts].flatMap(([axis, at]) => [["axis", axis], ["slice", at ?? "projection"]]);
    const asked = [["task", this.task], ["max", MOST_CELLS], ...cuts, ...window];
    const tile = new Tile(await (await get("map", asked)).arrayBuffer(), this.palette);
    if (this.value !== "state") {
      const means = await (await get("map", [...asked, ["value", this.value]])).arrayBuffer();
      if (!window.length) this.scale = headerOf(means); // a window keeps the scale of the whole
      tile.colour(means, rampColours(), this.scale.least ?? 0, this.scale.most ?? 0);
    }
    return tile;
  }

  window(tile) {
    return [["from", [tile.top, tile.left]], ["to", [Math.min(tile.top + tile.height, this.tile.bounds[0]), Math.min(tile.left + tile.width, this.tile.bounds[1])]]];
  }

  // Where cells of many blocks are large on the screen, those in sight are asked for in more detail.
  refine() {
    clearTimeout(this.refining);
    const { tile, view } = this;
    if (!tile || tile.folded || Math.max(tile.stepX, tile.stepY) === 1) return;
    if (Math.max(tile.stepX * view.sx, tile.stepY * view.sy) < 3) {
      this.detail = null;
      return;
    }
    this.refining = setTimeout(async () => {
      const limit = ([rows, columns]) => [Math.min(Math.max(rows, 0), tile.bounds[0]), Math.min(Math.max(columns, 0), tile.bounds[1])];
      const from = limit([Math.floor(view.y), Math.floor(view.x)]);
      const to = limit([Math.ceil(view.y + this.canvas.clientHeight / view.sy), Math.ceil(view.x + this.canvas.clientWidth / view.sx)]);
      if (from[0] >= to[0] || from[1] >= to[1]) return;
      const ticket = this.ticket;
      const detail = await this.fetchTile([["from", from], ["to", to]]).catch(() => null);
      if (ticket !== this.ticket) return;
      this.detail = detail;
      this.draw();
    }, 150);
  }

  // --- looking ------------------------------------------------------------------------------------------------------

  fit() {
    const { tile, canvas } = this;
    if (!tile) return;
    const [width, height] = [Math.max(tile.bounds[1], 1), Math.max(tile.bounds[0], 1)];
    const [fx, fy] = [(canvas.clientWidth - 12) / width, (canvas.clientHeight - 12) / height];
    const even = Math.min(fx, fy, LARGEST_FIT);
    const [sx, sy] = [Math.min(fx, LARGEST_FIT, even * THIN), Math.min(fy, LARGEST_FIT, even * THIN)];
    this.view = { sx, sy, x: (width - canvas.clientWidth / sx) / 2, y: (height - canvas.clientHeight / sy) / 2 };
    this.fitted = true;
    this.detail = null;
  }

  zoom(factor, at = [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2]) {
    const { view } = this;
    const allowed = Math.min(factor, LARGEST / Math.max(view.sx, view.sy));
    view.x += at[0] / view.sx - at[0] / (view.sx * allowed);
    view.y += at[1] / view.sy - at[1] / (view.sy * allowed);
    view.sx *= allowed;
    view.sy *= allowed;
    this.moved();
  }

  moved() {
    this.fitted = false;
    this.draw();
    this.refine();
  }

  resized() {
    if (this.fitted) this.fit();
    this.draw();
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.drawNow());
  }

  drawNow() {
    const { canvas, view, tile, detail } = this;
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = canvas.clientHeight * devicePixelRatio;
    if (!tile) return;
    const pen = canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);
    for (const each of [tile, detail]) {
      if (!each) continue;
      pen.save();
      pen.beginPath(); // the last cells may reach over the grid's end
      pen.rect(-view.x * view.sx, -view.y * view.sy, tile.bounds[1] * view.sx, tile.bounds[0] * view.sy);
      pen.clip();
      pen.imageSmoothingEnabled = each.stepX * view.sx < 1;
      pen.drawImage(each.image, 0, 0, each.columns, each.rows, (each.left - view.x) * view.sx, (each.top - view.y) * view.sy,
        each.width * view.sx, each.height * view.sy);
      pen.restore();
    }
    this.drawCells(pen, detail ?? tile);
    this.drawCursor(pen);
  }

  drawCells(pen, tile) {
    const { view, canvas } = this;
    const [width, height] = [tile.stepX * view.sx, tile.stepY * view.sy];
    if (Math.min(width, height) < GAPS_FROM) return;
    const style = getComputedStyle(document.documentElement);
    const [x0, y0] = [Math.max(tile.left, view.x), Math.max(tile.top, view.y)];
    const x1 = Math.min(tile.left + tile.width, view.x + canvas.clientWidth / view.sx);
    const y1 = Math.min(tile.top + tile.height, view.y + canvas.clientHeight / view.sy);
    pen.strokeStyle = style.getPropertyValue("--card");
    pen.lineWidth = 1;
    pen.beginPath();
    const snap = (at, step, origin) => origin + Math.ceil((at - origin) / step) * step;
    for (let x = snap(x0, tile.stepX, tile.left); x <= x1; x += tile.stepX) {
      pen.moveTo((x - view.x) * view.sx, (y0 - view.y) * view.sy);
      pen.lineTo((x - view.x) * view.sx, (y1 - view.y) * view.sy);
    }
    for (let y = snap(y0, tile.stepY, tile.top); y <= y1; y += tile.stepY) {
      pen.moveTo((x0 - view.x) * view.sx, (y - view.y) * view.sy);
      pen.lineTo((x1 - view.x) * view.sx, (y - view.y) * view.sy);
    }
    pen.stroke();
    if (Math.min(width, height) < SIGNS_FROM) return;
    pen.font = `bold ${Math.min(width, height, 26) * 0.8}px system-ui, sans-serif`;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.fillStyle = "#111";
    for (let y = y0; y < y1; y += tile.stepY) {
      for (let x = x0; x < x1; x += tile.stepX) {
        const cell = tile.at(x, y);
        const state = cell < 0 || tile.values ? null : tile.sign(cell);
        if (!state) continue;
        const [left, top] = tile.placeOf(cell);
        pen.fillText(SIGNS[state], (left + tile.stepX / 2 - view.x) * view.sx, (top + tile.stepY / 2 - view.y) * view.sy);
      }
    }
  }

  drawCursor(pen) {
    const found = this.cursorCell();
    if (!found) return;
    const { view } = this;
    const [x, y] = found.tile.placeOf(found.cell);
    const [width, height] = [Math.max(found.tile.stepX * view.sx, 5), Math.max(found.tile.stepY * view.sy, 5)];
    const box = [(x - view.x) * view.sx - 1.5, (y - view.y) * view.sy - 1.5, width + 3, height + 3];
    pen.lineWidth = 5;
    pen.strokeStyle = "#fff";
    pen.strokeRect(...box);
    pen.lineWidth = 2.5;
    pen.strokeStyle = "#111";
    pen.strokeRect(...box);
  }

  cursorCell() {
    for (const tile of [this.detail, this.tile]) {
      const cell = this.cursor && tile ? tile.at(...this.cursor) : -1;
      if (cell >= 0) return { tile, cell };
    }
    return null;
  }

  // --- saying it ----------------------------------------------------------------------------------------------------

  describe() {
    const { tile } = this;
    const total = Object.values(tile.totals).reduce((a, b) => a + b, 0);
    document.getElementById("legend").replaceChildren(...STATES.map((state) => element("li", {
      hidden: !tile.totals[state] && ["skipped", "outside", "orphaned"].includes(state), title: MEANING[state],
    }, chip(state), `${state} `, element("b", {}, count(tile.totals[state] ?? 0)))));
    const parts = STATES.filter((state) => tile.totals[state]).map((state) => `${state} ${share(tile.totals[state], total)}`);
    const how = [...this.cuts].map(([axis, at]) =>
      at === null ? `seen through all ${count(this.grid.shape[axis])} blocks of axis ${axis}` : `slice ${at} of axis ${axis}`);
    const axes = tile.header.shown.map((axis) => `axis ${axis} (${count(this.grid.shape[axis])} blocks)`);
    const where = axes.length > 1 ? `${axes[0]} runs down, ${axes[1]} across` : `${axes[0]} runs in rows`;
    const cell = total ? Math.max(...tile.header.step) > 1 ? `; a cell is ${tile.header.step.join(" \u00d7 ")} of them` : "" : "";
    const text = `Task ${[this.task, ...how].join(", ")}: ${where}${cell}. ` +
      (total ? `Of ${count(total)} blocks: ${parts.join(", ")}.` : "It has no blocks.");
    const known = this.value !== "state" && this.scale?.least !== null;
    const unit = this.value === "duration" ? seconds : (n) => n.toPrecision(3);
    const ramp = document.getElementById("ramp");
    ramp.hidden = this.value === "state";
    ramp.firstElementChild.hidden = !known;
    ramp.lastElementChild.textContent = known ? `mean ${this.value} of a cell, from ${unit(this.scale.least)} to ${unit(this.scale.most)}`
      : `Nothing is recorded of the ${this.value} of these blocks.`;
    document.getElementById("map-text").textContent = text;
    this.canvas.setAttribute("aria-label", `Map of task ${this.task}`);
  }

  select() {
    const found = this.cursorCell();
    if (!found) return;
    const { tile, cell } = found;
    const shape = this.grid.shape;
    const from = shape.map((_, axis) => this.cuts.get(axis) ?? 0);
    const to = shape.map((size, axis) => (this.cuts.get(axis) ?? size - 1) + 1);
    const [first, last] = tile.range(cell);
    tile.header.shown.forEach((axis, i) => { from[axis] = first[i]; to[axis] = last[i]; });
    if (from.every((at, axis) => to[axis] === at + 1)) this.showBlock(this.task, from.reduce((id, at, axis) => id * shape[axis] + at, 0));
    else showCell(this.task, from, to, tile.counts(cell), (task, id) => this.showBlock(task, id));
  }

  showBlock(task, id) {
    return showBlock(task, id, this.acts);
  }

  // Show a block that was named elsewhere, and where it is: in its slice, where a slice is shown.
  async find(task, id) {
    if (task !== this.task) this.choose(task);
    this.canvas.scrollIntoView({ block: "nearest" });
    const block = await this.showBlock(task, id);
    if (!block) return;
    for (const control of document.querySelectorAll("#cuts .cut")) control.show(block.index);
    await this.loaded;
    if (!this.tile || this.tile.folded || this.tile.header.task !== task) return;
    const [row, column] = this.tile.header.shown;
    this.cursor = [block.index[column], block.index[row]];
    this.reveal();
  }

  // Show the block at an index that was typed in.
  findIndex(text) {
    const shape = this.grid.shape;
    const index = text.split(/[\s,]+/).filter(Boolean).map(Number);
    const inside = index.length === shape.length && index.every((at, axis) => Number.isInteger(at) && at >= 0 && at < shape[axis]);
    document.getElementById("find-index").setCustomValidity(inside ? "" : `Give ${shape.length} integers, below ${shape.join(", ")}.`);
    if (!document.getElementById("find-index").reportValidity()) return;
    this.find(this.task, index.reduce((id, at, axis) => id * shape[axis] + at, 0));
  }

  async nextFailed() {
    await this.loaded; // of the slice that was just chosen
    const plane = this.tile?.planes.failed;
    if (!plane) return;
    const after = this.cursor ? this.tile.at(...this.cursor) : -1;
    const next = [...Array(plane.length).keys()].map((i) => (after + 1 + i) % plane.length).find((cell) => plane[cell]);
    this.cursor = this.tile.placeOf(next);
    this.reveal();
    this.select();
  }

  // --- hands --------------------------------------------------------------------------------------------------------

  controls() {
    const on = (id, event, act) => document.getElementById(id).addEventListener(event, act);
    on("map-task", "change", (event) => this.choose(event.target.value));
    on("map-value", "change", (event) => { this.value = event.target.value; this.changed(); });
    on("find-index", "input", (event) => event.target.setCustomValidity(""));
    on("find", "submit", (event) => { event.preventDefault(); this.findIndex(document.getElementById("find-index").value); });
    on("map-axis", "change", (event) => this.lookAlong(Number(event.target.value)));
    on("zoom-in", "click", () => this.zoom(1.6));
    on("zoom-out", "click", () => this.zoom(1 / 1.6));
    on("zoom-fit", "click", () => { this.fit(); this.draw(); });
    on("next-failed", "click", () => this.nextFailed());
    const slice = (by) => document.querySelector("#cuts .cut")?.slice(by);
    const keys = {
      ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
      "+": () => this.zoom(1.6), "=": () => this.zoom(1.6), "-": () => this.zoom(1 / 1.6),
      0: () => { this.fit(); this.draw(); },
      Enter: () => this.select(), " ": () => this.select(), f: () => this.nextFailed(), F: () => this.nextFailed(),
      PageUp: () => slice(1), PageDown: () => slice(-1),
    };
    this.canvas.addEventListener("keydown", (event) => {
      const act = keys[event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      if (Array.isArray(act)) this.step(act, event.shiftKey ? 10 : 1);
      else act();
    });
  }

  step([dx, dy], times) {
    const { tile } = this;
    if (!tile) return;
    const finest = this.cursorCell()?.tile ?? tile;
    const [height, width] = tile.bounds;
    const [x, y] = this.cursor ?? [Math.floor(width / 2) - dx, Math.floor(height / 2) - dy];
    const within = (value, most) => Math.min(Math.max(value, 0), most - 1);
    this.cursor = [within(x + dx * times * finest.stepX, width), within(y + dy * times * finest.stepY, height)];
    this.reveal();
  }

  // Move so that the cursor is in sight.
  reveal() {
    const { view, canvas, cursor } = this;
    const margin = 24;
    const over = (at, from, scale, size) => {
      const place = (at - from) * scale;
      return place < margin ? (place - margin) / scale : place > size - margin ? (place - size + margin) / scale : 0;
    };
    const dx = over(cursor[0], view.x, view.sx, canvas.clientWidth), dy = over(cursor[1], view.y, view.sy, canvas.clientHeight);
    if ((dx || dy) && !this.fitted) {
      view.x += dx;
      view.y += dy;
      this.refine();
    }
    this.draw();
  }

  pointers() {
    const { canvas } = this;
    const down = new Map();
    let dragged = 0;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("pointerdown", (event) => {
      down.set(event.pointerId, place(event));
      dragged = down.size > 1 ? Infinity : 0;
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const before = down.get(event.pointerId);
      if (!before || !this.tile) return;
      const now = place(event);
      if (down.size === 2) {
        const other = [...down].find(([id]) => id !== event.pointerId)[1];
        const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
        this.zoom(apart(now) / Math.max(apart(before), 1), other);
      } else {
        dragged += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
        if (dragged < 5) return;
        this.view.x -= (now[0] - before[0]) / this.view.sx;
        this.view.y -= (now[1] - before[1]) / this.view.sy;
        this.moved();
      }
      down.set(event.pointerId, now);
    });
    const up = (event) => {
      const was = down.delete(event.pointerId);
      if (!was || event.type !== "pointerup" || dragged >= 5 || !this.tile) return;
      const [x, y] = place(event);
      this.cursor = [this.view.x + x / this.view.sx, this.view.y + y / this.view.sy];
      this.draw();
      this.select();
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas && !event.ctrlKey) return; // the page scrolls past a map nobody uses
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY / 400), place(event));
    }, { passive: false });
  }
}
