"""Grade many made-up submissions whose marks are known, and compare all of them: `python tests/synthetic.py 1000 --workers 2`.

Right answers, typical mistakes, another student's answers, handed-out files given back, files that are none, and zips that mean
harm. They come from the registries of the exercises' tests, for a pool of students, since making a right answer takes
longer than grading it. So students, and what their answers compute, come again; but no two files have the same bytes, and
so none of them is spared its check.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, it finds its own folder alone
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import hostile
import psutil
from answers import given_files
from submissions import _file, _registry, put, submission
from test_guarded import HOSTILE

from course_utils.exercises import Task, personal_params, task
from course_utils.grading.journal import NAME
from course_utils.grading.marking import every_task
from course_utils.grading.runs import grade

SECRET = "exam"
STUDENTS = tuple(f"made-up-{n}" for n in range(20))
KINDS = {"right": 8, "wrong": 4, "mixed": 6, "zip that means harm": 2}  # of 20 submissions each
SMALL_ANSWERS = {"8.4"}  # a part of it is a number below ten: two students may well have the same one
Truth = tuple[int, int]  # points: at least, at most


def unlike(it: Task, data: bytes, number: int) -> bytes:
    """The same answer in other bytes: blanks behind a JSON value, the field model_version of a model."""
    if it.kind == "json":
        return data + "".join(" \t"[bit == "1"] for bit in f"{number:016b}").encode()
    digits = number + 128  # a varint of two bytes or more, whatever the number
    varint = bytearray()
    while digits:
        varint.append(digits & 127 | (128 if digits > 127 else 0))
        digits >>= 7
    return data + b"\x28" + bytes(varint)


@cache
def _answers(id: str, who: str) -> dict[str, list[tuple[bytes, Truth]]]:
    """Kind → answers with the points that they are worth."""
    it = task(id)
    full, fewer, none = (it.points, it.points), (0, it.points - 1), (0, 0)
    mistakes = [_file(id, make(who)) for make, _ in _registry(id, "WRONG").values()]
    other = STUDENTS[(STUDENTS.index(who) + 1) % len(STUDENTS)]
    others = (0, it.points) if _share(it, who, other) else none
    return {
        "right": [(_file(id, road(who)), full) for road in _registry(id, "RIGHT")],
        "wrong": [(data, fewer) for data in mistakes]
        + [(data, none) for name, data in given_files(id, who).items() if name.endswith(it.kind)]
        + [(_file(id, _registry(id, "RIGHT")[0](other)), others), (b"\xff\xfe no answer", none), (b"", none)],
    }


def _share(it: Task, one: str, other: str) -> bool:
    """Whether two students drew one of their parameters alike: then a part of one's answer is right for the other, too."""
    drawn = {who: personal_params(it, who) for who in STUDENTS}
    theirs = [name for name in drawn[one] if len({repr(p[name]) for p in drawn.values()}) > 1]
    return it.id in SMALL_ANSWERS or any(drawn[one][name] == drawn[other][name] for name in theirs)


@dataclass
class Made:
    """A submission: its kind, and what is known of it. points: by task. says: what must be said, where it has no points."""

    kind: str
    points: dict[str, Truth] = field(default_factory=dict)
    says: str = ""


def make(folder: Path, count: int, tasks: Iterable[str], students: Iterable[str], bad_models: int) -> dict[str, Made]:
    """Write zips into a folder; returns what is known of each, by the name of its file."""
    tasks, students = list(tasks), list(students)
    kinds = [kind for kind, share in KINDS.items() for _ in range(share)]
    zips = list(hostile.PLAIN.items())
    found = {}

    def packed_away(name: str, who: str, files: dict[str, bytes]) -> Path:
        return put(folder, name, submission(who, files))

    pool, packing = ThreadPoolExecutor(2), deque[Future[Path]]()  # what a full course packs has 25 MB
    for number in range(count):
        rng, kind, who = Random(number), kinds[number * 7 % len(kinds)], students[number % len(students)]
        name = f"{number:04}.zip"
        if kind not in ("right", "wrong", "mixed"):
            title, (write, says) = zips[number % len(zips)]
            write(folder / name, who)
            found[name] = Made(title, says=says)
            continue
        made, files = Made(kind), {}
        for id in tasks:
            chosen = kind if kind != "mixed" else rng.choice(["right", "wrong", "none"])
            if chosen != "none":
                data, made.points[id] = rng.choice(_answers(id, who)[chosen])
                files[id] = unlike(task(id), data, number) if data else data
        packing.append(pool.submit(packed_away, name, who, files))
        if len(packing) > 4:  # each of them holds its bytes
            packing.popleft().result()
        found[name] = made
    for done in packing:
        done.result()
    pool.shutdown()
    for number, (title, (build, _)) in enumerate(list(HOSTILE.items())[:bad_models]):
        name, who = f"model-{number}.zip", students[0]
        data = {"3.2": build().SerializeToString(), tasks[0]: _answers(tasks[0], who)["right"][0][0]}
        data[tasks[0]] = unlike(task(tasks[0]), data[tasks[0]], count + number)
        put(folder, name, submission(who, data))
        found[name] = Made(title, {"3.2": (0, 0), tasks[0]: (task(tasks[0]).points,) * 2})
    return found


