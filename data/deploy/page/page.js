import { predict } from "./predict.js";
import { draw } from "./pen.js";

const { names, pictures } = await (await fetch("pictures.json")).json();
const find = (what) => document.querySelector(what);
const canvas = find("canvas").getContext("2d", { willReadFrequently: true });

function put(pixels) {
  const image = canvas.createImageData(28, 28);
  image.data.set(pixels.flatMap((p) => [p, p, p, 255]));
  canvas.putImageData(image, 0, 0);
  return look();
}

async function look() {
  const { data } = canvas.getImageData(0, 0, 28, 28); // red, green, blue, opacity
  const pixels = Array.from({ length: 784 }, (_, i) => data[4 * i]);
  const { label, probability } = await predict(pixels);
  find("#said").value = names[label[0]];
  find("#bars").innerHTML = probability.map((p, i) =>
    `<tr><td>${names[i]}</td>
     <td><meter value="${p}" aria-label="${names[i]}"></meter></td></tr>`).join("");
}

draw(canvas, look);
find("#clear").onclick = () => put(Array(784).fill(0));
pictures.forEach((pixels, i) => {
  const button = document.createElement("button");
  button.textContent = `Picture ${i + 1}`;
  button.onclick = () => put(pixels);
  find("#samples").append(button, " ");
});
Object.assign(window, { predict, ready: put(pictures[0]) }); // for the lesson's tests
