import { obstacle, start } from "./card.js";
import { draw } from "./pen.js";
import { predict } from "./predict.js";

const { names, pictures } = await (await fetch("pictures.json")).json();
const find = (what) => document.querySelector(what);
const canvas = find("canvas").getContext("2d", { willReadFrequently: true });
const card = find("#card");
const processor = { name: "WebAssembly", predict };
let runner = processor;
let newest = 0;

function put(pixels) {
  const image = canvas.createImageData(28, 28);
  image.data.set(pixels.flatMap((p) => [p, p, p, 255]));
  canvas.putImageData(image, 0, 0);
  return look();
}

async function look() {
  const number = ++newest;
  const { data } = canvas.getImageData(0, 0, 28, 28); // red, green, blue, opacity
  const pixels = Array.from({ length: 784 }, (_, i) => data[4 * i]);
  const mine = runner;
  const answer = await mine.predict(pixels).catch((error) => {
    if (!mine.lost) throw error;
    if (mine === runner) return back(error);
  });
  if (!answer || number !== newest) return; // a newer picture, or the processor, was asked
  const { label, probability } = answer;
  find("#said").value = names[label[0]];
  find("#ran").value = mine.name; // of what gave this answer
  find("#bars").innerHTML = probability.map((p, i) =>
    `<tr><td>${names[i]}</td>
     <td><meter value="${p}" aria-label="${names[i]}"></meter></td></tr>`).join("");
}

// The processor can always go on.
function back(error) {
  console.warn(error);
  runner = { ...processor, name: "WebAssembly: WebGPU failed, the console says why" };
  Object.assign(card, { hidden: false, disabled: false });
  return look();
}

async function useCard() {
  card.disabled = true;
  find("#ran").value = "WebGPU is being loaded …";
  try {
    const mine = (runner = await start());
    mine.lost.then(({ message }) => mine === runner && back(message));
    card.hidden = true;
    await look();
  } catch (error) {
    await back(error);
  }
}

const reason = await obstacle();
if (reason) processor.name += `: ${reason}`;
card.hidden = Boolean(reason);
card.onclick = useCard;
draw(canvas, look);
find("#clear").onclick = () => put(Array(784).fill(0));
pictures.forEach((pixels, i) => {
  const button = document.createElement("button");
  button.textContent = `Picture ${i + 1}`;
  button.onclick = () => put(pixels);
  find("#samples").append(button, " ");
});
const ready = put(pictures[0]);
Object.assign(window, { predict: (pixels) => runner.predict(pixels), ready }); // for the lesson's tests