class Watch:
    """What the processes that look at answers held and took. Held: the most that one of them did, and all together, bytes."""

    def __init__(self) -> None:
        self.one = self.all = 0
        self._took: dict[
            int, float
        ] = {}  # by process: within bubblewrap they are children of a child, and nobody waits for them
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._start = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.seconds, self.core_seconds = time.monotonic() - self._start, sum(self._took.values())

    def _look(self) -> None:
        while not self._done.wait(0.2):
            held = []
            for child in psutil.Process().children(recursive=True):
                try:
                    held.append(child.memory_info().rss)
                    times = child.cpu_times()
                    self._took[child.pid] = times.user + times.system
                except psutil.Error:
                    continue
            self.one, self.all = max(self.one, *held, 0), max(self.all, sum(held))


def differences(report: Path, made: dict[str, Made]) -> list[str]:
    """Each mark that is not the known one."""
    rows = json.loads((report / "results.json").read_text(encoding="utf-8"))["submissions"]
    found = {Path(row["zip"]).name: row for row in rows}
    wrong = [f"{name}: {len(found)} results" for name in made if name not in found]
    for name, row in found.items():
        truth = made[name]
        said = " ".join([row["problem"], *row["notes"]])
        if truth.says:
            if row["tasks"] or not re.search(truth.says, said):
                wrong.append(f"{name} ({truth.kind}): {said}")
            continue
        if row["tasks"].keys() != truth.points.keys():
            wrong.append(f"{name} ({truth.kind}): marks of other tasks")
        wrong += [
            f"{name} ({truth.kind}), task {id}: {row['tasks'][id]['points']} points, not {least} to {most}"
            for id, (least, most) in truth.points.items()
            if id in row["tasks"] and not least <= row["tasks"][id]["points"] <= most
        ]
    return wrong


def killed(folder: Path, out: Path, workers: int, times: int) -> None:
    """Start the command, and end it and all its processes with SIGKILL when a share of the zips is done; so many times."""
    secret = out.with_name("secret.txt")
    secret.write_text(SECRET, encoding="utf-8")
    options = ["--out", str(out), "--workers", str(workers), "--secret-file", str(secret)]
    share = sum(1 for _ in folder.iterdir()) // (times + 1)
    for number in range(1, times + 1):
        command = [sys.executable, "-m", "course_utils.grading", "grade", str(folder), *options]
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        while journalled(out) < share * number and run.poll() is None:
            time.sleep(2)  # the journal of a thousand has 60 MB
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
        print(f"killed after {journalled(out)} submissions", flush=True)


def journalled(report: Path) -> int:
    """How many results stand in the journal. Raises ValueError where one stands there twice."""
    path = report / NAME
    text = path.read_bytes() if path.exists() else b""
    digests = re.findall(rb'^\{"sha256": "(\w{64})"', text, re.MULTILINE)
    if len(set(digests)) < len(digests):
        raise ValueError(f"{len(digests) - len(set(digests))} results stand twice in {path}.")
    return len(digests)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--students", type=int, default=len(STUDENTS), help="of the pool, 20 at most")
    parser.add_argument("--kills", type=int, default=0, help="times that the run is killed (SIGKILL) and begun again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="synthetic-") as place:
        folder = Path(place, "in")
        folder.mkdir()
        made = make(folder, given.count, every_task(), STUDENTS[: given.students], bad_models=len(HOSTILE))
        print(
            f"{len(made)} submissions: {dict(Counter(m.kind if m.kind in KINDS else 'means harm' for m in made.values()))}"
        )
        killed(folder, Path(place, "out"), given.workers, given.kills)
        with Watch() as watch:
            grade(folder, Path(place, "out"), workers=given.workers, secret=SECRET)
        journalled(Path(place, "out"))
        wrong = differences(Path(place, "out"), made)
    marks = sum(len(m.points) for m in made.values())
    print(f"{marks} marks and {sum(bool(m.says) for m in made.values())} zips without marks, {len(wrong)} not as known")
    print(*wrong[:50], sep="\n")
    if not given.kills:  # the last part of a run that was killed says nothing of its speed
        print(
            f"{watch.seconds:.0f} s with {given.workers} workers: {len(made) / watch.seconds:.2f} submissions/s, "
            f"{1000 * watch.core_seconds / max(1, marks):.1f} core-ms a mark; a worker held {watch.one / 2**20:.0f} MiB at most"
        )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
