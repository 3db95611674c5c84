"""A run of the grader: zips in, marks into the journal, and the results when all are there."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from ..errors import CourseError
from ..handin.walls import ALL
from .class_file import ClassFile
from .cluster import Cluster
from .intake import Found, content, find, shown
from .journal import NAME, Journal, settings, writing
from .marking import Marker, Result, StoppedError
from .results import Row, compare, row, summary, write
from .scoring import Scheme, head

_LOCK = ".lock"


def grade(
    submissions: Path,
    report: Path,
    *,
    workers: int = 1,
    rule: str = "last",
    secret: str = "",
    key: str = "",
    scheduler: str = "",
    a_class: ClassFile | None = None,
) -> str:
    """Grade all zips in a folder; returns a summary in a few lines. What a run that was killed has graded stays graded.

    report: a folder of its own for everything that is written. workers: answers that are examined at a time. rule: which of
    a student's zips counts, "last" or "best". secret: for the hidden inputs. key: the class's, for the parameters.
    scheduler: the address of a Dask scheduler, whose workers examine the answers in place of this machine. a_class: its rule
    and its key go before those two, and it says which tasks count, how much, and until when.
    Raises CourseError, in one sentence: the next run with the same arguments goes on.
    """
    _apart(submissions, report)
    found, ignored = find(submissions)
    if not found:
        raise CourseError(
            f"There is no zip in {shown(str(submissions))!r}, nor in a folder in it: is it the right folder?"
        )
    if a_class:
        rule, key = a_class.rule, a_class.key
    about = settings(secret, key)
    counted = head(a_class)
    scheme = Scheme(counted["tasks"], counted["class"])
    with _alone(report), contextlib.closing(Journal(report, about)) as journal:
        marker = Cluster(scheduler, secret, key) if scheduler else Marker(secret, key)
        under_way = marker.under_way if isinstance(marker, Cluster) else workers
        rows, others = _graded(found, journal, marker, scheme, under_way)
        rows.sort(key=lambda r: os.fsencode(r.found.name))
        compare(rows, rule, scheme)
        write(
            report,
            rows,
            lambda r: others.get(r.found.name) or journal[r.digest],
            about | counted,
            rule,
            scheme,
            ignored,
        )
    return "\n".join([summary(rows, ignored, scheme.whole), *_walls(marker.walls)])


def _walls(walls: set[tuple[str, ...]]) -> list[str]:
    """A line on what stood around each answer; none where nothing was examined."""
    if not walls:
        return []
    stand = [wall for wall in ALL if all(wall in one for one in walls)]
    missing = [wall for wall in ALL if wall not in stand]
    return [f"Walls around each answer: {', '.join(stand)}." + f" Missing: {', '.join(missing)}." * bool(missing)]


def _apart(submissions: Path, report: Path) -> None:
    """Raise CourseError where the report would lie among what is handed in, or the other way round, or among other files."""
    here, there = submissions.resolve(), report.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise CourseError(
            f"The report {shown(str(report))!r} and the submissions {shown(str(submissions))!r} lie in each other: give a folder "
            f"apart from them for --out."
        )
    try:
        names = os.listdir(there)
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise CourseError(
            f"{shown(str(report))!r} cannot be the report's folder ({error.strerror}): give another for --out."
        ) from None
    if set(names) - {_LOCK} and NAME not in names:
        raise CourseError(
            f"{shown(str(report))!r} holds other files, such as {shown(min(set(names) - {_LOCK}))!r}: give a new or empty folder for --out."
        )


@contextlib.contextmanager
def _alone(report: Path) -> Iterator[None]:
    """Make the folder, and keep a second grader out of it."""
    with writing(report / NAME):
        report.mkdir(parents=True, exist_ok=True)
        lock = FileLock(report / _LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise CourseError(
                f"Another grader writes into {shown(str(report))!r} at this moment: wait for it, or give another folder for --out."
            ) from None
    try:
        yield
    finally:
        lock.release()


def _graded(
    found: list[Found], journal: Journal, marker: Marker | Cluster, scheme: Scheme, workers: int
) -> tuple[list[Row], dict[str, Result]]:
    """A row for each submission; and by name the results of those that could not be read, which no journal keeps."""
    for digest in journal:
        marker.know(journal[digest])
    done: queue.SimpleQueue[tuple[Found, str, Result | BaseException | None]] = queue.SimpleQueue()
    before = frozenset(journal)

    def one(it: Found) -> None:
        digest = ""
        try:
            data = content(it)
            digest = hashlib.sha256(data).hexdigest()
        except CourseError as error:
            done.put((it, "", _nothing(str(error))))
            return
        except MemoryError:
            done.put((it, "", _nothing("There was not enough memory to read it: grade it again with fewer --workers.")))
            return
        try:
            done.put((it, digest, None if digest in before else marker.mark(data)))
        except BaseException as error:
            done.put((it, digest, error))

    rows: list[Row] = []
    others: dict[str, Result] = {}
    pool = ThreadPoolExecutor(workers)
    try:
        with tqdm(total=len(found), desc="grading", unit="zip", smoothing=0.1) as bar:
            for it in found:
                pool.submit(one, it)
            for _ in found:
                it, digest, result = done.get()
                if isinstance(result, CourseError | StoppedError):
                    raise result
                if isinstance(result, BaseException):  # a fault of the grader itself, and no other zip suffers from it
                    result = _nothing(
                        f"The grader failed at it ({type(result).__name__}: {shown(str(result))}): tell the course."
                    )
                    others[it.name] = result
                elif result is not None and not digest:
                    others[it.name] = result
                elif result is not None and digest not in journal:
                    journal.add(digest, result)
                rows.append(row(it, digest, others.get(it.name) or journal[digest], scheme))
                if digest in before:
                    bar.total -= 1  # it took no time, and says nothing about the time that is left
                    bar.refresh()
                else:
                    bar.update()
    finally:
        marker.stop()
        pool.shutdown(cancel_futures=True)
    return rows, others


def _nothing(problem: str) -> Result:
    return {"student": "", "course": "", "problem": problem, "notes": [], "tasks": {}}
