// Keys, mouse and fingers on the map.

// `map` is told to select, forget, findFailed, slice and point; its sight is moved.
export function listenOn(canvas, map) {
  const { sight } = map;
  const keys = {
    ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1],
    "+": () => sight.zoom(1.6), "=": () => sight.zoom(1.6), "-": () => sight.zoom(1 / 1.6), 0: () => sight.fit(),
    Enter: () => map.select(), " ": () => map.select(), Escape: () => map.forget(),
    f: () => map.nextFailed(), F: () => map.nextFailed(), PageUp: () => map.slice(1), PageDown: () => map.slice(-1),
  };
  canvas.addEventListener("keydown", (event) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    if (!Array.isArray(act)) return act();
    sight.step(act, event.shiftKey ? 10 : 1);
    map.point(sight.cursor);
  });

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
    if (!sight.tile) return;
    const now = place(event);
    if (!before) {
      map.point(sight.under(now));
      return;
    }
    if (down.size === 2) {
      const other = [...down].find(([id]) => id !== event.pointerId)[1];
      const apart = (a) => Math.hypot(a[0] - other[0], a[1] - other[1]);
      sight.zoom(apart(now) / Math.max(apart(before), 1), other);
    } else {
      dragged += Math.abs(now[0] - before[0]) + Math.abs(now[1] - before[1]);
      if (dragged < 5) return;
      sight.drag(now[0] - before[0], now[1] - before[1]);
    }
    down.set(event.pointerId, now);
  });
  const up = (event) => {
    const was = down.delete(event.pointerId);
    if (!was || event.type !== "pointerup" || dragged >= 5 || !sight.tile) return;
    sight.cursor = sight.under(place(event));
    sight.draw();
    map.point(sight.cursor);
    map.select();
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);
  canvas.addEventListener("pointerleave", () => map.point(sight.cursor));
  canvas.addEventListener("wheel", (event) => {
    if (document.activeElement !== canvas && !event.ctrlKey) return; // the page scrolls past a map nobody uses
    event.preventDefault();
    sight.zoom(Math.exp(-event.deltaY / 400), place(event));
  }, { passive: false });
}
