"""The walls around the process that looks at artefacts, tried by code that has broken out of a model.

No model is known that can do this. So the process is started with another reader of artefacts: one that runs the artefact as
Python. What it then cannot do, no model can do.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from submissions import right

from course_utils.exercises import task
from course_utils.handin import guarded, walls

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these walls are Linux's")

# Instead of `assessing`, which loads numpy and with it threads: as in the real process, nothing of that is there yet.
READER = """
import dataclasses, types

@dataclasses.dataclass
class Verdict:
    problem: str
    criteria: tuple = ()
    facts: dict = dataclasses.field(default_factory=dict)
    ended: str = ""
    lacking: bool = False

def assessed(it, data, *more, **others):
    space = {}
    try:
        exec(data, space)
        return Verdict(f"did it: {space.get('out')}")
    except Exception as error:
        return Verdict(f"{type(error).__name__}: {error}")

name = s.name + ".handin.assessing"
sys.modules[name] = types.ModuleType(name)
sys.modules[name].assessed = assessed
"""
WAYS = (walls.BUBBLEWRAP, walls.NAMESPACES, walls.LIMITS)
BOXED = pytest.mark.parametrize("way", [walls.BUBBLEWRAP], indirect=True)


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the process is started; skips what this machine does not allow."""
    if request.param == walls.BUBBLEWRAP and not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed here")
    monkeypatch.setattr(walls, "ways", lambda: (request.param,))
    monkeypatch.setattr(guarded.Worker, "_way", None)
    return request.param


class Broken:
    """The process with the other reader."""

    def __init__(self) -> None:
        self.worker = guarded.Worker()

    def __call__(self, code: str, seconds: float = 20) -> str:
        """Run code in it; returns what it says of itself, or how it ended."""
        if self.worker.child.poll() is not None:
            self.worker = guarded.Worker()
        request = {"task": "2.4", "name": "a", "who": "ada", "secret": "", "facts": False}
        answer, ended = self.worker.ask(request, textwrap.dedent(code).encode(), seconds)
        return ended or answer["problem"]

    def has(self, wall: str) -> bool:
        return wall in self.worker.walls


@pytest.fixture(scope="module")
def kept() -> Iterator[dict[str, Broken]]:
    """The processes, by the way they were started: starting one takes a second."""
    found: dict[str, Broken] = {}
    yield found
    for one in found.values():
        one.worker.stop()


@pytest.fixture
def broken_out(way: str, kept: dict[str, Broken], monkeypatch: pytest.MonkeyPatch) -> Broken:
    before, _, main = guarded._START.partition("importlib.import_module")
    monkeypatch.setattr(guarded, "_START", before.replace("; ", "\n") + READER + f"importlib.import_module{main}")
    if way not in kept:
        kept[way] = Broken()
    return kept[way]


def test_the_walls_that_stand_are_named(way):
    worker = guarded.Worker()
    worker.stop()
    expected = {walls.BUBBLEWRAP: walls.ALL, walls.LIMITS: walls.ALL[:-2]}.get(way, walls.ALL[:-1])
    if way == walls.NAMESPACES and "no network" not in worker.walls:
        pytest.skip("this machine allows no namespaces of one's own")
    assert worker.walls == list(expected)


@pytest.mark.parametrize("id", ["2.4", "7.6", "8.6", "10.4"])
def test_right_answers_are_right_behind_each(way, id):
    """Those that write files, and run models for long, too."""
    worker = guarded.Worker()
    verdict = guarded.examine_with(worker, task(id), right(id, "ada"), task(id).file, "ada")
    worker.stop()
    assert verdict.criteria
    assert all(c.passed for c in verdict.criteria), verdict


def test_the_doctor_and_its_own_processes_work_behind_each(broken_out):
    """No check of today calls it; one of tomorrow may."""
    code = """
    import onnx
    import course_utils as cu
    text = '<ir_version: 10, opset_import: ["": 21]> g (float[2] x) => (float[2] y) { y = Relu (x) }'
    onnx.save(onnx.parser.parse_model(text), "a.onnx")
    report = cu.doctor("a.onnx", run=True)
    out = [str(report), report.not_checked]
    """
    said = broken_out(code, seconds=60)
    assert said.startswith("did it"), said
    assert "was not run" not in said


