// One answer of the map API: counts of blocks by state and cell, and the same as an image of one pixel a cell.
import { STATES } from "./format.js";

const ITEMS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array };
const SPAN_LINEAR = 10;
const LEAST_SEEN = 0.45; // of a cell's colour is a running or orphaned block's, so that one among many is seen

export function colours() {
  const style = getComputedStyle(document.documentElement);
  return Object.fromEntries(STATES.map((state) => {
    const hex = style.getPropertyValue(`--${state}`).trim();
    return [state, [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16))];
  }));
}

// Of the means: nothing known, least, most. From light to dark (in the dark: from dark to light), so without hue too.
export function rampColours() {
  const style = getComputedStyle(document.documentElement);
  return ["--unknown", "--least", "--most"].map((name) => {
    const hex = style.getPropertyValue(name).trim();
    return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  });
}

export function headerOf(buffer) {
  return JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, new DataView(buffer).getUint32(0, true))));
}

export class Tile {
  // A grid of one axis is folded into rows.
  constructor(buffer, palette) {
    const length = new DataView(buffer).getUint32(0, true);
    this.header = headerOf(buffer);
    const [rows, columns] = this.header.cells;
    this.n = rows * columns;
    this.folded = this.header.shown.length === 1;
    this.columns = this.folded ? Math.max(1, Math.ceil(Math.sqrt(2 * columns))) : columns;
    this.rows = this.folded ? Math.ceil(columns / this.columns) : rows;
    const Item = ITEMS[this.header.item];
    this.planes = {};
    this.header.states.forEach((state, i) => {
      this.planes[state] = new Item(buffer, 4 + length + i * this.n * Item.BYTES_PER_ELEMENT, this.n);
    });
    this.totals = Object.fromEntries(Object.entries(this.planes).map(([state, plane]) => [state, plane.reduce((a, b) => a + b, 0)]));
    this.paint(palette);
  }

  // Where it lies and how large a cell is, in the picture's units: blocks, or cells where the grid is folded.
  get left() { return this.folded ? 0 : this.header.begin[1]; }
  get top() { return this.folded ? 0 : this.header.begin[0]; }
  get stepX() { return this.folded ? 1 : this.header.step[1]; }
  get stepY() { return this.folded ? 1 : this.header.step[0]; }
  get width() { return this.columns * this.stepX; }
  get height() { return this.rows * this.stepY; }

  // Rows and columns of the whole picture: of blocks, or of cells where the grid is folded.
  get bounds() { return this.folded ? [this.rows, this.columns] : this.header.shown.map((axis) => this.header.shape[axis]); }

  paint(palette) {
    this.image = new OffscreenCanvas(Math.max(this.columns, 1), Math.max(this.rows, 1));
    const pen = this.image.getContext("2d");
    const pixels = pen.createImageData(this.image.width, this.image.height);
    const states = Object.keys(this.planes);
    const planes = states.map((state) => this.planes[state]);
    const weights = new Float64Array(states.length);
    for (let cell = 0; cell < this.n; cell++) {
      weigh(states, planes, cell, weights);
      let r = 0, g = 0, b = 0;
      for (let i = 0; i < weights.length; i++) {
        const colour = palette[states[i]];
        r += weights[i] * colour[0];
        g += weights[i] * colour[1];
        b += weights[i] * colour[2];
      }
      pixels.data.set([r, g, b, 255], 4 * cell);
    }
    pen.putImageData(pixels, 0, 0);
  }

  // Colours by the means of another answer for the same cells; cells of which nothing is known keep a quiet colour. The
  // scale is that of the whole picture; where it spans more than one order of magnitude it is logarithmic.
  colour(buffer, [unknown, low, high], { least, most, together }) {
    const length = new DataView(buffer).getUint32(0, true);
    this.values = new Float32Array(buffer, 4 + length, this.n);
    const logarithmic = least > 0 && most > SPAN_LINEAR * least;
    this.scale = { least, most, together, logarithmic };
    const on = (value) => (logarithmic ? Math.log(value) : value);
    const pen = this.image.getContext("2d");
    const pixels = pen.createImageData(this.image.width, this.image.height);
    this.values.forEach((value, cell) => {
      const at = most > least ? Math.min(Math.max((on(value) - on(least)) / (on(most) - on(least)), 0), 1) : 0;
      const [r, g, b] = isNaN(value) ? unknown : low.map((from, i) => from + (high[i] - from) * at);
      pixels.data.set([r, g, b, 255], 4 * cell);
    });
    pen.putImageData(pixels, 0, 0);
  }

  // The cell at a place of the picture, or -1.
  at(x, y) {
    const column = Math.floor((x - this.left) / this.stepX), row = Math.floor((y - this.top) / this.stepY);
    if (column < 0 || row < 0 || column >= this.columns || row >= this.rows) return -1;
    const cell = row * this.columns + column;
    return cell < this.n ? cell : -1;
  }

  // The place of a cell in the picture.
  placeOf(cell) {
    return [this.left + (cell % this.columns) * this.stepX, this.top + Math.floor(cell / this.columns) * this.stepY];
  }

  // The place of a block.
  placeOfIndex(index) {
    const { shown, step, begin } = this.header;
    if (this.folded) return this.placeOf(Math.floor((index[shown[0]] - begin[0]) / step[0]));
    return [index[shown[1]], index[shown[0]]];
  }

  counts(cell) {
    return Object.fromEntries(Object.entries(this.planes).filter(([, plane]) => plane[cell]).map(([state, plane]) => [state, plane[cell]]));
  }

  // The state whose sign a cell shows.
  sign(cell) {
    for (const state of ["failed", "leased", "orphaned", "skipped", "ready"]) {
      if (this.planes[state]?.[cell]) return state;
    }
    return null;
  }

  // Index ranges [from, to) of a cell on the shown axes.
  range(cell) {
    const { begin, step, shown, shape } = this.header;
    const place = this.folded ? [cell] : [Math.floor(cell / this.columns), cell % this.columns];
    const from = place.map((at, i) => begin[i] + at * step[i]);
    return [from, from.map((at, i) => Math.min(at + step[i], shape[shown[i]]))];
  }
}

// A cell has the colours of its blocks in proportion; but a failed block is never lost among others.
function weigh(states, planes, cell, weights) {
  let all = 0;
  for (const plane of planes) all += plane[cell];
  const failed = states.indexOf("failed");
  if (failed >= 0 && planes[failed][cell]) {
    weights.fill(0);
    weights[failed] = 1;
    return;
  }
  let least = 0;
  for (let i = 0; i < states.length; i++) {
    weights[i] = all ? planes[i][cell] / all : 0;
    if ((states[i] === "leased" || states[i] === "orphaned") && planes[i][cell] && weights[i] < LEAST_SEEN) {
      least += LEAST_SEEN - weights[i];
      weights[i] = LEAST_SEEN;
    }
  }
  if (least) {
    const sum = weights.reduce((a, b) => a + b, 0);
    for (let i = 0; i < weights.length; i++) weights[i] /= sum;
  }
}
