// A picture of 28 × 28 pixels that a reader draws: by mouse, finger or keyboard. 1 bit each, so that it fits an address.

export const SIDE = 28;
const NIBS = [[0, 0], [1, 0], [0, 1], [1, 1]]; // a pen two pixels wide

/** Bits of a drawing → a short text. pixels: 0 or 255. */
export function packed(pixels) {
  let bytes = "";
  for (let i = 0; i < pixels.length; i += 8) {
    let byte = 0;
    for (let bit = 0; bit < 8; bit++) byte |= (pixels[i + bit] > 0) << bit;
    bytes += String.fromCharCode(byte);
  }
  return btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** The drawing in such a text; undefined where it is none. */
export function unpacked(text) {
  try {
    const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
    if (bytes.length !== (SIDE * SIDE) / 8) return undefined;
    return Uint8Array.from({ length: SIDE * SIDE }, (_, i) => (bytes.charCodeAt(i >> 3) >> (i & 7)) & 1 ? 255 : 0);
  } catch {
    return undefined;
  }
}

/** The pixels between two points, both included: quick strokes leave no gaps. */
export function line([x0, y0], [x1, y1]) {
  const steps = Math.max(Math.abs(x1 - x0), Math.abs(y1 - y0));
  return Array.from({ length: steps + 1 }, (_, i) => {
    const share = steps ? i / steps : 0;
    return [Math.round(x0 + share * (x1 - x0)), Math.round(y0 + share * (y1 - y0))];
  });
}

/** Let the reader draw on a canvas. pixels: of the picture, changed in place. changed: is called after each stroke. */
export function drawable(canvas, pixels, show, changed) {
  let at = [SIDE / 2, SIDE / 2]; // the pen of the keyboard
  let last;
  const dot = ([x, y]) => {
    for (const [dx, dy] of NIBS) {
      if (x + dx >= 0 && x + dx < SIDE && y + dy >= 0 && y + dy < SIDE) pixels[(y + dy) * SIDE + x + dx] = 255;
    }
  };
  const place = ({ offsetX, offsetY }) => [offsetX, offsetY].map((v) => Math.floor((v * SIDE) / canvas.clientWidth));
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    dot(last);
    show();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    const next = place(event);
    line(last, next).forEach(dot);
    last = next;
    show();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      if (last) changed();
      last = undefined;
    });
  }
  const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    if (move) at = at.map((v, i) => Math.min(SIDE - 2, Math.max(0, v + move[i])));
    if (!move || event.shiftKey) dot(at);
    show(at);
    if (!move || event.shiftKey) changed();
  });
}
