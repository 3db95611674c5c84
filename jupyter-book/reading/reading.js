// On every page: ticks in the side bar. On two pages more than that.

import { showProgress } from "./progress.js";

const root = document.documentElement.dataset.content_root;
showProgress(root);
if (document.querySelector(".error-search")) import("./errors.js");
if (document.querySelector(".claims-filter")) import("./claims.js");
if (document.getElementById("search-results")) import("./search.js").then(({ showFirst }) => showFirst(root));
// Not on a page that was opened as a file, and not in every private window.
addEventListener("load", () => navigator.serviceWorker?.register(`${root}service_worker.js`).catch(() => {}));
