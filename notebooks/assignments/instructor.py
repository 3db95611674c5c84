"""The pages for the instructor: a rubric and an answer guide. Both are made from the course, and from a run of its solutions."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from nbclient import NotebookClient
from nbformat import NotebookNode
from tqdm import tqdm

from course_utils import exercises
from course_utils.classroom import PLACE
from course_utils.exercises import Criterion
from course_utils.grading.class_file import ClassFile
from course_utils.grading.scoring import (
    Scheme,
    counted_points,
    shown_date,
    shown_points,
)
from course_utils.handin import guarded, solutions
from course_utils.handin.html_parts import titles
from course_utils.handin.points import task_points
from course_utils.words import for_markdown

SAMPLE = "sample"  # the id of the student whose answers the solutions make
_SECONDS = 600  # for one cell; the longest takes a tenth of it
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Found:
    """The criteria that a solution met. problem: why there are none, or not all of its points."""

    criteria: tuple[Criterion, ...] = ()
    problem: str = ""


def run(
    books: Mapping[str, NotebookNode], a_class: ClassFile, class_json: Path
) -> dict[str, Found]:
    """Run exercises with their solutions for the sample student, under the class's key; what was found, by task.

    books: by name. They are changed: do not hand them out afterwards.
    """
    found: dict[str, Found] = {}
    environment = {
        **os.environ, "COURSE_STUDENT": SAMPLE, PLACE: str(class_json.resolve()), "COURSE_STRICT": "", "PYTHONPATH": str(ROOT),
        "MPLBACKEND": "agg",
    }  # fmt: skip
    environment.pop("JUPYTERHUB_USER", None)
    for name, book in tqdm(
        books.items(), desc="running the solutions", unit="chapter"
    ):
        with tempfile.TemporaryDirectory() as folder:
            where = {"metadata": {"path": folder}}
            NotebookClient(
                book,
                timeout=_SECONDS,
                allow_errors=True,
                kernel_name="python3",
                resources=where,
            ).execute(env=environment)
            for id in (
                id
                for id in a_class.tasks
                if int(id.partition(".")[0]) == int(name[:2])
            ):
                found[id] = _found(id, Path(folder), a_class.key, book)
    return found


def _found(id: str, folder: Path, key: str, book: NotebookNode) -> Found:
    it = exercises.task(id)
    try:
        data = (folder / "work" / it.file).read_bytes()
    except OSError:
        return Found(
            problem=f"The solution wrote no {it.file} on this machine{_error(id, book)}."
        )
    verdict = guarded.examine(it, data, it.file, SAMPLE, key=key)
    if verdict.problem:
        return Found(verdict.criteria, verdict.problem)
    reached, of = task_points(it, verdict.criteria)
    missed = [c.hint for c in verdict.criteria if not c.passed]
    return Found(
        verdict.criteria,
        ""
        if reached == of
        else f"The solution has {reached} of {of} goals: {' '.join(missed)}",
    )


def _error(id: str, book: NotebookNode) -> str:
    for cell in book.cells:
        if cell.cell_type == "code" and re.match(
            rf"# Task {re.escape(id)}\b", cell.source
        ):
            for output in cell.outputs:
                if output.output_type == "error":
                    return f" ({output.ename}: {' '.join(output.evalue.split())[:200]})"
    return ""


def rubric(a_class: ClassFile, scheme: Scheme, found: Mapping[str, Found]) -> str:
    """Each task with its points and criteria, in Markdown."""
    goals = sum(bool(one.criteria) for one in found.values())
    parts = [
        f"# {for_markdown(a_class.title)}: rubric",
        f"{len(a_class.tasks)} tasks, {counted_points(scheme.total)}. Of a student's zips the {a_class.rule} one counts. "
        + (
            f"Late answers: {for_markdown(scheme.rule())}."
            if scheme.due
            else "There are no due dates."
        ),
        "A **condition** must be met, or the task has no points; it earns none by itself. Each **goal** that is met earns the same "
        "part of the task's points.",
        f"The criteria are those that a check looked at when the solution was run for the student `{SAMPLE}`, {goals} of "
        f"{len(found)} tasks. Numbers and names in them differ between students.",
    ]
    for chapter, ids in scheme.chapters.items():
        parts.append(f"## {chapter:02} · {for_markdown(titles().get(chapter, ''))}")
        for id in ids:
            parts += _task(id, scheme, found[id])
    return "\n\n".join(parts) + "\n"


def _task(id: str, scheme: Scheme, found: Found) -> Iterable[str]:
    it = exercises.task(id)
    worth = scheme.worth[id]
    due = f" · due {shown_date(scheme.due[id])}" if id in scheme.due else ""
    yield f"### {id} {for_markdown(it.title)}"
    yield f"**{counted_points(worth)}** · answer `{it.file}`{due}"
    if found.problem:
        yield f"> **Note** {for_markdown(found.problem)}"
    if found.criteria:
        each = shown_points(worth * Fraction(1, it.points))
        rows = [
            f"| {for_markdown(one.what)} | {'condition' if one.condition else 'goal'} | {'–' if one.condition else each} |"
            for one in found.criteria
        ]
        yield "\n".join(["| criterion | kind | points |", "|---|---|---|", *rows])


def guide(a_class: ClassFile, scheme: Scheme, sources: Mapping[int, str]) -> str:
    """Hints, a solution and its explanation with typical mistakes for each task, in Markdown. sources: of exercises, by chapter."""
    parts = [
        f"# {for_markdown(a_class.title)}: answer guide",
        "For each task: the hints that `cu.hint` shows, one solution, why it is one, and typical mistakes. Students' numbers differ.",
    ]
    for chapter, ids in scheme.chapters.items():
        parts.append(f"## {chapter:02} · {for_markdown(titles().get(chapter, ''))}")
        for id in ids:
            it = exercises.task(id)
            shown = solutions.read_solution(it, sources[chapter])
            hints = "\n".join(
                f"{number}. {for_markdown(hint)}"
                for number, hint in enumerate(it.hints, 1)
            )
            parts += [
                *(f"### {id} {for_markdown(it.title)}", f"**Hints**\n\n{hints}"),
                *(
                    f"**A solution**\n\n```python\n{shown.code}\n```",
                    f"**Why, and typical mistakes**\n\n{shown.text}",
                ),
            ]
    return "\n\n".join(parts) + "\n"