def test_no_network(broken_out):
    """A server of this machine is as far away as any other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"""
        import socket
        out = socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), timeout=5).getpeername()
        """
        said = broken_out(code)
    assert ("did it" in said) != broken_out.has("no network"), said
    assert "did it" in said or "OSError" in said or "ConnectionRefused" in said, said


def test_no_file_larger_than_the_limit(broken_out, monkeypatch):
    code = f"""
    import os
    with open("large", "wb") as stream:
        stream.truncate({guarded.FILE})
        stream.seek(0, os.SEEK_END)
        stream.write(b"x" * 10**6)
    """
    assert "OSError: [Errno 27] File too large" in broken_out(code)


def test_no_core_is_written(broken_out):
    assert "did it: (0, 0)" in broken_out("import resource; out = resource.getrlimit(resource.RLIMIT_CORE)")


def test_no_more_rights_by_a_program_that_gives_them(broken_out):
    assert "NoNewPrivs:\t1" in broken_out("out = open('/proc/self/status').read()").replace("\\t", "\t")


@pytest.fixture
def one_second(broken_out, monkeypatch):
    """Of the processor, for each artefact."""
    broken_out.worker.stop()
    monkeypatch.setattr(guarded, "PROCESSOR", 1.0)
    yield
    broken_out.worker.stop()


def test_processor_time_of_all_threads(broken_out, one_second):
    """The clock on the wall would end it far later."""
    code = """
    import hashlib, threading
    def burn():
        while True:
            hashlib.sha256(bytes(10**7))
    threading.Thread(target=burn, daemon=True).start()
    burn()
    """
    broken_out("out = 'there is one'")
    verdict = guarded.examine_with(broken_out.worker, task("2.4"), textwrap.dedent(code).encode(), "a.onnx", "ada")
    assert verdict.ended == "signal SIGXCPU"
    assert verdict.problem.startswith(
        "'a.onnx' could not be checked, it used more than 120 s of the processor: a Loop without"
    )
    assert broken_out.worker.child.poll() is not None


def test_processor_time_is_counted_anew_for_each_artefact(broken_out, one_second):
    code = """
    import time
    end = time.process_time() + 0.4
    while time.process_time() < end:
        pass
    out = "done"
    """
    assert [broken_out(code, seconds=60) for _ in range(5)] == ["did it: done"] * 5


FORKS = """
import os, signal, time
for _ in range({count}):
    if os.fork() == 0:
        os.setsid()  # so that no signal to a group reaches it
        time.sleep(600)
time.sleep({seconds})
out = "done"
"""


def test_many_processes_are_ended_all_of_them(broken_out):
    before = {p.pid for p in psutil.process_iter()}
    broken_out("out = 'there is one'")
    forks = FORKS.format(count=guarded.PROCESSES + 4, seconds=60).encode()
    verdict = guarded.examine_with(broken_out.worker, task("2.4"), forks, "a.onnx", "ada")
    assert verdict.problem == (
        "'a.onnx' could not be checked, it started more than 8 processes, and no model has a reason to: hand in another one."
    )
    assert not [p for p in left_over(before) if "guarded_child" in " ".join(p.cmdline())]


def test_a_few_processes_end_with_it(broken_out):
    before = {p.pid for p in psutil.process_iter()}
    assert broken_out(FORKS.format(count=3, seconds=1), seconds=60) == "did it: done"
    broken_out.worker.stop()
    assert not [p for p in left_over(before) if "guarded_child" in " ".join(p.cmdline())]


def left_over(before: set[int]) -> list[psutil.Process]:
    """Processes of this test's own that are there now and were not before; those that end get a moment for it."""
    found = []
    for _ in range(50):
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.pid not in before and process.environ().get("PYTEST_CURRENT_TEST")
                if ours and ours == os.environ["PYTEST_CURRENT_TEST"] and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        if not found:
            break
        time.sleep(0.1)
    return found


