// The page of error messages: paste one, and the best matches stand first.

import { rank } from "./match.js";

const box = document.querySelector(".error-search");
const field = box.querySelector("textarea");
const told = box.querySelector("[role=status]");
const body = document.querySelector(".error-index tbody");
const rows = [...body.rows];
const texts = rows.map((row) => row.cells[0].textContent);

function show() {
  const best = field.value.trim() ? rank(texts, field.value) : [];
  const first = best.map(({ index }) => rows[index]);
  body.append(...first, ...rows.filter((row) => !first.includes(row)));
  for (const row of rows) row.hidden = best.length > 0 && !first.includes(row);
  if (!field.value.trim()) told.textContent = `${rows.length} messages.`;
  else if (best.length) told.textContent = `${best.length === 1 ? "One message is" : `${best.length} messages are`} like yours, the nearest first.`;
  else told.textContent = "No message here is like yours. Try its last line alone, or the search.";
}

box.hidden = false;
field.addEventListener("input", show);
show();
