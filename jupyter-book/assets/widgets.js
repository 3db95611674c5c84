// Loaded on pages with ipywidgets alone. Their program, a megabyte packed, is loaded when the first widget comes near.

const NEAR = "600px";
const VENDOR = `${document.documentElement.dataset.content_root}_static/vendor/`;
const PROGRAMS = ["require.js", "@jupyter-widgets/html-manager/dist/embed-amd.js"];

// Where the widget manager looks for its fonts: beside itself, whatever folder the page is in.
window.require = { baseUrl: VENDOR };

function load() {
  near.disconnect();
  if (load.begun) return;
  load.begun = true;
  for (const name of PROGRAMS) {
    const script = Object.assign(document.createElement("script"), { src: VENDOR + name, async: false }); // one after the other
    script.dataset.jupyterWidgetsCdn = "./no-such-widget/"; // an unknown widget is not looked for on another host
    document.head.append(script);
  }
}
const near = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && load(), { rootMargin: NEAR });
document.addEventListener("DOMContentLoaded", () => {
  const views = document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]');
  for (const view of views) near.observe(view.parentElement); // a script has no place of its own
});
addEventListener("beforeprint", load);

window.addEventListener("load", () => {
  // The widget manager speaks to MathJax 2 when it finds a MathJax. Ours is MathJax 3.
  if (window.MathJax && !MathJax.Hub) {
    const typeset = ([, , element]) => MathJax.startup.promise.then(() => MathJax.typesetPromise([element]));
    MathJax.Hub = { Queue: typeset };
  }
});

// A slider's handle has no name of its own, and a picture in an output has no description. Screen readers need both.
new MutationObserver(() => {
  for (const handle of document.querySelectorAll(".noUi-handle:not([aria-label])")) {
    const label = handle.closest(".jupyter-widgets")?.querySelector(".widget-label");
    handle.setAttribute("aria-label", label?.textContent || "slider");
  }
  for (const image of document.querySelectorAll(".jp-RenderedImage > img:not([alt])")) {
    image.alt = "Picture made by the cell above";
  }
}).observe(document.documentElement, { childList: true, subtree: true });
