// Which pages a reader has finished, kept in this browser only.

const KEY = "onnx-scroll finished pages";
const BLOCKED = "This browser keeps nothing for pages, so what you finish is not remembered.";

/** Paths below the site's root, without ending; null where the browser keeps nothing. */
function finished() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return new Set(Array.isArray(kept) ? kept : []);
  } catch {
    return null;
  }
}

function keep(pages) {
  try {
    localStorage.setItem(KEY, JSON.stringify([...pages]));
    return true;
  } catch {
    return false;
  }
}

const make = (tag, properties) => Object.assign(document.createElement(tag), properties);

export function showProgress(root) {
  const base = new URL(root, location.href);
  const name = (address) => new URL(address, location.href).pathname.slice(base.pathname.length).replace(/\.html$/, "");
  const here = name(location.pathname);
  const links = [...document.querySelectorAll(".bd-links a.internal")];
  const isPage = (page) => /^notebooks\/((deeper|exercises)\/)?\d\d_/.test(page);

  function tick() {
    const pages = finished() ?? new Set();
    for (const link of links) {
      link.querySelector(".tick")?.remove();
      if (pages.has(name(link.getAttribute("href") === "#" ? location.pathname : link.href)))
        link.append(make("span", { className: "tick", textContent: "✓", ariaLabel: "finished", role: "img" }));
    }
  }

  if (isPage(here)) {
    const button = make("button", { type: "button", className: "finish-button" });
    const said = make("small", { role: "status" });
    const show = () => {
      const done = finished()?.has(here) ?? false;
      button.textContent = done ? "✓ Finished" : "I have finished this page";
      button.setAttribute("aria-pressed", done);
      tick();
    };
    button.addEventListener("click", () => {
      const pages = finished() ?? new Set();
      if (!pages.delete(here)) pages.add(here);
      said.textContent = keep(pages) ? "Kept in this browser only." : BLOCKED;
      show();
    });
    const place = make("p", { className: "finish d-print-none" });
    place.append(button, " ", said);
    document.querySelector("article.bd-article")?.append(place);
    show();
  }
  tick();

  const line = document.getElementById("progress");
  if (!line) return;
  const pages = finished();
  const lessons = links.map((link) => name(link.href)).filter((page) => /^notebooks\/\d\d_/.test(page));
  const done = lessons.filter((page) => pages?.has(page)).length;
  if (pages === null) line.textContent = BLOCKED;
  else if (pages.size) {
    line.textContent = `You have finished ${done} of ${lessons.length} lessons. `;
    const forget = make("button", { type: "button", className: "finish-button", textContent: "Forget all" });
    forget.addEventListener("click", () => {
      keep(new Set());
      line.textContent = "Forgotten.";
      tick();
    });
    line.append(forget);
  }
}
