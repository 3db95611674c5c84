// A module's own style sheet, loaded once, however many modules ask for it.

/** Load a style sheet that lies beside the module: `await addStyle("lab.css", import.meta.url)`. Without it, the page goes on. */
export async function addStyle(name, module) {
  const { href } = new URL(name, module);
  if ([...document.querySelectorAll("link[rel=stylesheet]")].some((link) => link.href === href)) return;
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href });
  const settled = new Promise((done) => {
    link.addEventListener("load", done);
    link.addEventListener("error", done);
  });
  document.head.append(link);
  await settled;
}
