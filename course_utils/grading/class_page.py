"""The page on the class: how the points lie, what was hardest, when files came in, what to look at."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction

from ..handin.html_parts import bar, document, pairs, text, title
from ..handin.points import percent
from .feedback import FOLDER, file_name
from .figures import BINS, Figures
from .intake import shown
from .journal import whole
from .reading import Entry, Report
from .scoring import shown_date, shown_points
from .similar import SIMILAR, Group

CLASS = "class.html"
_MOST = 15  # rows of a list of the hardest
_MOST_GROUPS = 50  # of alike answers; all are in similar.json
_MOST_MEMBERS = 6
_WIDE, _HIGH, _FOOT = 320, 150, 24  # of a chart, in its own units


def write(report: Report, all_: Figures, groups: list[Group]) -> None:
    """Write `class.html`. Raises CourseError when the disk is full."""
    with whole(report.folder / CLASS) as stream:
        stream.write(page(report, all_, groups))


def page(report: Report, all_: Figures, groups: list[Group]) -> str:
    """The page as HTML. Whatever was not written in this file goes through `text`."""
    n = len(all_.shares)
    lists = _Lists(report)
    about = {
        "graded with": f"course {report.course}", "submissions": str(all_.zips), "grades": str(n),
        "not graded": str(len(lists.problems)), "of several zips": f"the {'last' if report.rule == 'last' else 'best'} counts",
    }  # fmt: skip
    if report.scheme.title:
        about = {"class": report.scheme.title, **about}
    if rule := report.scheme.rule():
        dates = sorted({*report.scheme.due.values()})
        about |= {"due": " · ".join(map(shown_date, dates)), "late": rule}
    body = (
        f"<header>\n<div>\n<h1>The ONNX Scroll: the class</h1>\n"
        f'<p class="who">{n} grade{"s" * (n != 1)}</p>\n'
        + (
            f'<p class="score">{percent(all_.median)}</p>\n{bar(all_.median)}\n<p class="soft">of the {report.scheme.whole}, the median</p>\n'
            if n
            else ""
        )
        + f'</div>\n<dl class="made">\n{pairs(about)}\n</dl>\n</header>\n'
    )
    sections = [
        _distribution(all_) if n else "",
        _lessons(report, all_) if n else "",
        _hardest_tasks(report, all_),
        _hardest_criteria(all_),
        _timeline(all_) if n else "",
        lists.to_look_at(all_),
        _alike(groups),
        lists.students(),
    ]
    return document("the class", body + "\n".join(filter(None, sections)))


def _table(caption: str, heads: list[str], rows: Iterable[list[str]], numbers: int) -> str:
    """A table whose first column names the row and whose last `numbers` columns are numbers. rows: HTML."""
    first = len(heads) - numbers

    def attributes(column: int) -> str:
        return ' class="number"' if column >= first else ""

    head = "".join(f'<th scope="col"{attributes(c)}>{name}</th>' for c, name in enumerate(heads))
    lines = [
        f'<tr><th scope="row">{one}</th>'
        + "".join(f"<td{attributes(c)}>{value}</td>" for c, value in enumerate(rest, 1))
        + "</tr>"
        for one, *rest in rows
    ]
    return (
        f'<table class="figures">\n<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{chr(10).join(lines)}\n</tbody>\n</table>"
    )


def _chart(counts: list[int], names: list[str], says: str) -> str:
    """Columns with their numbers above and names below. A name may be empty."""
    step, most = _WIDE / len(counts), max(*counts, 1)
    parts = []
    for place, (count, name) in enumerate(zip(counts, names, strict=True)):
        high = (_HIGH - 2 * _FOOT) * count / most
        middle, top = (place + 0.5) * step, _HIGH - _FOOT - high
        parts.append(
            f'<rect x="{middle - 0.42 * step:.1f}" y="{top:.1f}" width="{0.84 * step:.1f}" height="{high:.1f}"/>'
        )
        if count and step > 1 + 6.5 * len(str(most)):
            parts.append(f'<text x="{middle:.1f}" y="{top - 5:.1f}">{count}</text>')
        if name:
            parts.append(f'<text class="name" x="{middle:.1f}" y="{_HIGH - 8}">{text(name)}</text>')
    line = f'<path d="M0 {_HIGH - _FOOT}h{_WIDE}"/>'
    return f'<svg class="chart" viewBox="0 0 {_WIDE} {_HIGH}" role="img" aria-label="{text(says)}">{line}{"".join(parts)}</svg>'


def _distribution(all_: Figures) -> str:
    counts = all_.distribution()
    width = 100 // BINS
    ranges = [f"{n * width} to {n * width + width - 1 + (n == BINS - 1)} %" for n in range(BINS)]
    says = "Grades: " + ", ".join(f"{count} with {name}" for name, count in zip(ranges, counts, strict=True) if count)
    names = [f"{n * width}" for n in range(BINS)]
    ends = f"The lowest is {percent(all_.shares[0])}, the highest {percent(all_.shares[-1])}."
    return (
        f"<h2>Distribution</h2>\n<p>How many grades lie in each tenth, named by the percent where it begins. {ends}</p>\n"
        f"{_chart(counts, names, says)}"
    )


def _lessons(report: Report, all_: Figures) -> str:
    def row(chapter: int, ids: list[str]) -> list[str]:
        answers = sum(all_.tasks[id].handed_in for id in ids)
        share = all_.chapters[chapter]
        return [title(chapter) + bar(share), f"{answers} of {len(ids) * len(all_.shares)}", percent(share)]

    return "<h2>Lessons</h2>\n" + _table(
        "The mean is over all grades; a task that was not handed in counts 0.",
        ["Lesson", "Answers", "Mean"], [row(chapter, ids) for chapter, ids in report.chapters.items()], 2,
    )  # fmt: skip


def _hardest_tasks(report: Report, all_: Figures) -> str:
    rows = [
        [
            f"{text(id)} {text(report.tasks[id]['title'])}{bar(it.mean)}",
            f"{it.handed_in}", f"{it.full}", percent(it.mean),
        ]
        for id, it in all_.hardest_tasks(_MOST)
    ]  # fmt: skip
    if not rows:
        return ""
    return "<h2>Hardest tasks</h2>\n" + _table(
        "The mean is over those who handed the task in.",
        ["Task", "Handed in", "All points", "Mean"], rows, 3,
    )  # fmt: skip


def _hardest_criteria(all_: Figures) -> str:
    rows = [
        [f"{text(id)} {text(what)}", f"{it.missed} of {it.reached}", percent(Fraction(it.missed, it.reached))]
        for id, what, it in all_.hardest_criteria(_MOST)
    ]
    if not rows:
        return ""
    return "<h2>Hardest criteria</h2>\n" + _table(
        "Not met, of the answers that got as far as this criterion. Numbers that differ between students are shown as “…”.",
        ["Criterion", "Not met", "Share"], rows, 2,
    )  # fmt: skip


def _day(time: int) -> datetime.date:
    return datetime.datetime.fromtimestamp(time, datetime.UTC).date()


def _timeline(all_: Figures) -> str:
    """By day, if the files' dates tell anything."""
    head = "<h2>Time line</h2>\n"
    if not all_.times:
        return f"{head}<p>The files have no dates.</p>"
    first, last = _day(all_.times[0]), _day(all_.times[-1])
    if all_.at_once():
        return (
            f"{head}<p>All files have nearly the same date, {last} (UTC). That is when they were copied or unpacked, and not "
            f"when they were handed in: so there is no time line.</p>"
        )
    days = (last - first).days + 1
    per = -(-days // 31)  # days in a column
    counts = Counter((_day(time) - first).days // per for time in all_.times)
    columns = [counts[n] for n in range(-(-days // per))]
    every = -(-len(columns) // 6)
    starts = [first + datetime.timedelta(days=n * per) for n in range(len(columns))]
    names = [f"{start:%m-%d}" if n % every == 0 else "" for n, start in enumerate(starts)]
    says = "Files: " + ", ".join(f"{count} from {start}" for start, count in zip(starts, columns, strict=True) if count)
    return (
        f"{head}<p>The files that count, by the date on each file, {first} to {last} (UTC){f', {per} days in a column' if per > 1 else ''}. "
        f"An LMS may set this date when it packs them, and a computer when it copies them: the times in the LMS are the ones to trust. "
        f"A zip of this course has no dates inside.</p>\n{_chart(columns, names, says)}"
    )


class _Lists:
    """What is listed by name, gathered in one pass."""

    def __init__(self, report: Report) -> None:
        self.ignored = report.ignored
        self.problems: list[tuple[str, str]] = []
        self.compared: list[tuple[str, list[str]]] = []
        self.unchecked: list[tuple[str, str]] = []
        self._rows: list[tuple[str, list[str]]] = []
        self._late = ["Days late"] if report.scheme.due else []
        for entry in report:
            name = shown(entry["zip"])
            if entry["problem"]:
                self.problems.append((name, entry["problem"]))
            elif entry["compared"]:
                self.compared.append((name, entry["compared"]))
            stuck = [f"{id}: {marks['problem']}" for id, marks in entry["tasks"].items() if marks["problem"]]
            if entry["counted"]:
                self.unchecked += [(name, sentence) for sentence in stuck]
                self._rows.append((entry["student"], self._row(report, entry)))

    @staticmethod
    def _row(report: Report, entry: Entry) -> list[str]:
        link = f'<a href="{FOLDER}/{text(file_name(entry))}"><bdi>{text(entry["student"])}</bdi></a>'
        late = max((marks["late_days"] for marks in entry["tasks"].values()), default=0)
        points = shown_points(Fraction(str(entry["points"])))
        return [
            link,
            str(len(entry["tasks"])),
            *([str(late)] if report.scheme.due else []),
            points,
            percent(report.shares(entry)[0]),
        ]

    def to_look_at(self, all_: Figures) -> str:
        parts = [
            _sentences("Not graded", self.problems),
            _sentences("Answers that could not be checked, or not to the end", self.unchecked),
            _sentences(
                "Several zips, one id, or a name that does not fit", [(n, " ".join(s)) for n, s in self.compared]
            ),
            _sentences(
                "The notebook claims more points than were counted",
                [(shown(c["zip"]), ", ".join(c["tasks"])) for c in all_.claims],
            ),
            _sentences("Files that are no zips", [(name, "") for name in self.ignored]),
        ]
        found = "\n".join(filter(None, parts))
        return f"<h2>To look at</h2>\n{found or '<p>Nothing.</p>'}"

    def students(self) -> str:
        if not self._rows:
            return ""
        return "<h2>Students</h2>\n" + _table(
            "Each name leads to the page of feedback." + " Days late are those of the latest task." * bool(self._late),
            ["Student", "Tasks", *self._late, "Points", "Share"], [row for _, row in sorted(self._rows)], 3 + len(self._late),
        )  # fmt: skip


def _sentences(heading: str, found: list[tuple[str, str]]) -> str:
    if not found:
        return ""
    items = "\n".join(f"<li><bdi>{text(name)}</bdi>{': ' if says else ''}{text(says)}</li>" for name, says in found)
    return f"<details{' open' if len(found) <= 20 else ''}>\n<summary>{heading}: {len(found)}</summary>\n<ul>{items}</ul>\n</details>"


def _alike(groups: list[Group]) -> str:
    """The answers of different students that are alike, without those that half of the class has."""
    telling = [group for group in groups if not group.common]
    head = (
        f"<h2>Answers that are alike</h2>\n<p>Students’ numbers differ, so right answers differ, too. What is alike is a reason to ask, and "
        f"no proof. All of them: <code>{SIMILAR}</code>.</p>\n"
    )
    if not telling:
        return f"{head}<p>None were found.</p>"
    rest = len(telling) - _MOST_GROUPS
    more = f"<p>And {rest} more.</p>" if rest > 0 else ""
    return head + "\n".join(map(_group, telling[:_MOST_GROUPS])) + more


def _group(group: Group) -> str:
    what = "the same file" if group.alike == "bytes" else "other files with the same weights"
    people = len({member.student for member in group.members})
    items = [
        f"<li><bdi>{text(member.student)}</bdi> <small>{member.points} of {member.of} points"
        + ("" if member.fits else "; made for another’s parameters")
        + f", <bdi>{text(shown(member.zip))}</bdi></small></li>"
        for member in group.members[:_MOST_MEMBERS]
    ]
    rest = len(group.members) - _MOST_MEMBERS
    if rest > 0:
        items.append(f"<li>and {rest} more</li>")
    chance = "; they were given the same numbers, so right answers may agree by chance" if group.same_parameters else ""
    return (
        f'<section class="task">\n<h3>{text(group.task)}: {what}</h3>\n<p class="soft">{people} of {group.handed_in} who handed it '
        f"in{chance}</p>\n<ul>{''.join(items)}</ul>\n</section>"
    )
