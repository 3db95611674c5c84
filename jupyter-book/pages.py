"""The parts of the book that are made at build time: table of contents, cards of the lessons, claims, codes of the doctor."""

from __future__ import annotations

import os
import re
from collections import Counter
from itertools import groupby
from typing import Any

import sittings
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from course_utils import exercises
from course_utils.handin import solutions
from course_utils.lab.claims import VERDICTS, Claim, ledger
from course_utils.words import for_markdown

# The chapters of the report, by the number a claim's section begins with.
CHAPTERS = {
    "1": "Why a common format",
    "2": "The file: graph and opsets",
    "3": "Export",
    "4": "Dynamic axes",
    "5": "The runtime",
    "6": "Faster and smaller",
    "7": "Phone and browser",
    "8": "When something goes wrong",
    "A": "Appendix",
}
MEANING = {
    "holds": "It is so, as the report says it.",
    "holds within limits": "It is so under conditions that the report does not name.",
    "changed": "It was so once. Newer versions behave differently.",
    "wrong": "It was never so, or the opposite is true.",
}
# What the report says and no claim holds: its sections, the statement in our words, why it is not tested.
NOT_COVERED = (
    ("2.1", "The result is the same in C++ on Windows.", "Nothing was run on Windows, and nothing in C++."),
    (
        "5.2",
        "What the providers for CUDA, TensorRT, NNAPI, CoreML and DirectML are built on, and what each is good for.",
        "No graphics card, phone, Mac or Windows machine was at hand. A page of lesson 05 tests their names.",
    ),
    (
        "6.1",
        "A fused ReLU is applied in the registers of the processor.",
        "That cannot be seen from outside. Lesson 06 counts the bytes that fusion saves.",
    ),
    ("6.2", "INT8 is faster on Tensor Cores.", "No graphics card was at hand. Lesson 07 measures a processor."),
    (
        "7.1, 7.2",
        "The NPU of a phone is faster, and saves battery.",
        "No phone was at hand. Lesson 08 checks models with the tools that run on any machine.",
    ),
    (
        "7.3",
        "WebGL and WebGPU make models in the browser faster.",
        "Lesson 08 times one thread of WebAssembly. WebGPU runs on a software adapter there. WebGL is deprecated.",
    ),
    ("1, 9", "ONNX is the common language of the field.", "That is a judgement, and no test decides it."),
)


# Shown by reading/claims.js, which adds the chapters.
FILTER = """<div class="claims-filter" hidden>
<label>verdict <select id="claims-verdict"><option value="">all</option>{options}</select></label>
<label>chapter <select id="claims-chapter"><option value="">all</option></select></label>
<label>words <input id="claims-words" type="search" size="14"></label>
<p role="status"></p>
</div>"""
SOLUTION = """<details class="solution">
<summary>Stuck? A solution of task {id} is here.</summary>
<details>
<summary>I have tried it: show the solution.</summary>

```python
{code}
```

{text}

</details>
</details>"""


def contents(written: list[str]) -> dict[str, Any]:
    """The table of contents: below each lesson what lies deeper, and its exercise.

    written: the notebooks, as paths below `notebooks/`, without ending, such as "exercises/01_graph_structure".
    """
    chapters = []
    for lesson in sittings.lessons():
        below = [f"deeper/{page['file']}" for page in lesson.get("deeper", [])] + [f"exercises/{lesson['file']}"]
        sections = [{"file": f"notebooks/{name}"} for name in below if name in written]
        chapters.append({"file": f"notebooks/{lesson['file']}", **({"sections": sections} if sections else {})})
    return {
        "format": "jb-book",
        "root": "index",
        "parts": [
            {"caption": "Begin", "chapters": [{"file": "how_to_study"}, {"file": "labs"}]},
            {"caption": "Lessons", "chapters": chapters},
            {
                "caption": "Reference",
                "chapters": [
                    {"file": name}
                    for name in ("notebooks/glossary", "sheets", "errors", "claims", "measured", "providers", "doctor")
                ],
            },
            {
                "caption": "For instructors",
                "chapters": [
                    {
                        "file": "for_instructors",
                        "sections": [{"file": name} for name in ("assigning", "grading", "safety")],
                    },
                    *({"file": name} for name in ("hub", "course_plans", "add_an_exercise", "privacy")),
                ],
            },
        ],
    }


def lesson_cards() -> str:
    """A grid with one card per lesson: its time, what one learns, and the pages that lie deeper."""
    return ":::::{grid} 1 1 2 2\n:gutter: 3\n\n" + "\n".join(map(_card, sittings.lessons())) + "\n:::::"


