"""One page of feedback for each student: what was graded, which criteria are met, and what to do about the others.

It is made to be handed to that student: what a comparison with others found is not on it, for it names them.
"""

from __future__ import annotations

import hashlib
import re
from fractions import Fraction
from pathlib import Path, PurePosixPath

from ..errors import CourseError
from ..exercises import Criterion
from ..handin.html_parts import bar, criterion, document, pairs, text, title
from ..handin.points import percent
from .graph_picture import read_graph, svg
from .intake import Found, Submission, find, reopened
from .journal import writing
from .reading import Entry, Report
from .scoring import shown_date, shown_points

FOLDER = "feedback"
_LONGEST = 40  # characters of an id in a file's name
_DIGITS = 12


def file_name(entry: Entry) -> str:
    """Safe on every system, and one for each zip: what can be read of the id, and a number made from the zip's name."""
    readable = re.sub(r"[^A-Za-z0-9@+.-]+", "_", entry["student"] or PurePosixPath(entry["zip"]).stem)
    digits = hashlib.sha256(entry["zip"].encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
    return f"{readable[:_LONGEST].strip('._-') or 'student'}-{digits}.html"


def write(report: Report, submissions: Path) -> int:
    """Write a page for each submission that counts, and for each that could not be graded; returns their number.

    submissions: the folder that was graded, for the drawings. Pages of an earlier run that no longer belong to the report are deleted. Raises CourseError when the disk is full.
    """
    folder = report.folder / FOLDER
    zips = {one.name: one for one in find(submissions)[0]}
    written = set()
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for entry in report:
            if entry["counted"] or entry["problem"]:
                path = folder / file_name(entry)
                path.write_text(page(report, entry, zips.get(entry["zip"])), encoding="utf-8", newline="\n")
                written.add(path.name)
        for old in folder.glob("*.html"):
            if old.name not in written:
                old.unlink()
    return len(written)


def page(report: Report, entry: Entry, found: Found | None = None) -> str:
    """The page as HTML. Whatever was not written in this file goes through `text`.

    found: the zip that was graded. Without it, or where it changed since, no graph is drawn.
    """
    share, chapters = report.shares(entry)
    who = entry["student"] or "unknown"
    about = {"graded with": f"course {report.course}", "file": PurePosixPath(entry["zip"]).name}
    if report.scheme.title:
        about = {"class": report.scheme.title, **about}
    if rule := report.scheme.rule():
        about["late"] = rule
    if entry["course"]:
        about["made with"] = f"course {entry['course']}"
    made = f'<dl class="made">\n{pairs(about)}\n</dl>'
    if entry["problem"]:
        worth = '<p class="bad">Not graded</p>'
        sections = [f"<h2>Why there are no points</h2>\n<p>{text(entry['problem'])}</p>"]
    else:
        points = f"{_shown(entry['points'])} of {_shown(entry['of'])} points"
        worth = (
            f'<p class="score">{percent(share)}</p>\n{bar(share)}\n<p class="soft">of the {report.scheme.whole}, {points}, '
            f"{len(entry['tasks'])} of {len(report.tasks)} tasks handed in</p>"
        )
        drawings = _drawings(report, entry, found)
        sections = [
            _lessons(report, entry, chapters),
            *(_lesson(report, entry, chapter, ids, drawings) for chapter, ids in report.chapters.items()),
            _footer(report),
        ]
    own = [note for note in entry["notes"] if note not in entry["compared"]]
    notes = f"<h2>Notes</h2>\n{_list(own)}" if own else ""
    body = (
        f"<header>\n<div>\n<h1>The ONNX Scroll: feedback</h1>\n"
        f'<p class="who"><bdi>{text(who)}</bdi></p>\n{worth}\n</div>\n{made}\n</header>\n'
        + "\n".join(filter(None, [notes, *sections]))
    )
    return document(f"feedback for {who}", body)


def _shown(value: float) -> str:
    return shown_points(Fraction(str(value)))


def _list(sentences: list[str]) -> str:
    return "<ul>" + "".join(f"<li>{text(one)}</li>" for one in sentences) + "</ul>" if sentences else ""


def _lessons(report: Report, entry: Entry, shares: dict[int, Fraction]) -> str:
    rows = []
    for chapter, ids in report.chapters.items():
        mine = [entry["tasks"][id] for id in ids if id in entry["tasks"]]
        reached = sum(marks["earned"] for marks in mine)
        of = sum(report.tasks[id]["worth"] for id in ids)
        cells = [f"{len(mine)} of {len(ids)}", f"{_shown(reached)} of {_shown(of)}", percent(shares[chapter])]
        numbers = "".join(f'<td class="number">{cell}</td>' for cell in cells)
        rows.append(f'<tr><th scope="row">{title(chapter)}{bar(shares[chapter])}</th>{numbers}</tr>')
    share = "its points ÷ all of them" if report.scheme.title else "the mean over its tasks"
    return (
        '<h2>Lessons</h2>\n<table class="lessons">\n<caption>A task that was not handed in has no points. A lesson’s share is '
        f'{share}.</caption>\n<thead><tr><th scope="col">Lesson</th><th scope="col" class="number">Tasks handed '
        'in</th><th scope="col" class="number">Points</th><th scope="col" class="number">Share</th></tr></thead>\n'
        f"<tbody>\n{chr(10).join(rows)}\n</tbody>\n</table>"
    )


def _drawings(report: Report, entry: Entry, found: Found | None) -> dict[str, str]:
    """The graphs of the models that are not right yet, by task, where they are small enough to be read."""
    wanted = [id for id, marks in entry["tasks"].items() if report.tasks[id]["kind"] == "onnx" and not _passed(marks)]
    opened = reopened(found, entry["sha256"]) if wanted else None
    return {id: _drawing(opened, entry["tasks"][id]["file"]) for id in wanted} if opened else {}


def _drawing(opened: Submission, file: str) -> str:
    if file not in opened:  # a list may name a task whose file is not in the zip
        return ""
    try:
        graph = read_graph(opened.read(file))
    except CourseError:  # the marks say why it cannot be read
        return ""
    return f"<figure><figcaption>The graph in your file</figcaption>{svg(graph)}</figure>" if graph else ""


def _lesson(report: Report, entry: Entry, chapter: int, ids: list[str], drawings: dict[str, str]) -> str:
    """The tasks of a lesson from which something was handed in."""
    mine = [id for id in ids if id in entry["tasks"]]
    if not mine:
        return ""
    missing = [id for id in ids if id not in mine]
    left = f'<p class="soft">Not handed in: {", ".join(map(text, missing))}</p>' if missing else ""
    tasks = "\n".join(_task(report, id, entry["tasks"][id], drawings.get(id, "")) for id in mine)
    return f"<h2>{title(chapter)}</h2>\n{tasks}\n{left}"


def _passed(marks: Entry) -> bool:
    return marks["points"] == marks["of"] and not marks["problem"] and all(one["passed"] for one in marks["criteria"])


def _task(report: Report, id: str, marks: Entry, drawing: str) -> str:
    reached, of = marks["points"], marks["of"]
    colour, word = ("good", "✓ passed") if _passed(marks) else ("bad", "✗ not there yet")
    what = "goal" if report.scheme.title else "point"
    points = f"{reached} of {of} {what}{'s' * (of != 1)}"
    if any(one["condition"] and not one["passed"] for one in marks["criteria"]):
        points += ", because a condition is not met"
    if report.scheme.title:
        points += f"; {_shown(marks['earned'])} of {_shown(marks['worth'])} points"
    if id in report.scheme.due:
        late = f", {marks['late_days']} day{'s' * (marks['late_days'] != 1)} late: −{_shown(marks['lost'])} %"
        points += f"; due {shown_date(report.scheme.due[id])}{late if marks['late_days'] else ''}"
    items = "\n".join(criterion(Criterion(**one)) for one in marks["criteria"])
    parts = [
        f"<h3>{text(id)} {text(report.tasks[id]['title'])}</h3>",
        f'<p><span class="{colour}">{word}</span> <small>{points}</small></p>',
        f'<p class="bad">{text(marks["problem"])}</p>' if marks["problem"] else "",
        f'<ul class="criteria">\n{items}\n</ul>' if items else "",
        _list(marks["notes"]),
        drawing,
    ]
    return '<section class="task">\n' + "\n".join(filter(None, parts)) + "\n</section>"


_BY_MEANS = """Goals earn one
point each. A task counts its points ÷ all of its points, a lesson is the mean over its tasks, the course the mean over its lessons,
in whole percent, rounded down."""
_BY_POINTS = """Each goal that is
met earns the same part of the task’s points in this class. What was late loses what its task says. Lessons and the class count their
points ÷ all of their points, in whole percent, rounded down. The time of an answer is the date on the first of your files that holds
it, as your instructor received it."""


def _footer(report: Report) -> str:
    return f"""<footer>
<h2>How the points are counted</h2>
<p>Every task ends in a file, and the grader looked at that file alone. Conditions must all be met and earn nothing.
{_BY_POINTS if report.scheme.title else _BY_MEANS}</p>
<p>The points were counted anew from your files. Where your notebook counted otherwise, a note says so.</p>
</footer>"""
