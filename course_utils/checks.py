"""Checking an answer where it was written, and keeping it for the hand-in."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import student
from .errors import CourseError
from .exercises import Criteria, Criterion, Params, Task, hidden_inputs, personal_params, task
from .onnx_files import as_model
from .paths import WORK, write_whole

LARGEST_ARTEFACT = 64 * 2**20  # bytes; no exercise needs more
STRICT = "COURSE_STRICT"  # set by the tests: a check that does not pass raises

ANSWERS = WORK / "answers"
MANIFEST = "answers.json"


def params(task_id: str) -> Params:
    """The student's personal parameters for one task. First used in exercise 01.

    Raises CourseError before `cu.setup(student=…)` has run, or when there is no such task.
    """
    return personal_params(task(task_id), student.current())


def given(task_id: str) -> Path | list[Path]:
    """Write the files a task hands out into `work/given/` and return the path, or the paths. First used in exercise 01.

    A file that is there already and was changed is left alone and reported. Raises CourseError as `params` does.
    """
    it = task(task_id)
    if it.given is None:
        raise CourseError(f"Task {task_id} hands out no model.")
    paths = []
    for name, model in it.given(params(task_id)).items():
        path = WORK / "given" / student.current() / name
        data = model if isinstance(model, bytes) else model.SerializeToString(deterministic=True)
        if path.exists() and path.read_bytes() != data:
            print(f"{path} was changed since it was handed out; it is left as it is. Delete it to get it anew.")
        elif not path.exists():
            with write_whole(path) as stream:
                stream.write(data)
        paths.append(path)
    return paths[0] if len(paths) == 1 else paths


def hint(task_id: str, number: int = 1) -> None:
    """Print one of a task's hints: 1 says where to look, the last one nearly what to do. First used in exercise 09.

    Raises CourseError when there is no such task, or no such hint.
    """
    hints = task(task_id).hints
    if not hints:
        raise CourseError(f"Task {task_id} has no hints beside those in its text.")
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
        return bool(self.criteria) and all(c.passed for c in self.criteria)

    @property
    def score(self) -> tuple[int, int]:
        return sum(c.passed for c in self.criteria), len(self.criteria)

    def _headline(self) -> str:
        if self.problem:
            return f"Task {self.task.id}: not checked yet. {self.problem}"
        right, of = self.score
        return f"Task {self.task.id}: {'passed' if self.passed else 'not there yet'}, {right} of {of} criteria. {self.kept}"

    def __repr__(self) -> str:
        lines = [
            f"  {'✓' if c.passed else '✗'} {c.what}" + (f"\n      → {c.hint}" if c.hint else "") for c in self.criteria
        ]
        return "\n".join([self._headline(), *lines])

    def _repr_html_(self) -> str:
        colour = "#009E73" if self.passed else "#E69F00" if self.problem else "#D55E00"
        items = "".join(
            f"<li>{'✓' if c.passed else '✗'} {html.escape(c.what)}"
            + (f"<br><small>→ {html.escape(c.hint)}</small>" if c.hint else "")
            + "</li>"
            for c in self.criteria
        )
        return (
            f'<div class="check" style="border-left: 5px solid {colour}; padding: 0.4em 1em">'
            f"<b>{html.escape(self._headline())}</b>"
            f'<ul style="list-style: none; padding-left: 0.5em; margin-bottom: 0">{items}</ul></div>'
        )


def check(task_id: str, artefact: str | os.PathLike[str]) -> CheckResult:
    """Check the answer to one task and keep it for `cu.submit()`. First used in exercise 01.

    artefact: path of the file the task asks for, an ONNX model or a JSON value. The answer that meets the most criteria
    is kept, the newest of equals; your own file is never touched. A missing or unreadable file is not an error: the
    result says what to do first.
    Raises CourseError when there is no such task.
    """
    it = task(task_id)
    try:
        who, path = student.current(), _path(it, artefact)
        value = read_artefact(it, path)
    except CourseError as error:
        return _strictly(CheckResult(it, (), problem=str(error)))
    criteria = tuple(assess(it, value, who))
    result = CheckResult(it, criteria)
    kept = _keep(it, path, who, result.score)
    return _strictly(CheckResult(it, criteria, kept=kept))


def assess(it: Task, value: Any, who: str, secret: str = "") -> list[Criterion]:
    """Run a task's check on an artefact that was read. An error inside the check is a failed criterion, not a crash."""
    try:
        return it.check(value, personal_params(it, who), hidden_inputs(it, who, secret))
    except Exception as error:  # artefacts are untrusted, and every library a check calls has errors of its own
        criteria = Criteria()
        hint = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        criteria.add("the answer can be examined", False, hint)
        return criteria


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


