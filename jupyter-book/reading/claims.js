// The page of claims: by verdict, chapter of the report and words. What is chosen stands in the address.

const place = document.querySelector(".claims-filter");
const told = place.querySelector("[role=status]");
const verdict = place.querySelector("#claims-verdict");
const chapter = place.querySelector("#claims-chapter");
const words = place.querySelector("#claims-words");
const sections = [...document.querySelectorAll("section:has(.verdict)")].filter((one) => one.querySelector("a.evidence") && !one.querySelector("section"));
const rows = sections.flatMap((section) => [...section.querySelectorAll("tbody tr")]);

chapter.append(...sections.map((section) => new Option(section.querySelector("h2").firstChild.textContent, section.id)));

function show() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const section of sections)
    for (const row of section.querySelectorAll("tbody tr")) {
      const has = (!verdict.value || row.querySelector(`.verdict.${verdict.value}`)) && (!chapter.value || section.id === chapter.value);
      const text = row.textContent.toLowerCase();
      row.hidden = !(has && wanted.every((word) => text.includes(word)));
      count += !row.hidden;
    }
  for (const section of sections) section.hidden = !section.querySelector("tbody tr:not([hidden])");
  told.textContent = count === rows.length ? `All ${count} statements.` : `${count} of ${rows.length} statements.`;
  const chosen = { verdict: verdict.value, chapter: chapter.value, words: words.value.trim() };
  const query = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value)).toString();
  history.replaceState(null, "", `${location.pathname}${query && `?${query}`}${location.hash}`);
}

const asked = new URLSearchParams(location.search);
verdict.value = asked.get("verdict") ?? "";
chapter.value = asked.get("chapter") ?? "";
words.value = asked.get("words") ?? "";
for (const choice of [verdict, chapter]) choice.selectedIndex = Math.max(0, choice.selectedIndex); // an unknown one is none
place.hidden = false;
place.addEventListener("input", show);
show();
