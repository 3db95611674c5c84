// Loaded before require.js, on pages with ipywidgets alone.

// Where the widget manager looks for its fonts: beside itself, whatever folder the page is in.
window.require = { baseUrl: `${document.documentElement.dataset.content_root}_static/vendor/` };

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