def read_artefact(it: Task, path: Path) -> Any:
    """The ModelProto or JSON value that a file holds. Raises CourseError, in one sentence, when it holds none."""
    if not path.exists():
        raise CourseError(
            f"There is no file {str(path)!r} yet: fill in and run the cell that begins with '# Task {it.id}' first."
        )
    if path.is_file() and path.stat().st_size > LARGEST_ARTEFACT:
        raise CourseError(
            f"{str(path)!r} has {path.stat().st_size / 2**20:.0f} MiB, an answer has at most "
            f"{LARGEST_ARTEFACT // 2**20} MiB: is it the right file?"
        )
    if it.kind == "onnx":
        return as_model(path, external_data=False)
    return read_json(path)


def read_json(path: Path) -> Any:
    """A JSON value from a file. Raises CourseError, in one sentence, when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise CourseError(f"{str(path)!r} is not a JSON file ({error}): write it with json.dump.") from None


def _keep(it: Task, path: Path, who: str, score: tuple[int, int]) -> str:
    """Copy the artefact into `work/answers/<student>/` unless a better one is there; say in a few words what was done."""
    folder = ANSWERS / who
    manifest = manifest_of(folder)
    before = manifest["tasks"].get(it.id)
    if before and before["passed"] > score[0]:
        return f"An earlier answer met {before['passed']} and stays the one to hand in."
    data = path.read_bytes()
    with write_whole(folder / it.file) as stream:
        stream.write(data)
    entry = {"file": it.file, "sha256": hashlib.sha256(data).hexdigest(), "passed": score[0], "of": score[1]}
    manifest["tasks"][it.id] = entry
    with write_whole(folder / MANIFEST, "w") as stream:
        json.dump(manifest, stream, indent=2)
    return "Kept for cu.submit()."


def manifest_of(folder: Path) -> dict[str, Any]:
    """What is kept for hand-in in one student's answers folder; empty when there is nothing."""
    if not (folder / MANIFEST).exists():
        return {"format": 1, "student": folder.name, "tasks": {}}
    found = read_json(folder / MANIFEST)
    tasks = found.get("tasks") if isinstance(found, dict) else None
    if not isinstance(tasks, dict) or not all(map(_is_entry, tasks.values())):
        raise CourseError(f"{str(folder / MANIFEST)!r} is damaged: delete it and run the cu.check(…) cells again.")
    return found


def _is_entry(entry: Any) -> bool:
    """Whether this says of a kept answer what `_keep` says; its file must lie in the folder itself."""
    return (
        isinstance(entry, dict)
        and {"file": str, "sha256": str, "passed": int, "of": int}.items()
        <= {k: type(v) for k, v in entry.items()}.items()
        and re.fullmatch(r"\w[\w.-]*", entry["file"]) is not None
        and entry["file"] != MANIFEST
    )


def kept_answers(who: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What one student keeps for the hand-in: the manifest, and the bytes of each answer by task id.

    Raises CourseError when nothing was checked yet, or an answer was changed behind the check's back.
    """
    folder = ANSWERS / who
    manifest = manifest_of(folder)
    if not manifest["tasks"]:
        raise CourseError("There is no answer to hand in yet: run a cu.check(…) cell first. It keeps what it has seen.")
    answers = {}
    for name, entry in manifest["tasks"].items():
        path = folder / entry["file"]
        answers[name] = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(answers[name]).hexdigest() != entry["sha256"]:
            raise CourseError(f"The kept answer {str(path)!r} was changed or deleted: run cu.check({name!r}, …) again.")
    return manifest, answers
