// The map: the grid of a task, cut or looked through along the axes that are not shown.
import { Age } from "./age.js";
import { Refused, get, understood } from "./api.js";
import { onMove, readView, writeView } from "./address.js";
import { counted, element, text } from "./format.js";
import { listenOn } from "./input.js";
import { showBlock, showCell, showHint } from "./detail.js";
import { describe, inALine } from "./captions.js";
import { Sight } from "./viewport.js";
import { Tile, colours, headerOf, rampColours } from "./tile.js";

const MOST_CELLS = 512;
const COLOURS = ["state", "duration", "attempts"];
const AGAIN_MS = 2000; // the chosen block is asked for again no more often

const at = (id) => document.getElementById(id);

export class BlockMap {
  // `acts` retries and reruns blocks.
  constructor(acts) {
    this.canvas = at("map");
    this.acts = { ...acts, show: (task, index) => this.find(task, index) };
    this.tasks = new Map();
    this.task = null;
    this.colour = "state"; // what a cell's colour says
    this.scale = null; // header of the means of the whole picture
    this.axis = 0;
    this.cuts = new Map(); // axis not shown -> index, or null: looked through
    this.block = null; // index of the chosen one
    this.loading = false;
    this.seq = -1; // of what is shown
    this.age = new Age("The map", at("map-old"));
    this.wanted = -1; // of the last event that there is
    this.askedMs = 0;
    this.palette = colours();
    this.sight = new Sight(this.canvas, () => this.refine());
    this.controls();
    listenOn(this.canvas, this);
    onMove((view) => this.goTo(view));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.palette = colours();
      this.changed();
    });
    showHint();
  }

  get grid() { return this.tasks.get(this.task); }

  // --- what is shown ------------------------------------------------------------------------------------------------

  setTasks(tasks, usual) {
    this.tasks = new Map(tasks.map((task) => [task.id, task]));
    at("map-task").replaceChildren(...tasks.map((task) => element("option", { value: task.id }, task.id)));
    this.usual = usual;
    if (tasks.length) this.goTo(this.task === null ? readView() : this.viewNow());
  }

  // Show what an address says; what it says of another run is left out.
  goTo({ task, axis, slices, colour, block }) {
    if (!this.tasks.size) return; // not known yet: the address is read again then
    const known = task === null || this.tasks.has(task);
    const its = this.tasks.has(task) ? task : this.usual;
    const shape = this.tasks.get(its).shape;
    const inside = (index, of) => Number.isInteger(index) && index >= 0 && index < shape[of];
    const along = known && Number.isInteger(axis) && axis >= 0 && axis < shape.length ? axis : 0;
    if (its !== this.task || along !== this.axis) {
      this.task = its;
      this.lookAlong(along);
    }
    [...this.cuts.keys()].forEach((each, i) => this.cuts.set(each, known && inside(slices[i], each) ? slices[i] : null));
    this.colour = COLOURS.includes(colour) ? colour : "state";
    this.block = known && block?.length === shape.length && block.every(inside) ? block : null;
    if (!this.block) this.sight.cursor = null;
    this.show();
    this.changed();
    if (this.block) this.showChosen();
    else showHint();
  }

  lookAlong(axis) {
    const n = this.grid.shape.length;
    const others = [...Array(n).keys()].filter((other) => other !== axis);
    this.axis = axis;
    this.cuts = new Map((n < 3 ? [] : [axis, ...others.slice(0, n - 3)]).map((each) => [each, null]));
    this.sight.fitted = true;
    this.sight.cursor = null;
    this.block = null;
  }

  viewNow() {
    return { task: this.task, axis: this.axis, slices: [...this.cuts.values()], colour: this.colour, block: this.block };
  }

  // Somebody chose something: say so in the address, and show it.
  choose(change, { push = true } = {}) {
    change();
    writeView(this.viewNow(), push);
    this.show();
    this.changed();
  }

  chooseTask(task) {
    this.choose(() => {
      this.task = task;
      this.lookAlong(0);
      showHint();
    });
  }

  cut(axis, index, push) {
    this.choose(() => {
      this.cuts.set(axis, index);
      if (!this.block) showHint(); // a cell of another slice was chosen, if any
    }, { push });
  }

  slice(by) {
    const axis = this.cuts.keys().next().value;
    if (axis === undefined) return;
    const now = this.cuts.get(axis);
    const most = this.grid.shape[axis] - 1;
    this.cut(axis, now === null ? most >> 1 : Math.min(Math.max(now + by, 0), most), false);
  }

  // The controls say what is shown.
  show() {
    const shape = this.grid.shape;
    at("map-task").value = this.task;
    at("map-value").value = this.colour;
    at("map-axis").replaceChildren(...shape.map((_, axis) => element("option", { value: axis }, `axis ${axis}`)));
    at("map-axis").value = this.axis;
    at("axis-label").hidden = shape.length < 3;
    at("find-index").placeholder = shape.map((size) => size >> 1).join(", ");
    const axes = [...this.cuts.keys()].filter((axis) => shape[axis] > 0);
    const key = [this.task, ...axes].join(" ");
    if (at("cuts").dataset.of !== key) {
      at("cuts").dataset.of = key;
      at("cuts").replaceChildren(...axes.map((axis) => this.cutControl(axis)));
    }
    for (const control of at("cuts").children) control.show();
  }

  cutControl(axis) {
    const most = this.grid.shape[axis] - 1;
    const on = element("input", { type: "checkbox", id: `cut-${axis}` });
    const range = element("input", { type: "range", min: 0, max: most, value: most >> 1, ariaLabel: `Slice of axis ${axis}` });
    const number = element("input", { type: "number", min: 0, max: most, value: most >> 1, ariaLabel: `Slice of axis ${axis}, as a number` });
    const set = (value, push) => this.cut(axis, Math.min(Math.max(Math.round(Number(value)) || 0, 0), most), push);
    on.addEventListener("change", () => (on.checked ? set(range.value, true) : this.cut(axis, null, true)));
    range.addEventListener("input", () => set(range.value, false));
    number.addEventListener("change", () => set(number.value, false));
    const control = element("fieldset", { className: "cut" }, element("label", { htmlFor: on.id }, on, ` slice of axis ${axis}`), range, number);
    control.show = () => {
      const index = this.cuts.get(axis);
      on.checked = index !== null;
      range.disabled = number.disabled = !on.checked;
      if (index !== null) range.value = number.value = index;
    };
    return control;
  }

  // --- asking -------------------------------------------------------------------------------------------------------

  changed() {
    this.sight.detail = null;
    this.loaded = this.load();
  }

  // Called with each event: nothing is asked for where nothing has changed. `last`: there may be no other.
  live(seq, last) {
    this.wanted = last ? seq : -1;
    if (seq === this.seq || this.task === null) return;
    if (!this.loading) this.load();
    if (this.block && (last || performance.now() - this.askedMs > AGAIN_MS)) this.showChosen();
  }

  async load() {
    const ticket = (this.ticket = (this.ticket ?? 0) + 1);
    const { sight } = this;
    this.loading = true;
    try {
      const tile = await this.fetchTile();
      if (ticket !== this.ticket) return;
      this.age.known();
      sight.tile = tile;
      this.seq = tile.header.seq;
      const finer = sight.detail ? await this.fetchTile(this.window(sight.detail)).catch(() => null) : null;
      if (ticket !== this.ticket) return;
      if (sight.detail) sight.detail = finer;
      if (sight.fitted) sight.fit();
      this.mark();
      sight.draw();
      describe(this.task, this.grid.shape, this.cuts, this.colour, tile);
      this.point(sight.cursor);
      if (this.seq < this.wanted) this.load(); // the last event came meanwhile
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      // A picture that there is stays, when the scheduler goes, and says how old it is.
      if (ticket !== this.ticket) return;
      if (!sight.tile) this.age.forget();
      this.age.unknown(error);
    } finally {
      if (ticket === this.ticket) this.loading = false;
    }
  }

  async fetchTile(window = []) {
    const cuts = [...this.cuts].flatMap(([axis, index]) => [["axis", axis], ["slice", index ?? "projection"]]);
    const asked = [["task", this.task], ["max", MOST_CELLS], ...cuts, ...window];
    const colour = this.colour;
    const states = await get("map", asked);
    const values = colour === "state" ? null : await get("map", [...asked, ["value", colour]]);
    return understood(async () => {
      const tile = new Tile(await states.arrayBuffer(), this.palette);
      if (values) {
        const means = await values.arrayBuffer();
        if (!window.length) this.scale = headerOf(means); // a window keeps the scale of the whole
        tile.colour(means, rampColours(), this.scale);
      }
      return tile;
    });
  }

  window(tile) {
    const { bounds } = this.sight.tile;
    return [["from", [tile.top, tile.left]], ["to", [Math.min(tile.top + tile.height, bounds[0]), Math.min(tile.left + tile.width, bounds[1])]]];
  }

  // Where cells of many blocks are large on the screen, those in sight are asked for in more detail.
  refine() {
    clearTimeout(this.refining);
    const { sight } = this;
    const { tile, view } = sight;
    if (!tile || tile.folded || Math.max(tile.stepX, tile.stepY) === 1) return;
    if (Math.max(tile.stepX * view.sx, tile.stepY * view.sy) < 3) {
      sight.detail = null;
      return;
    }
    this.refining = setTimeout(async () => {
      const [from, to] = sight.window();
      if (from[0] >= to[0] || from[1] >= to[1]) return;
      const ticket = this.ticket;
      const detail = await this.fetchTile([["from", from], ["to", to]]).catch(() => null);
      if (ticket !== this.ticket) return;
      sight.detail = detail;
      sight.draw();
    }, 150);
  }

  // --- saying it ----------------------------------------------------------------------------------------------------

  // Say in a line what is at a place of the picture: under the mouse, or the cursor.
  point(place) {
    const found = this.sight.cellAt(place);
    text(at("map-at"), found ? inALine(this.colour, found.tile, found.cell, this.boxOf(found.tile, found.cell)) : "");
  }

  // Index ranges [from, to) of a cell on all axes.
  boxOf(tile, cell) {
    const shape = this.grid.shape;
    const from = shape.map((_, axis) => this.cuts.get(axis) ?? 0);
    const to = shape.map((size, axis) => (this.cuts.get(axis) ?? size - 1) + 1);
    const [first, last] = tile.range(cell);
    tile.header.shown.forEach((axis, i) => { from[axis] = first[i]; to[axis] = last[i]; });
    return [from, to];
  }

  // --- choosing blocks ----------------------------------------------------------------------------------------------

  select() {
    const found = this.sight.cellAt(this.sight.cursor);
    if (!found) return;
    const [from, to] = this.boxOf(found.tile, found.cell);
    const one = from.every((index, axis) => to[axis] === index + 1);
    this.block = one ? from : null;
    writeView(this.viewNow(), true);
    if (one) this.showChosen();
    else showCell(this.task, from, to, found.tile.counts(found.cell), this.acts.show);
  }

  forget() {
    this.block = this.sight.cursor = null;
    writeView(this.viewNow(), true);
    showHint();
    this.point(null);
    this.sight.draw();
  }

  showChosen() {
    this.askedMs = performance.now();
    return showBlock(this.task, this.block, this.acts);
  }

  // Show a block that was named elsewhere, and where it is: in its slice, where a slice is shown.
  async find(task, index) {
    this.canvas.scrollIntoView({ block: "nearest" });
    this.choose(() => {
      if (task !== this.task) {
        this.task = task;
        this.lookAlong(0);
      }
      for (const [axis, now] of this.cuts) if (now !== null) this.cuts.set(axis, index[axis]);
      this.block = index;
    });
    await this.showChosen();
    await this.loaded;
    this.mark();
    if (this.sight.cursor) this.sight.reveal();
    this.point(this.sight.cursor);
  }

  // The cursor goes to the chosen block.
  mark() {
    const { sight } = this;
    if (!this.block || !sight.tile || sight.tile.header.task !== this.task) return;
    sight.cursor = sight.tile.placeOfIndex(this.block);
  }

  // Show the block at an index that was typed in.
  findIndex(typed) {
    const shape = this.grid.shape;
    const index = typed.split(/[\s,()[\]]+/).filter(Boolean).map(Number);
    const inside = index.length === shape.length && index.every((one, axis) => Number.isInteger(one) && one >= 0 && one < shape[axis]);
    at("find-index").setCustomValidity(inside ? "" : `Give ${counted(shape.length, "integer")}, below ${shape.join(", ")}.`);
    if (at("find-index").reportValidity()) this.find(this.task, index);
  }

  async nextFailed() {
    await this.loaded; // of the slice that was just chosen
    const { sight } = this;
    const plane = sight.tile?.planes.failed;
    if (!plane) return text(at("map-at"), "No block of this picture has failed.");
    const after = sight.cursor ? sight.tile.at(...sight.cursor) : -1;
    const next = [...Array(plane.length).keys()].map((i) => (after + 1 + i) % plane.length).find((cell) => plane[cell]);
    sight.cursor = sight.tile.placeOf(next);
    sight.reveal();
    this.point(sight.cursor);
    this.select();
  }

  // --- controls -----------------------------------------------------------------------------------------------------

  controls() {
    const on = (id, event, act) => at(id).addEventListener(event, act);
    on("map-task", "change", (event) => this.chooseTask(event.target.value));
    on("map-value", "change", (event) => this.choose(() => { this.colour = event.target.value; }));
    on("map-axis", "change", (event) => this.choose(() => { this.lookAlong(Number(event.target.value)); showHint(); }));
    on("find-index", "input", (event) => event.target.setCustomValidity(""));
    on("find", "submit", (event) => { event.preventDefault(); this.findIndex(at("find-index").value); });
    on("zoom-in", "click", () => this.sight.zoom(1.6));
    on("zoom-out", "click", () => this.sight.zoom(1 / 1.6));
    on("zoom-fit", "click", () => this.sight.fit());
    on("next-failed", "click", () => this.nextFailed());
    on("detail", "keydown", (event) => {
      if (event.key !== "Escape") return;
      this.forget();
      this.canvas.focus();
    });
  }
}
