"""Checking an answer where it was written, and keeping it for the hand-in."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import classroom, student
from ..errors import CourseError
from ..exercises import Criterion, Params, Task, personal_params, task
from ..paths import WORK, NoOrdinaryFileError, TooLargeError, read_limited, write_whole
from . import guarded, keeping
from .assessing import LARGEST_ARTEFACT
from .points import task_points

STRICT = "COURSE_STRICT"  # set by the tests: a check that does not pass raises


def params(task_id: str) -> Params:
    """The student's personal parameters for one task, without those that hold an answer. First used in exercise 01.

    Raises CourseError before `cu.setup(student=…)` has run, or when there is no such task.
    """
    it = task(task_id)
    drawn = personal_params(it, student.current(), classroom.current().key)
    return {name: value for name, value in drawn.items() if name not in it.hidden}


def given(task_id: str) -> Path | list[Path]:
    """Write the files a task hands out into `work/given/` and return the path, or the paths. First used in exercise 01.

    A file that is there already and was changed is left alone and reported. Raises CourseError as `params` does.
    """
    it = task(task_id)
    if it.given is None:
        raise CourseError(f"Task {task_id} hands out no model.")
    paths = []
    key = classroom.current().key
    # A class has files of its own, so that those of another one are never taken for changed ones.
    folder = WORK / "given" / student.current() / classroom.fingerprint(key)
    for name, model in it.given(personal_params(it, student.current(), key)).items():
        path = folder / name
        data = model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)
        try:
            if read_limited(path, len(data)) != data:
                raise OSError
        except FileNotFoundError:
            with write_whole(path) as stream:
                stream.write(data)
        except OSError:  # longer than it was, or a folder by now
            print(f"{path} was changed since it was handed out; it is left as it is. Delete it to get it anew.")
        paths.append(path)
    return paths[0] if len(paths) == 1 else paths


def hint(task_id: str, number: int = 1) -> None:
    """Print one of a task's hints: 1 says where to look, the last one nearly what to do. First used in exercise 01.

    Raises CourseError when there is no such task, or no such hint.
    """
    hints = task(task_id).hints
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= len(hints):
        raise CourseError(f"Task {task_id} has no hint {number!r}: they are numbered from 1 to {len(hints)}.")
    print(f"Hint {number} of {len(hints)}: {hints[number - 1]}")


@dataclass(frozen=True)
class CheckResult:
    """What `check()` shows. problem: why nothing could be checked. kept: whether this is now the answer to hand in."""

    task: Task
    criteria: tuple[Criterion, ...]
    problem: str = ""
    kept: str = ""

    @property
    def passed(self) -> bool:
        reached, of = self.score
        return bool(self.criteria) and all(c.passed for c in self.criteria) and reached == of

    @property
    def score(self) -> tuple[int, int]:
        """Points reached, and points of a right answer."""
        return task_points(self.task, self.criteria)

    def _headline(self) -> str:
        if self.problem:
            return f"Task {self.task.id}: not checked yet. {self.problem}"
        reached, of = self.score
        points = f"{reached} of {of} point{'s' * (of != 1)}"
        if not all(c.passed for c in self.criteria if c.condition):
            points += ", because a condition (●) is not met"
        return f"Task {self.task.id}: {'passed' if self.passed else 'not there yet'}, {points}. {self.kept}"

    def _lines(self) -> Iterator[tuple[str, str]]:
        """Each criterion with its mark, and what to do about it; a cause that was just named is not repeated."""
        named = set()
        for c in self.criteria:
            match = _SIZE.fullmatch(c.hint)
            assert match is not None  # it fits any text of one line
            size, cause = match.groups("")
            mark = f"{'● ' * c.condition}{'✓' if c.passed else '✗'}"
            yield f"{mark} {c.what}", f"{size}The cause is the same." if cause and cause in named else c.hint
            named.add(cause)

    def _legend(self) -> str:
        return _LEGEND if any(c.condition for c in self.criteria) else ""

    def __repr__(self) -> str:
        lines = [f"  {what}" + (f"\n      → {hint}" if hint else "") for what, hint in self._lines()]
        return "\n".join(filter(None, [self._headline().rstrip(), *lines, self._legend() and f"  {self._legend()}"]))

    def _repr_html_(self) -> str:
        colour = "#009E73" if self.passed else "#E69F00" if self.problem else "#D55E00"
        items = "".join(
            f"<li>{html.escape(what)}" + (f"<br><small>→ {html.escape(hint)}</small>" if hint else "") + "</li>"
            for what, hint in self._lines()
        )
        return (
            f'<div class="check" style="border-left: 5px solid {colour}; padding: 0.4em 1em">'
            f"<b>{html.escape(self._headline())}</b>"
            f'<ul style="list-style: none; padding-left: 0.5em; margin-bottom: 0">{items}</ul>'
            f"<small>{self._legend()}</small></div>"
        )


_LEGEND = "● A condition: it earns no points, and without it nothing does."
_SIZE = re.compile(r"(The largest difference is \S+\. )?(.*)")  # what differs from one criterion to the next


def check(task_id: str, artefact: str | os.PathLike[str]) -> CheckResult:
    """Check the answer to one task and keep it for `cu.submit()`. First used in exercise 01.

    artefact: path of the file the task asks for, an ONNX model or a JSON value. It is examined in a process of its own,
    with limits of time and memory. The answer with the most points is kept, the newest of equals; your own file is never
    touched. A missing or unreadable file is not an error: the result says what to do first.
    Raises CourseError when there is no such task.
    """
    it = task(task_id)
    try:
        who, path = student.current(), _path(it, artefact)
        data = read_artefact(it, path)
    except CourseError as error:
        return _strictly(CheckResult(it, (), problem=str(error)))
    verdict = guarded.examine(it, data, str(path), who, key=classroom.current().key)
    if verdict.problem:
        return _strictly(CheckResult(it, (), problem=verdict.problem))
    result = CheckResult(it, verdict.criteria)
    try:
        said = keeping.keep(it, data, who, result.score)
    except CourseError as error:  # what was found out is shown in any case
        said = f"Not kept for cu.submit(): {error}"
    return _strictly(CheckResult(it, verdict.criteria, kept=said))


def _strictly(result: CheckResult) -> CheckResult:
    assert result.passed or not os.environ.get(STRICT), repr(result)
    return result


def _path(it: Task, artefact: Any) -> Path:
    if not isinstance(artefact, str | os.PathLike):
        raise CourseError(
            f"A path was expected, such as 'work/{it.file}', and this is a {type(artefact).__name__}: write the file "
            f"first, then check it."
        )
    return Path(artefact)


def read_artefact(it: Task, path: Path) -> bytes:
    """The bytes of an answer's file. Raises CourseError, in one sentence, when it cannot be one."""
    name, example = _shortened(str(path)), f"'work/{it.file}'"
    try:
        return read_limited(path, LARGEST_ARTEFACT)
    except FileNotFoundError:
        said = f"There is no file {name!r} yet: fill in and run the cell that begins with '# Task {it.id}' first."
    except IsADirectoryError:
        said = f"{name!r} is a folder: give the path of the file in it, such as {example}."
    except NoOrdinaryFileError:
        said = f"{name!r} is no ordinary file: write the answer into one, such as {example}."
    except TooLargeError:
        said = (
            f"{name!r} is larger than {LARGEST_ARTEFACT // 2**20} MiB, and no answer needs more: is it the right file?"
        )
    except (OSError, ValueError) as error:  # ValueError: a name no file can have
        reason = getattr(error, "strerror", None) or error
        said = f"The file {name!r} cannot be read ({reason}): check its name and rights."
    raise CourseError(said)


def _shortened(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:100]}…"
