"""Grading on a Dask cluster of several processes on this machine: the marks are those of a run without one, whatever ends."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from submissions import put
from test_grading import a_class

from course_utils.errors import CourseError, MissingPackageError
from course_utils.grading import __main__ as command
from course_utils.grading import cluster
from course_utils.grading.journal import NAME, Journal
from course_utils.grading.runs import grade
from course_utils.processes import environment

WAIT = 60.0  # seconds


class Machines:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[psutil.Popen] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = self.start("distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port))
        self.until(lambda: self.answers(port))

    @staticmethod
    def answers(port: int) -> bool:
        with socket.socket() as asking:
            return asking.connect_ex(("127.0.0.1", port)) == 0

    @staticmethod
    def until(done: Callable[[], object]) -> None:
        end = time.monotonic() + WAIT
        while not done():
            assert time.monotonic() < end, "the logs are in the folder of the test"
            time.sleep(0.1)

    def start(self, module: str, *arguments: str, first: str = "pass") -> psutil.Popen:
        code = (
            f"import runpy, sys; {first}; sys.argv[0] = {module!r}; runpy.run_module({module!r}, run_name='__main__')"
        )
        log = open(self.folder / f"{len(self.processes)}.log", "wb")  # noqa: SIM115 - the process writes into it
        with log:
            process = psutil.Popen(
                [sys.executable, "-c", code, *arguments, "--no-dashboard", "--dashboard-address", "127.0.0.1:0"],
                env=environment(),
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)
        return process

    def worker(self, threads: int = 1, first: str = "pass") -> psutil.Popen:
        """first: Python that runs in it before anything else."""
        from distributed import Client

        with Client(self.address, set_as_default=False) as client:
            before = len(client.nthreads())
            process = self.start(
                "distributed.cli.dask_worker", self.address, "--host", "127.0.0.1", "--nthreads", str(threads), "--no-nanny",
                "--memory-limit", "0", "--local-directory", str(self.folder), first=first,
            )  # fmt: skip
            self.until(lambda: len(client.nthreads()) > before)
        return process

    def end(self) -> None:
        for process in reversed(self.processes):
            found = [process]
            with contextlib.suppress(psutil.Error):  # it was ended by the test
                found = [*process.children(recursive=True), process]
            for one in found:
                with contextlib.suppress(psutil.Error):  # it ended meanwhile, and the others still run
                    one.kill()
            process.wait(WAIT)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    (tmp_path / "machines").mkdir()
    found = Machines(tmp_path / "machines")
    yield found
    found.end()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class of twelve, and damaged zips among them; graded without a cluster."""
    folder = tmp_path_factory.mktemp("whole")
    a_class(folder / "in", 12)
    put(folder, "in/empty.zip", b"")
    put(folder, "in/text.zip", b"hello")
    grade(folder / "in", folder / "out", workers=2)
    return folder


def same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("results.json", "grades.csv"))


def digests(report: Path) -> list[str]:
    return [json.loads(line)["sha256"] for line in (report / NAME).read_text().splitlines()[1:]]


def test_the_marks_are_those_of_a_run_without_a_cluster(tmp_path, whole, machines, capsys):
    machines.worker()
    machines.worker(threads=2)
    arguments = ["grade", str(whole / "in"), "--out", str(tmp_path / "out"), "--scheduler", machines.address]
    assert command.main(arguments) == 0
    assert same(tmp_path / "out", whole / "out")
    assert "Walls around each answer: time, memory, number of processes" in capsys.readouterr().out
    before = (tmp_path / "out" / NAME).read_bytes()
    assert command.main(arguments) == 0
    assert (tmp_path / "out" / NAME).read_bytes() == before, "nothing is graded again"
    assert "Walls" not in capsys.readouterr().out


def test_a_worker_that_is_killed_in_the_middle_costs_nothing(tmp_path, whole, machines, monkeypatch):
    """Two of three: one while it examines, the other when it is found to have ended."""
    workers = [machines.worker() for _ in range(3)]
    add = Journal.add

    def add_and_kill(self: Journal, *more: object) -> None:
        add(self, *more)
        if len(self) in {3, 6}:
            workers.pop().kill()

    monkeypatch.setattr(Journal, "add", add_and_kill)
    grade(whole / "in", tmp_path / "out", scheduler=machines.address)
    assert len(workers) == 1
    assert same(tmp_path / "out", whole / "out")
    assert sorted(digests(tmp_path / "out")) == sorted(digests(whole / "out")), "none is lost, none is doubled"


