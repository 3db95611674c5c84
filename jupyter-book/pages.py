"""The parts of the book that are made at build time: table of contents, cards of the lessons, claims, codes of the doctor."""

from __future__ import annotations

import html
from collections import Counter
from itertools import groupby
from typing import Any

import yaml

from course_utils.claims import VERDICTS, Claim, ledger
from course_utils.paths import data_path

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


def lessons() -> list[dict[str, str]]:
    """What `lessons.yml` says of each lesson: file, title, learn."""
    return yaml.safe_load(data_path("lessons.yml").read_text(encoding="utf-8"))


def contents(written: list[str]) -> dict[str, Any]:
    """The table of contents, each exercise after its lesson.

    written: the notebooks, as paths below `notebooks/`, without ending, such as "exercises/01_graph_structure".
    """
    by_lesson = sorted(written, key=lambda name: (name.rpartition("/")[2], "/" in name))
    chapters = [{"file": f"notebooks/{name}"} for name in by_lesson]
    return {
        "format": "jb-book",
        "root": "index",
        "parts": [
            {"caption": "Begin", "chapters": [{"file": "how_to_study"}]},
            {"caption": "Lessons", "chapters": chapters},
            {
                "caption": "Reference",
                "chapters": [{"file": name} for name in ("claims", "measured", "doctor", "for_instructors")],
            },
        ],
    }


def lesson_cards() -> str:
    """A grid with one card per lesson."""
    cards = [
        f":::{{grid-item-card}} {lesson['file'][:2]} · {lesson['title']}\n"
        f":link: notebooks/{lesson['file']}\n:link-type: doc\n\n{lesson['learn']}\n:::\n"
        for lesson in lessons()
    ]
    return "::::{grid} 1 2 2 3\n:gutter: 3\n\n" + "\n".join(cards) + "\n::::"


def claims() -> str:
    """The claims page: counts, what the verdicts mean, and one table per chapter of the report."""
    entries = list(ledger().values())
    counts = Counter(entry.verdict for entry in entries)
    tested = [f"| {_verdict(name)} | {counts[name]} | {MEANING[name]} |" for name in VERDICTS]
    parts = [
        "# The claims",
        "This course is built on a report about ONNX and ONNX Runtime. Every statement of the report is listed here in our "
        "own words, with a verdict. Behind each verdict stands a cell in a lesson that was run when this page was made. "
        "If the statement were no longer as shown, the cell would have failed, and there would be no page.",
        f'<p class="claims-count"><strong>{len(entries)}</strong> statements are tested.</p>',
        "## The verdicts",
        "\n".join(["| verdict | statements | meaning |", "|---|---|---|", *tested]),
    ]
    for chapter, group in groupby(entries, key=lambda entry: entry.section[0]):
        rows = [_row(entry) for entry in group]
        head = ["| statement | verdict | what is true today |", "|---|---|---|"]
        title = CHAPTERS[chapter] if chapter == "A" else f"{chapter} · {CHAPTERS[chapter]}"
        parts += [f"## {title}", "\n".join([*head, *rows])]
    return "\n\n".join(parts) + "\n"


def doctor_codes() -> str:
    """One table of all that `cu.doctor` can find, for each severity."""
    from course_utils import doctor_codes as every

    parts = []
    for severity, rows in every().groupby("severity", sort=False):
        lines = [
            f'| {_plain(row.title)}<br><small class="section">{row.code}</small> '
            f'| {_plain(row.cure)}<br><small class="section">lesson {_plain(row.lesson)}</small> |'
            for row in rows.itertuples()
        ]
        head = ["| finding | what to do |", "|---|---|"]
        parts.append("\n".join([f"### {severity.capitalize()}s ({len(rows)})", "", *head, *lines]))
    return "\n\n".join(parts)


def _row(entry: Claim) -> str:
    number = entry.lesson[:2]
    statement = f'{_plain(entry.statement)}<br><small class="section">section {_plain(entry.section)}</small>'
    # Plain HTML: the anchor is in the output of a cell, where Sphinx does not look for targets.
    link = (
        f'<a class="evidence" href="notebooks/{entry.lesson}.html#claim-{entry.id}" '
        f'aria-label="lesson {number}: evidence for {entry.id}">lesson {number}</a>'
    )
    return f"| {statement} | {_verdict(entry.verdict)}<br>{link} | {_plain(entry.today)} |"


def _verdict(name: str) -> str:
    return f'<span class="verdict {name.replace(" ", "-")}">{VERDICTS[name]} {name}</span>'


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    text = html.escape(text, quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|$~{}" else letter for letter in text)
