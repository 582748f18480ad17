// What of the picture is in sight: the part that the canvas shows, the cells, and the cursor on them.
import { SIGNS } from "./format.js";

const LARGEST_FIT = 56; // pixels a cell when all is shown
const LARGEST = 160;
const SIGNS_FROM = 11;
const GAPS_FROM = 6;
const THIN = 6; // a thin grid is stretched at most so much on its short axis

export class Sight {
  // `moved` is called when another part, or the same at another scale, is in sight.
  constructor(canvas, moved) {
    this.canvas = canvas;
    this.moved = moved;
    this.tile = this.detail = null; // the whole picture, and a finer one of a part
    this.cursor = null; // a place of the picture
    this.view = { x: 0, y: 0, sx: 1, sy: 1 };
    this.fitted = true;
    new ResizeObserver(() => {
      if (this.fitted) this.fit();
      this.draw();
    }).observe(canvas);
  }

  // --- where --------------------------------------------------------------------------------------------------------

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
    this.draw();
  }

  // Around a point of the canvas: by default the cursor, where it is in sight, or else the middle.
  zoom(factor, at = this.middle()) {
    const { view } = this;
    const allowed = Math.min(factor, LARGEST / Math.max(view.sx, view.sy));
    view.x += at[0] / view.sx - at[0] / (view.sx * allowed);
    view.y += at[1] / view.sy - at[1] / (view.sy * allowed);
    view.sx *= allowed;
    view.sy *= allowed;
    this.move();
  }

  middle() {
    const { view, canvas, cursor } = this;
    const [x, y] = cursor ? [(cursor[0] + 0.5 - view.x) * view.sx, (cursor[1] + 0.5 - view.y) * view.sy] : [-1, -1];
    const inSight = x >= 0 && y >= 0 && x <= canvas.clientWidth && y <= canvas.clientHeight;
    return inSight ? [x, y] : [canvas.clientWidth / 2, canvas.clientHeight / 2];
  }

  drag(dx, dy) {
    this.view.x -= dx / this.view.sx;
    this.view.y -= dy / this.view.sy;
    this.move();
  }

  move() {
    this.fitted = false;
    this.draw();
    this.moved();
  }

  // Rows and columns [from, to) of the picture that are in sight.
  window() {
    const { tile, view, canvas } = this;
    const within = (rows, columns) => [Math.min(Math.max(rows, 0), tile.bounds[0]), Math.min(Math.max(columns, 0), tile.bounds[1])];
    return [
      within(Math.floor(view.y), Math.floor(view.x)),
      within(Math.ceil(view.y + canvas.clientHeight / view.sy), Math.ceil(view.x + canvas.clientWidth / view.sx)),
    ];
  }

  // The place of the picture under a point of the canvas.
  under([x, y]) {
    return [this.view.x + x / this.view.sx, this.view.y + y / this.view.sy];
  }

  // The finest cell at a place of the picture.
  cellAt(place) {
    for (const tile of [this.detail, this.tile]) {
      const cell = place && tile ? tile.at(...place) : -1;
      if (cell >= 0) return { tile, cell };
    }
    return null;
  }

  // --- the cursor ---------------------------------------------------------------------------------------------------

  step([dx, dy], times) {
    const { tile } = this;
    if (!tile) return;
    const finest = this.cellAt(this.cursor)?.tile ?? tile;
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
      this.moved();
    }
    this.draw();
  }

  // --- drawing ------------------------------------------------------------------------------------------------------

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
    const found = this.cellAt(this.cursor);
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
}