def test_memory_of_what_it_started_counts(broken_out, monkeypatch):
    monkeypatch.setattr(guarded, "MEMORY", 400 * 2**20)
    code = """
    import os, time
    for _ in range(3):
        if os.fork() == 0:
            held = b"x" * (150 * 2**20)
            time.sleep(600)
    time.sleep(60)
    """
    assert broken_out(code, seconds=60) == "memory"


# What bubblewrap adds


@BOXED
def test_it_sees_no_file_of_the_user(broken_out, tmp_path):
    """Neither the home, nor the submissions, nor the report, nor the secret word."""
    (tmp_path / "secret.txt").write_text("a long word")
    assert "FileNotFoundError" in broken_out(f"out = open({str(tmp_path / 'secret.txt')!r}).read()")
    places = ["/etc/passwd", str(tmp_path), broken_out.worker.folder]
    assert broken_out(f"import os; out = [os.path.exists(p) for p in {places}]") == "did it: [False, False, True]"
    home = broken_out("import os; out = os.listdir(os.path.expanduser('~'))")
    inside = {
        Path(place).relative_to(Path.home()).parts[0] for place in seen() if Path(place).is_relative_to(Path.home())
    }
    assert "FileNotFoundError" in home or set(eval(home.removeprefix("did it: "))) == inside


def seen() -> list[str]:
    command = walls.boxed([], "/tmp/x")
    return [command[n + 1] for n, word in enumerate(command) if word == "--ro-bind"]


@BOXED
@pytest.mark.parametrize("where", ["/", "/tmp", "/usr", "/dev", "/dev/shm", "package", "python"])
def test_it_writes_nowhere_but_into_its_own_folder(broken_out, where):
    place = {"package": str(Path(guarded.__file__).parent), "python": sys.prefix}.get(where, where)
    file = Path(place, f"written by {os.getpid()}")  # a name that no other program has there
    assert "Read-only file system" in broken_out(f"out = open({str(file)!r}, 'w').write('x')")
    assert not file.exists()
    assert broken_out("out = open('x', 'w').write('x')") == "did it: 1"


@BOXED
def test_it_sees_and_ends_no_other_process(broken_out):
    broken_out.worker.stop()  # what an earlier answer has left there may not be gone yet
    said = broken_out(f"import os; os.kill({os.getpid()}, 9)")
    assert "ProcessLookupError" in said
    assert broken_out("import os; out = [n for n in os.listdir('/proc') if n.isdigit()]") == "did it: ['1', '2']"


def test_the_strongest_way_that_works_is_taken(monkeypatch):
    """And no weaker one is tried behind it; the next process begins with it."""
    tried = []

    def start(worker, way):
        tried.append(way)
        if way == "strong":
            raise guarded.NotStartedError("not permitted")

    monkeypatch.setattr(guarded.Worker, "_way", None)
    monkeypatch.setattr(guarded.Worker, "_start", start)
    monkeypatch.setattr(walls, "ways", lambda: ("strong", "weaker", "weakest"))
    guarded.Worker()
    guarded.Worker()
    assert tried == ["strong", "weaker", "weaker"]


def test_bubblewrap_that_is_not_permitted_is_no_wall_and_the_rest_stands(monkeypatch, tmp_path):
    """As in a container that allows no namespaces: `bwrap` is there, and fails."""
    bwrap = tmp_path / "bwrap"
    bwrap.write_text("#!/bin/sh\necho 'bwrap: Creating new namespace failed: Operation not permitted' >&2\nexit 1\n")
    bwrap.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(guarded.Worker, "_way", None)
    worker = guarded.Worker()
    again = guarded.Worker()
    for one in (worker, again):
        one.stop()
        assert "bubblewrap" not in one.walls
        assert set(walls.EVERYWHERE) < set(one.walls)
    assert not list(Path(worker.folder).parent.glob(Path(worker.folder).name))