def test_a_scheduler_that_goes_away_is_one_sentence_and_the_next_run_goes_on(
    tmp_path, whole, machines, monkeypatch, capfd
):
    machines.worker()
    add = Journal.add

    def add_and_kill(self: Journal, *more: object) -> None:
        add(self, *more)
        if len(self) == 3:
            machines.scheduler.kill()

    arguments = ["grade", str(whole / "in"), "--out", str(tmp_path / "out"), "--scheduler", machines.address]
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", add_and_kill)
        assert command.main(arguments) == command.NOT_DONE
    said = capfd.readouterr().err
    assert f"grading: The scheduler {machines.address} went away: start it and its workers again" in said
    assert "Traceback" not in said
    kept = (tmp_path / "out" / NAME).read_bytes()
    assert 3 <= len(digests(tmp_path / "out")) < len(digests(whole / "out"))
    assert command.main(arguments) == command.NOT_DONE
    assert f"grading: No Dask scheduler answers at '{machines.address}'" in capfd.readouterr().err
    grade(whole / "in", tmp_path / "out", workers=2)
    assert (tmp_path / "out" / NAME).read_bytes().startswith(kept)
    assert same(tmp_path / "out", whole / "out")


def test_a_cluster_without_workers(tmp_path, whole, machines, monkeypatch):
    with pytest.raises(CourseError, match=r"^The scheduler tcp://\S+ has no workers: start some \(dask worker tcp"):
        grade(whole / "in", tmp_path / "out", scheduler=machines.address)
    worker = machines.worker(
        first="from course_utils.handin import guarded; guarded.examine_with = lambda *a, **k: __import__('time').sleep(600)"
    )
    monkeypatch.setattr(cluster, "_LONELY", 2.0)
    threading.Timer(1.0, worker.kill).start()
    with pytest.raises(CourseError, match="has no workers any more: start some"):
        grade(whole / "in", tmp_path / "out", scheduler=machines.address)


def test_a_worker_with_another_version_is_named(tmp_path, whole, machines):
    machines.worker(first="import course_utils.version as v; v.__version__ = '0.0.7'")
    with pytest.raises(
        CourseError, match=r"^A worker has course 0\.0\.7 in place of \d+\.\d+\.\d+: install the same"
    ) as said:
        grade(whole / "in", tmp_path / "out", scheduler=machines.address)
    assert str(said.value).endswith("goes on where it stopped.")
    assert digests(tmp_path / "out") == []


def test_a_worker_without_the_course_is_named(tmp_path, whole, machines):
    machines.worker(first="sys.modules['course_utils.grading.cluster'] = None")
    with pytest.raises(CourseError, match="does not have this version of the course"):
        grade(whole / "in", tmp_path / "out", scheduler=machines.address)


@pytest.mark.parametrize(
    "address", ["here", "http://127.0.0.1:1", "tcp://127.0.0.1", "tcp://a b:1", "tcp://\x1b[2J:1/"]
)
def test_what_is_no_address(tmp_path, whole, address, capsys):
    assert (
        command.main(["grade", str(whole / "in"), "--out", str(tmp_path / "out"), "--scheduler", address])
        == command.NOT_DONE
    )
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        r"grading: --scheduler is '.*', and an address such as tcp://127\.0\.0\.1:8786 was expected\.", said
    )
    assert said.isprintable()


def test_a_scheduler_and_workers_of_this_machine_exclude_each_other(tmp_path, whole, capsys):
    with pytest.raises(SystemExit):
        command.main(
            ["grade", str(whole / "in"), "--out", str(tmp_path / "out"), "--workers", "2", "--scheduler", "tcp://a:1"]
        )
    assert "not allowed with argument --workers" in capsys.readouterr().err


def test_without_the_package(tmp_path, whole, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(
        MissingPackageError, match=r"'distributed' is not installed, and --scheduler needs it: .*grading"
    ):
        grade(whole / "in", tmp_path / "out", scheduler="tcp://127.0.0.1:1")
