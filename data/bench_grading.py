"""How fast the grader is, alone and beside nbgrader, for `data/bench.py`. Needs the extra `grading`, and the tests' answers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from submissions import right, submission  # noqa: E402
from synthetic import Watch, unlike  # noqa: E402

from course_utils.exercises import task, tasks_of  # noqa: E402
from course_utils.grading.marking import Marker, every_task  # noqa: E402

STUDENTS = tuple(f"bench-{n}" for n in range(7))  # the first one's answers are for warming up
CHAPTERS = ("01_graph_structure", "04_dynamic_axes")
HANDED_IN = 2  # notebooks of each chapter that nbgrader is given


def measure_grading() -> dict[str, Any]:
    """Core-seconds of a full course, submissions a second with one and two workers, memory, and the ratio to nbgrader."""
    print("grading")
    every = list(every_task())
    alone, both = (_graded(every, workers) for workers in (1, 2))
    rows = []
    for chapter in CHAPTERS:
        theirs = _nbgrader(chapter)
        ours = _graded(tasks_of(int(chapter[:2])), 1)["seconds"]
        rows.append({"chapter": chapter, "nbgrader": round(theirs, 2), "grader": round(ours, 4)})
        print(f"  {chapter:32} nbgrader {theirs:6.1f} s   grader {ours:7.3f} s   {theirs / ours:6.0f} ×", flush=True)
    found = {
        "tasks": len(every),
        "students": len(STUDENTS) - 1,
        "core_seconds": round(alone["core_seconds"], 3),
        "a_second": {"1": round(1 / alone["seconds"], 2), "2": round(1 / both["seconds"], 2)},
        "peak_mib": round(max(alone["peak_mib"], both["peak_mib"])),
        "lost": alone["lost"],
        "nbgrader": rows,
    }
    print(
        f"  {found['core_seconds']} core-seconds a course, {found['a_second']} submissions/s, {found['peak_mib']} MiB"
    )
    return found


def ratio(found: dict[str, Any]) -> float:
    """How many times longer nbgrader takes for the same exercises."""
    return sum(row["nbgrader"] for row in found["nbgrader"]) / sum(row["grader"] for row in found["nbgrader"])


def _graded(tasks: Iterable[str], workers: int) -> dict[str, Any]:
    """Right answers of several students, marked by processes that have marked one submission before.

    Returns for each submission `seconds` and `core_seconds` of those processes; `peak_mib` of the largest one; and the tasks
    in which a right answer has lost points, as it does where a processor computes int8 less exactly.
    """
    tasks = list(tasks)

    def zipped(who: str, number: int) -> bytes:
        return submission(who, {id: unlike(task(id), right(id, who), number) for id in tasks})

    first = [zipped(STUDENTS[0], number) for number in range(workers)]
    zips = [
        zipped(who, 0) for who in STUDENTS[1:]
    ]  # one of each: what a process keeps of a student would help the second
    marker, together = Marker("bench"), threading.Barrier(workers)

    def warm(data: bytes) -> None:
        together.wait()  # one for each thread
        marker.mark(data)

    with ThreadPoolExecutor(workers) as pool, Watch() as watch:
        try:
            list(pool.map(warm, first))
            before, start = _core_seconds(), time.perf_counter()
            results = list(pool.map(marker.mark, zips))
            seconds, core_seconds = time.perf_counter() - start, _core_seconds() - before
        finally:
            marker.stop()
    lost = {id for result in results for id, marks in result["tasks"].items() if marks["points"] != marks["of"]}
    return {
        "lost": sorted(lost, key=tasks.index),
        "seconds": seconds / len(zips),
        "core_seconds": core_seconds / len(zips),
        "peak_mib": watch.one / 2**20,
    }


def _core_seconds() -> float:
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(t.user + t.system for t in times)


def _nbgrader(chapter: str) -> float:
    """Seconds that `nbgrader autograde` takes for a notebook in which every task is solved."""
    with tempfile.TemporaryDirectory(prefix="nbgrader-") as place:
        course = Path(place)
        solved = course / "solved"
        subprocess.run(
            [sys.executable, ROOT / "notebooks" / "generate.py", "--solutions", solved], check=True, capture_output=True
        )
        book = next(solved.rglob(f"{chapter}.ipynb")).read_bytes()
        for folder in (f"source/{chapter}", *(f"submitted/s{n}/{chapter}" for n in range(HANDED_IN))):
            (course / folder).mkdir(parents=True)
            (course / folder / f"{chapter}.ipynb").write_bytes(book)
        _run(course, "generate_assignment", chapter)
        start = time.perf_counter()
        _run(course, "autograde", chapter, "--Execute.timeout=600")
        seconds = time.perf_counter() - start
        if len(list(course.glob(f"autograded/*/{chapter}/*.ipynb"))) != HANDED_IN:
            raise RuntimeError(f"nbgrader has not graded all notebooks of {chapter}")
    return seconds / HANDED_IN


def _run(course: Path, command: str, *more: str) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls alembic
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    done = subprocess.run(
        [sys.executable, "-m", "nbgrader", command, *more, "--course-dir", course], cwd=course, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"nbgrader {command}: {done.stderr[-2000:]}")
