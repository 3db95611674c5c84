"""The report card: one page, complete in itself, on what a student's kept answers are worth today."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from string import Template
from typing import Any

from .. import classroom, exercises, student
from ..environment import machine, versions
from ..exercises import Criterion, Task
from ..paths import BOOK_MODELS, WORK, write_whole
from ..version import __version__
from . import guarded
from .checks import CheckResult
from .html_parts import FIRM_SPACE, bar, criterion, document, pairs, text, title
from .keeping import ANSWERS, kept_answers
from .points import course_points, percent

CAPSTONE = 10  # the chapter whose every criterion is shown, and which seals the scroll
_DIGITS = 12  # of a SHA-256 sum: enough to compare by eye


@dataclass(frozen=True)
class Outcome:
    """What the answer to one task is worth. entry: what the list of kept answers says of it; none: not handed in."""

    result: CheckResult
    entry: Mapping[str, Any] | None = None
    size: int = 0
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def task(self) -> Task:
        return self.result.task


def report_card() -> Path:
    """Check all kept answers anew and write what they are worth into one HTML file in `work/`; return its path.

    Its name ends in a number made from the answers and their outcomes: the same give the same name, and a card that is
    there already stays as it is. First used in exercise 10.
    An answer that was changed or deleted behind the check's back is left out, and said so.
    Raises CourseError when there is none.
    """
    who = student.current()
    manifest, answers = kept_answers(who)
    chapters = {number: exercises.tasks_of(number) for number in exercises.chapters()}
    outcomes = _outcomes(who, chapters, manifest["tasks"], answers)
    known = {task for tasks in chapters.values() for task in tasks}
    gone = {name: entry for name, entry in manifest["tasks"].items() if name not in known}
    target = WORK / f"report_card_{who}_{_digest(who, outcomes, gone)}.html"
    page = _page(who, chapters, outcomes, gone)
    if not target.exists():
        with write_whole(target, "w") as stream:
            stream.write(page)
    score, _ = _points(chapters, outcomes)
    print(f"{target}: {percent(score)} of the course, {_passed(outcomes.values())}. Open it in a browser, and keep it.")
    return target


def _outcomes(
    who: str, chapters: Mapping[int, Mapping[str, Task]], kept: Mapping[str, Any], answers: Mapping[str, bytes]
) -> dict[str, Outcome]:
    """By id, for every task of the course: what the kept answer is worth now."""
    from tqdm.auto import tqdm

    tasks = {id: it for chapter in chapters.values() for id, it in chapter.items()}
    outcomes = {id: Outcome(CheckResult(it, ())) for id, it in tasks.items()}
    # A page of the book keeps an empty box for a bar that has gone, and nobody waits for a page.
    for id in tqdm([id for id in tasks if id in kept], desc="checking", leave=False, disable=BOOK_MODELS in os.environ):
        outcomes[id] = _outcome(tasks[id], who, kept[id], answers[id])
    return outcomes


def _outcome(it: Task, who: str, entry: Mapping[str, Any], data: bytes) -> Outcome:
    verdict = guarded.examine(
        it, data, str(ANSWERS / who / entry["file"]), who, key=classroom.current().key, facts=True
    )
    criteria = verdict.criteria
    if verdict.problem:
        criteria = (Criterion("the answer can be checked", False, verdict.problem, condition=True),)
    return Outcome(CheckResult(it, criteria), entry, len(data), verdict.facts)


def _digest(who: str, outcomes: Mapping[str, Outcome], gone: Mapping[str, Any]) -> str:
    """Eight digits from what the card says, apart from when and where it was made."""
    worth = {
        id: [o.entry["sha256"] if o.entry else "", [bool(c.passed) for c in o.result.criteria]]
        for id, o in outcomes.items()
    }
    content = [who, __version__, worth, {name: entry["sha256"] for name, entry in gone.items()}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]


def _points(
    chapters: Mapping[int, Mapping[str, Task]], outcomes: Mapping[str, Outcome]
) -> tuple[Fraction, dict[int, Fraction]]:
    return course_points({id: o.result.score for id, o in outcomes.items()}, chapters)


# From here on: HTML. Whatever was not written in this file goes through `text`.


def _page(
    who: str, chapters: Mapping[int, Mapping[str, Task]], outcomes: Mapping[str, Outcome], gone: Mapping[str, Any]
) -> str:
    score, by_chapter = _points(chapters, outcomes)
    groups = {number: [outcomes[id] for id in tasks] for number, tasks in chapters.items()}
    capstone = groups.get(CAPSTONE, [])
    sections = [
        _lessons(groups, by_chapter, score),
        _capstone(capstone),
        "<h2>Tasks</h2>",
        *(_tasks(number, group) for number, group in groups.items() if number != CAPSTONE),
        _gone(gone),
    ]
    template = Template((Path(__file__).with_name("report_card.html")).read_text(encoding="utf-8"))
    body = template.substitute(
        student=text(who),
        score=percent(score),
        score_bar=bar(score),
        summary=f"of the course, {_passed(outcomes.values())}",
        seal=_seal(capstone),
        made=pairs(_made()),
        sections="\n".join(filter(None, sections)),
    )
    return document(f"report card of {who}", body)


def _made() -> dict[str, str]:
    have = versions()
    packages = [f"{name}{FIRM_SPACE}{have[name]}" for name in ("torch", "onnx", "onnxruntime") if name in have]
    return {
        "checked on": datetime.date.today().isoformat(),
        "with": " · ".join([f"course{FIRM_SPACE}{__version__}", *packages]),
        "processor": machine().processor,
    }


def _passed(outcomes: Iterable[Outcome]) -> str:
    passed = [o.result.passed for o in outcomes]
    return f"{sum(passed)} of {len(passed)} tasks passed"


def _lessons(groups: Mapping[int, list[Outcome]], by_chapter: Mapping[int, Fraction], score: Fraction) -> str:
    def row(name: str, group: list[Outcome], share: Fraction, bar: str = "") -> str:
        reached, of = (sum(o.result.score[i] for o in group) for i in (0, 1))
        passed = sum(o.result.passed for o in group)
        cells = [f"{passed} of {len(group)}", f"{reached} of {of}" if of else "–", percent(share)]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        return f'<tr><th scope="row">{name}{bar}</th>{numbers}</tr>'

    rows = [row(title(n), group, by_chapter[n], bar(by_chapter[n])) for n, group in groups.items()]
    whole = row("The course", [o for group in groups.values() for o in group], score)
    return (
        '<h2>Lessons</h2>\n<table class="lessons">\n<caption>A task that was not handed in has no points. A lesson’s share is the mean over its tasks.</caption>\n'
        '<thead><tr><th scope="col">Lesson</th><th scope="col" class="number">Tasks passed</th>'
        '<th scope="col" class="number">Points</th><th scope="col" class="number">Share</th></tr></thead>\n'
        f"<tbody>\n{chr(10).join(rows)}\n</tbody>\n<tfoot>{whole}</tfoot>\n</table>"
    )


def _verdict(outcome: Outcome, between: str = "<br>") -> str:
    if outcome.entry is None:
        return '<span class="soft">not handed in yet</span>'
    reached, of = outcome.result.score
    colour, word = ("good", "✓ passed") if outcome.result.passed else ("bad", "✗ not there yet")
    return f'<span class="{colour}">{word}</span>{between}<small>{reached} of {of} point{"s" * (of != 1)}</small>'


def _file(outcome: Outcome, between: str = "<br>") -> str:
    if outcome.entry is None:
        return '<span class="soft">none</span>'
    name, digits = text(outcome.entry["file"]), text(outcome.entry["sha256"][:_DIGITS])
    return f"{name} <small>{outcome.size:,}{FIRM_SPACE}bytes{between}<code>{digits}</code></small>"


def _fact_list(outcome: Outcome) -> str:
    return f'<dl class="facts">\n{pairs(outcome.facts)}\n</dl>' if outcome.facts else ""


def _tasks(number: int, group: Iterable[Outcome]) -> str:
    rows = []
    for o in group:
        name = f"{text(o.task.id)} {text(o.task.title)}"
        rows.append(f'<tr><th scope="row">{name}</th><td>{_verdict(o)}</td><td>{_file(o)}</td></tr>')
        if o.facts:
            rows.append(f'<tr class="more"><td colspan="3">{_fact_list(o)}</td></tr>')
    return (
        f'<h3 id="lesson-{number}">{title(number)}</h3>\n<table class="tasks" aria-labelledby="lesson-{number}">\n'
        '<thead><tr><th scope="col">Task</th><th scope="col">Outcome</th><th scope="col">File, size, SHA‑256</th></tr>'
        f"</thead>\n<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table>"
    )


def _capstone(group: list[Outcome]) -> str:
    """Every criterion of every task, and what was measured."""
    return f"<h2>{title(CAPSTONE)}</h2>\n" + "\n".join(map(_in_full, group)) if group else ""


def _in_full(outcome: Outcome) -> str:
    items = "\n".join(map(criterion, outcome.result.criteria))
    told = f'<ul class="criteria">\n{items}\n</ul>' if items else ""
    file = f'<p class="soft">{_file(outcome, " · ")}</p>' if outcome.entry else ""
    return (
        f'<section class="task">\n<h3>{text(outcome.task.id)} {text(outcome.task.title)}</h3>\n'
        f"<p>{_verdict(outcome, ' ')}</p>\n{told}{_fact_list(outcome)}{file}\n</section>"
    )


def _gone(gone: Mapping[str, Any]) -> str:
    if not gone:
        return ""
    items = "".join(
        f"<li>{text(name)}: {text(e['file'])} <code>{text(e['sha256'][:_DIGITS])}</code></li>"
        for name, e in gone.items()
    )
    return f"<h2>No longer part of the course</h2>\n<p>Kept from another version of it, and not counted:</p><ul>{items}</ul>"


def _seal(group: list[Outcome]) -> str:
    """The scroll, sealed once every task of the capstone has passed; before, what is missing. Nothing without a capstone."""
    missing = [text(o.task.id) for o in group if not o.result.passed]
    if not group:
        return ""
    says = "The scroll is sealed" if not missing else "Not sealed yet"
    more = "" if not missing else f"<small>Still to do: {', '.join(missing)}</small>"
    return f'<figure class="seal">\n{_scroll(not missing)}\n<figcaption>{says}{more}</figcaption>\n</figure>'


def _scroll(sealed: bool) -> str:
    """A parchment with a small graph on it; below, the wax, or the place where it will be."""
    wax = (
        '<path d="M92 172l-9 31 11-6 7 10 8-32z" fill="#7a2626"/><path d="M108 172l9 31-11-6-7 10-8-32z" fill="#8e2f2f"/>'
        '<path d="M100 138c6-3 11 0 15 4 6 1 10 5 10 11 4 5 4 11 0 15-1 6-5 10-11 10-4 5-10 5-14 2-5 3-11 3-15-2-6 0-10-4-11'
        '-10-4-5-4-10 0-15 0-6 4-10 10-11 4-5 10-7 16-4z" fill="#a33c39"/>'
        '<circle cx="100" cy="160" r="15.5" fill="none" stroke="#7a2626" stroke-width="1.5"/>'
        '<path d="M93 160l4.5 5 9-10" fill="none" stroke="#f6e3d3" stroke-width="3" stroke-linecap="round" '
        'stroke-linejoin="round"/>'
        if sealed
        else '<circle cx="100" cy="160" r="20" fill="none" stroke="#b39a6b" stroke-width="1.5" stroke-dasharray="4 4"/>'
    )
    return f"""<svg viewBox="20 10 160 {198 if sealed else 182}" aria-hidden="true">
<path d="M44 30h112v146H44z" fill="#f4e8cd" stroke="#c3a873" stroke-width="1.5"/>
<g fill="#e6d2a5" stroke="#b39a6b" stroke-width="1.5">
<rect x="34" y="16" width="132" height="20" rx="10"/><rect x="34" y="166" width="132" height="20" rx="10"/></g>
<g fill="#8a6f3f"><rect x="27" y="20" width="9" height="12" rx="3"/><rect x="164" y="20" width="9" height="12" rx="3"/>
<rect x="27" y="170" width="9" height="12" rx="3"/><rect x="164" y="170" width="9" height="12" rx="3"/></g>
<g fill="none" stroke="#7d6a45" stroke-width="1.8"><path d="M100 63v11M92 88L78 98M108 88l14 10M78 114l14 10M122 114l-14 10"/>
<rect x="84" y="49" width="32" height="14" rx="4"/><rect x="84" y="74" width="32" height="14" rx="4"/>
<rect x="60" y="98" width="32" height="16" rx="4"/><rect x="108" y="98" width="32" height="16" rx="4"/>
<circle cx="100" cy="128" r="6"/></g>
{wax}
</svg>"""
