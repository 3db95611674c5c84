"""The marks of one zip, made anew from its artefacts. What `answers.json` claims stands beside them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from .. import exercises, student
from ..classroom import fingerprint
from ..errors import CourseError
from ..exercises import VERSION, Task
from ..handin import guarded
from ..handin.assessing import LARGEST_JSON, read_json
from ..handin.keeping import FORMAT, MANIFEST
from ..handin.points import task_points
from ..version import __version__
from .intake import Submission, shown

Result = dict[str, Any]  # of a submission, or of one task in it; `results` says what is in it
_MOST_NOTES = 20  # a list of a million unknown tasks needs no million notes
_LARGEST_COUNT = 10**6


class StoppedError(Exception):
    """The run ends, and nothing that is under way counts."""


def every_task() -> dict[str, Task]:
    """All tasks of the course by id, in order."""
    return {id: it for chapter in exercises.chapters() for id, it in exercises.tasks_of(chapter).items()}


class Marker:
    """Marks submissions, for several threads at a time: each has a guarded process of its own, kept for the next answer.

    secret: an instructor's, for the hidden inputs. key: of the class, for the parameters.
    """

    def __init__(self, secret: str = "", key: str = "") -> None:
        self._secret, self._key = secret, key
        self._tasks = every_task()
        self._workers: dict[int, guarded.Worker] = {}  # by thread
        # Marks as JSON, a tenth of what they hold as objects; a Future while a thread is at it.
        self._known: dict[tuple[str, ...], str | Future[str]] = {}
        self._lock = threading.Lock()
        self._stopped = False
        self.walls: set[tuple[str, ...]] = set()  # those of each process, without repeats

    def mark(self, data: bytes) -> Result:
        """What a zip of these bytes is worth. A zip that cannot be read has a `problem`, and no tasks.

        Raises StoppedError after `stop`, and CourseError when no process can be started, or a package is missing.
        """
        result: Result = {"student": "", "course": "", "problem": "", "notes": [], "tasks": {}}
        try:
            submission = Submission(data)
            listed = _listed(submission)
        except CourseError as error:
            return result | {"problem": str(error)}
        who = listed["student"]
        course = listed.get("course")
        notes: list[str] = []
        if course != __version__:
            notes.append(f"It was made with version {_word(course)} of the course, and graded with {__version__}.")
        if listed.get("format") not in range(1, FORMAT + 1):
            notes.append(f"Its {MANIFEST} has format {_word(listed.get('format'))}, this grader knows {FORMAT}.")
        if note := _other_class(listed.get("class", ""), fingerprint(self._key)):
            notes.append(note)
        if who == student.GUEST:
            notes.append("It is under the name 'guest', which anybody has who gave no id.")
        claims: Mapping[str, Any] = listed["tasks"]
        unknown = [name for name in claims if name not in self._tasks]
        notes += [f"Task {shown(name)!r} is no part of this version of the course: not graded." for name in unknown]
        known = {MANIFEST, *(it.file for it in self._tasks.values())}
        notes += [f"The file {name!r} is no answer to a task: ignored." for name in submission.left(known)]
        if len(notes) > _MOST_NOTES:
            notes[_MOST_NOTES:] = [f"And {len(notes) - _MOST_NOTES} more of this kind."]
        tasks = {
            id: self._task(it, submission, who, claims.get(id))
            for id, it in self._tasks.items()
            if it.file in submission or id in claims
        }
        return result | {"student": who, "course": _word(course), "notes": notes, "tasks": tasks}

    def _task(self, it: Task, submission: Submission, who: str, claim: Any) -> Result:
        """The marks of one task."""
        claimed, notes = _claimed(claim)
        base: Result = {"file": it.file, "sha256": "", "points": 0, "of": it.points, "claimed": claimed, "criteria": []}
        if it.file not in submission:
            return base | {"problem": f"{it.file!r} is listed in {MANIFEST}, and it is not in the zip.", "notes": notes}
        try:
            data = submission.read(it.file)
        except CourseError as error:
            return base | {"problem": str(error), "notes": notes}
        digest = hashlib.sha256(data).hexdigest()
        if claimed is not None and digest != claim.get("sha256"):
            notes.append("It is not the file that the notebook checked: it was changed afterwards.")
        marks = self._marks(it, data, digest, who)
        if claimed is not None and claimed != [marks["points"], marks["of"]]:
            notes.append(
                f"The notebook claims {claimed[0]} of {claimed[1]} points, the grader counted {marks['points']} of {marks['of']}."
            )
        return base | {"sha256": digest, "notes": notes} | marks

    def _marks(self, it: Task, data: bytes, digest: str, who: str) -> Result:
        """Points, criteria and problem of an artefact. Equal answers of one student are checked once."""
        name = (it.id, who, digest)
        with self._lock:
            known = self._known.get(name)
            if known is None:
                self._known[name] = future = Future[str]()
        if known is None:
            try:
                known = json.dumps(self._checked(it, data, who))
            except BaseException as error:
                with self._lock:
                    del self._known[name]
                future.set_exception(error)
                raise
            self._known[name] = known
            future.set_result(known)
        marks: Result = json.loads(known if isinstance(known, str) else known.result())
        return marks

    def know(self, result: Result) -> None:
        """Take the marks of a submission that was graded before, so that answers equal to its own need no check."""
        for id, marks in result["tasks"].items():
            if marks["sha256"]:
                name = (id, result["student"], marks["sha256"])
                self._known[name] = json.dumps({key: marks[key] for key in ("points", "of", "criteria", "problem")})

    def _checked(self, it: Task, data: bytes, who: str) -> Result:
        for _ in range(2):
            verdict = guarded.examine_with(self._worker(), it, data, it.file, who, secret=self._secret, key=self._key)
            if self._stopped:
                raise StoppedError
            if verdict.lacking:
                raise CourseError(
                    f"Task {it.id} cannot be graded on this machine. {verdict.problem} Then run the same command again, and it "
                    f"goes on where it stopped."
                )
            if verdict.ended not in guarded.FROM_OUTSIDE:
                reached, of = task_points(it, verdict.criteria) if verdict.criteria else (0, it.points)
                criteria = [dataclasses.asdict(c) for c in verdict.criteria]
                return {"points": reached, "of": of, "criteria": criteria, "problem": verdict.problem}
        problem = (
            f"{it.file!r} could not be checked: the system ended the process that looked at it, twice, as it does where memory "
            f"runs out. Grade it again with fewer --workers."
        )
        return {"points": 0, "of": it.points, "criteria": [], "problem": problem}

    def _worker(self) -> guarded.Worker:
        """The process of this thread; a new one where the last was ended."""
        me = threading.get_ident()
        worker = self._workers.get(me)
        if self._stopped:
            raise StoppedError
        if worker is None or worker.child.poll() is not None:
            try:
                worker = guarded.Worker()
            except (OSError, guarded.NotStartedError) as error:
                why = getattr(error, "strerror", None) or error
                raise CourseError(
                    f"The process that looks at answers did not start ({why}): close other programs or give fewer --workers, "
                    f"then run the same command again, and it goes on where it stopped."
                ) from None
            with self._lock:
                self._workers[me] = worker
                self.walls.add(tuple(worker.walls))
            if self._stopped:
                self.stop()
        return worker

    def stop(self) -> None:
        """End all processes, also in the middle of an answer."""
        self._stopped = True
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.stop()


def _listed(submission: Submission) -> dict[str, Any]:
    """What answers.json says, as far as the grader needs it. Raises CourseError, in one sentence."""
    found = read_json(submission.read(MANIFEST, LARGEST_JSON), MANIFEST)
    if not isinstance(found, dict) or not isinstance(found.get("tasks"), dict) or "student" not in found:
        raise CourseError(f"Its {MANIFEST} is not the list that cu.submit() writes: ask for the zip anew.")
    who = found["student"]
    if not isinstance(who, str) or not student.ID.fullmatch(who):
        raise CourseError(
            f"The student's id in its {MANIFEST} is {_word(who)!r}, and an id is 1 to 64 letters, digits or any of . @ + - _: "
            f"ask who it is."
        )
    return found


def _claimed(claim: Any) -> tuple[list[int] | None, list[str]]:
    """Points and all points that answers.json claims for a task, if it does; and what is to be said of that."""
    if claim is None:
        return None, [f"It is not listed in {MANIFEST}, and graded all the same."]
    found = (claim.get("points", claim.get("passed")), claim.get("of")) if isinstance(claim, dict) else ()
    counts = [n for n in found if type(n) is int and 0 <= n <= _LARGEST_COUNT]
    if len(counts) != 2:
        return None, [f"What {MANIFEST} says of it is damaged."]
    if claim.get("checks") != VERSION:
        return counts, [
            f"The notebook counted with version {_word(claim.get('checks'))} of the checks, this is {VERSION}."
        ]
    return counts, []


def _other_class(made: Any, graded: str) -> str:
    """Where a zip was made with another class key than it is graded with: what to say of that. Both are fingerprints."""
    if made == graded:
        return ""
    first = f"with the key of the class {_word(made)}" if made else "without the key of a class"
    second = f"with that of {graded}" if graded else "without one"
    return f"It was made {first}, and graded {second}: its personal parameters were others. Was its class.json this class's own?"


def _word(value: Any) -> str:
    """A value of a JSON file that may be anything, for a sentence."""
    if isinstance(value, dict | list):
        return "a list"
    return shown(value) if isinstance(value, str) and value else shown(repr(value))