def _card(lesson: dict[str, Any]) -> str:
    parts = [
        f"::::{{grid-item-card}} [{lesson['file'][:2]} · {lesson['title']}](notebooks/{lesson['file']}.ipynb)",
        f"{lesson['learn']} *{sittings.minutes_of(lesson['file'])} minutes*",
    ]
    if deeper := lesson.get("deeper"):
        links = " · ".join(f"[{page['title']}](notebooks/deeper/{page['file']}.ipynb)" for page in deeper)
        parts.append(f":::{{card-footer}}\nDeeper: {links}\n:::")
    return "\n\n".join(parts) + "\n::::\n"


def with_solutions(notebook: NotebookNode, source: str) -> NotebookNode:
    """An exercise of the book: below each check its solution, two clicks away. source: of the exercise, percent format.

    With COURSE_SOLUTIONS=0 they are left out, for a class that works without.
    """
    if os.environ.get(solutions.OFF) == "0":
        return notebook
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        for id in re.findall(r'^cu\.check\("(\d+\.\d+)"', cell.source, re.MULTILINE):
            shown = solutions.read_solution(exercises.task(id), source)
            text = SOLUTION.format(id=id, code=shown.code, text=shown.text)
            cells.append(new_markdown_cell(text, id=f"solution-{id.replace('.', '-')}"))
    notebook.cells = cells
    return notebook


def claims() -> str:
    """The claims page: counts, what the verdicts mean, and one table per chapter of the report."""
    entries = list(ledger().values())
    counts = Counter(entry.verdict for entry in entries)
    tested = [f"| {_verdict(name)} | {counts[name]} | {MEANING[name]} |" for name in VERDICTS]
    recorded = sum(bool(entry.record) for entry in entries)
    parts = [
        "# The claims",
        "This course is built on a report about ONNX and ONNX Runtime. The statements of the report are listed here in our "
        "own words, each with a verdict. Behind each verdict stands a cell in a lesson that was run when this page was made. "
        "If the statement were no longer as shown, the cell would have failed, and there would be no page. "
        "What is not tested stands at the end of this page.",
        f'<p class="claims-count"><strong>{len(entries)}</strong> statements are tested.</p>',
        FILTER.format(
            options="".join(f'<option value="{name.replace(" ", "-")}">{name}</option>' for name in VERDICTS)
        ),
        f"The evidence of {recorded} statements rests in part on a record: a run on another machine, on another day, or with "
        "another version. Each of them says so, with the machine and the version. The cell checks the record; it cannot tell "
        "whether a new run would give the same.",
        "## The verdicts",
        "\n".join(["| verdict | statements | meaning |", "|---|---|---|", *tested]),
    ]
    for chapter, group in groupby(entries, key=lambda entry: entry.section[0]):
        rows = [_row(entry) for entry in group]
        head = ["| statement | verdict | what is true today |", "|---|---|---|"]
        title = CHAPTERS[chapter] if chapter == "A" else f"{chapter} · {CHAPTERS[chapter]}"
        parts += [f"## {title}", "\n".join([*head, *rows])]
    missing = [
        f'| {for_markdown(what)}<br><small class="section">section {where}</small> | {for_markdown(why)} |'
        for where, what, why in NOT_COVERED
    ]
    parts += [
        "## What is not tested",
        "These statements of the report have no verdict.",
        "\n".join(["| statement | why |", "|---|---|", *missing]),
        "All verdicts come from Linux on processors of the x86 family, with the versions that `constraints.txt` names.",
    ]
    return "\n\n".join(parts) + "\n"


def doctor_codes() -> str:
    """One table of all that `cu.doctor` can find, for each severity."""
    from course_utils import doctor_codes as every

    parts = []
    for severity, rows in every().groupby("severity", sort=False):
        lines = [
            f'| {for_markdown(row.title)}<br><small class="section">{row.code}</small> '
            f'| {for_markdown(row.cure)}<br><small class="section">lesson {for_markdown(row.lesson)}</small> |'
            for row in rows.itertuples()
        ]
        head = ["| finding | what to do |", "|---|---|"]
        parts.append("\n".join([f"### {severity.capitalize()}s ({len(rows)})", "", *head, *lines]))
    return "\n\n".join(parts)


def _row(entry: Claim) -> str:
    number = entry.lesson.rpartition("/")[2][:2]
    statement = (
        f'{for_markdown(entry.statement)}<br><small class="section">section {for_markdown(entry.section)}</small>'
    )
    # Plain HTML: the anchor is in the output of a cell, where Sphinx does not look for targets.
    link = (
        f'<a class="evidence" href="notebooks/{entry.lesson}.html#claim-{entry.id}" '
        f'aria-label="lesson {number}: evidence for {entry.id}">lesson {number}</a>'
    )
    note = f'<br><small class="section record">{for_markdown(entry.recorded)}</small>' if entry.recorded else ""
    return f"| {statement} | {_verdict(entry.verdict)}<br>{link} | {for_markdown(entry.today)}{note} |"


def _verdict(name: str) -> str:
    return f'<span class="verdict {name.replace(" ", "-")}">{VERDICTS[name]} {name}</span>'
