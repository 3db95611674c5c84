// look: called after each stroke
export function draw(canvas, look) {
  canvas.canvas.addEventListener("pointermove", ({ buttons, offsetX, offsetY }) => {
    if (!buttons) return;
    const scale = 28 / canvas.canvas.clientWidth;
    canvas.fillStyle = "white";
    canvas.fillRect(offsetX * scale - 1, offsetY * scale - 1, 3, 3);
    look();
  });
}
