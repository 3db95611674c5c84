"""The process that looks at artefacts: how it starts, ends and is ended, and what of the machine it never touches."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from answers import given, params
from onnx import TensorProto, helper, numpy_helper
from test_guarded import HEAD, OWN, loop, parsed

from course_utils import student
from course_utils.exercises import task
from course_utils.handin import assessing, guarded
from course_utils.paths import PACKAGE

POSIX = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system knows no such signals")


@pytest.fixture(autouse=True)
def ada(folder, nobody_known):
    student.remember("ada")


def right() -> bytes:
    model = given("2.4")
    model.ir_version = params("2.4")["device_ir"]
    return model.SerializeToString()


def checked(data: bytes, id: str = "2.4") -> assessing.Verdict:
    return guarded.examine(task(id), data, "a.file", "ada")


def works() -> bool:
    verdict = checked(right())
    return bool(verdict.criteria) and all(c.passed for c in verdict.criteria)


# Files of the machine


def outside() -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "secret")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="secret.bin")
    return tensor


def in_an_attribute(nodes, field: str) -> None:
    attribute = onnx.AttributeProto(name="value")
    place = getattr(attribute, field)
    if field == "tensors":
        place.append(outside())
    else:
        (place.values if field == "sparse_tensor" else place).CopyFrom(outside())
    nodes.append(helper.make_node("Constant", [], ["unused"]))
    nodes[-1].attribute.append(attribute)


PLACES = {
    "an initializer": lambda m: m.graph.initializer.append(outside()),
    "a sparse initializer": lambda m: m.graph.sparse_initializer.add().values.CopyFrom(outside()),
    "an attribute": lambda m: in_an_attribute(m.graph.node, "t"),
    "a list in an attribute": lambda m: in_an_attribute(m.graph.node, "tensors"),
    "a sparse attribute": lambda m: in_an_attribute(m.graph.node, "sparse_tensor"),
    "a function": lambda m: in_an_attribute(m.functions.add(name="f", domain="own").node, "t"),
    "a function's default": lambda m: (
        m.functions.add(name="f", domain="own").attribute_proto.add(name="a").t.CopyFrom(outside())
    ),
    "training": lambda m: m.training_info.add().initialization.initializer.append(outside()),
    "training nodes": lambda m: in_an_attribute(m.training_info.add().algorithm.node, "t"),
}


@pytest.mark.parametrize("place", PLACES)
def test_no_weight_comes_from_another_file(place):
    Path("secret.bin").write_bytes(np.ones(3, np.float32).tobytes())
    model = onnx.load_from_string(right())
    PLACES[place](model)
    problem = checked(model.SerializeToString()).problem
    assert problem == (
        "'a.file' does not hold all its weights, they lie in another file ('secret.bin'): load the weights into the model, "
        "then save it in one file."
    )


def test_modules_of_the_student_are_not_taken_for_others(folder):
    """Beside the notebook, in an empty entry of PYTHONPATH, and beside the package itself."""
    shutil.copytree(PACKAGE, folder / "place" / "course_utils", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("onnx", "json", "dataclasses", "task", "numpy", "onnxruntime", "guarded_child"):
        for place in (folder, folder / "place"):
            (place / f"{name}.py").write_text(f"open({str(folder / 'stolen')!r}, 'w').close()\n")
    code = """
    import dataclasses, json, os, sys
    import filelock, numpy, onnx, onnxruntime, psutil
    sys.path.insert(0, "place")
    from course_utils.handin import guarded
    from course_utils.exercises import task
    assert "place" in guarded.__file__
    os.environ["PYTHONPATH"] = os.pathsep
    print(guarded.examine(task("2.4"), open("right.onnx", "rb").read(), "a.onnx", "ada"))
    """
    Path("right.onnx").write_bytes(right())
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)], cwd=folder, capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"}, timeout=180,
    )  # fmt: skip
    assert "passed=True" in done.stdout, done.stdout + done.stderr
    assert "passed=False" not in done.stdout
    assert not Path("stolen").exists()


def test_functions_in_a_long_chain():
    """Each calls the next: few nodes, but deeper than anything that follows the calls can go."""
    bodies = "".join(f"{OWN} f{n} (a) => (b) {{ b = own.f{n + 1} (a) }}\n" for n in range(1000))
    model = parsed(
        f"{HEAD} g (float[3] x) => (float[3] y) {{ y = own.f0 (x) }}\n{bodies}{OWN} f1000 (a) => (b) {{ b = Relu (a) }}"
    )
    assert "hundreds of functions, each of which calls the next" in checked(model.SerializeToString(), "3.2").problem
    assert works()


def test_modules_beside_the_notebook_are_not_taken_for_others_by_the_doctor(folder):
    """Nor by the log of a session: each asks a process of its own, whose current folder is the notebook's."""
    names = ("onnx", "json", "numpy", "onnxruntime", "course_utils", "dataclasses")
    for name in names:
        Path(f"{name}.py").write_text(f"open({str(folder / 'stolen')!r}, 'w').close()\n")
    Path("right.onnx").write_bytes(right())
    code = """
    import course_utils as cu
    cu.doctor("right.onnx", run=True)
    print(len(cu.session_log("right.onnx", 1)) > 5)
    """
    root = {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", textwrap.dedent(code)], cwd=folder, env={**os.environ, **root}, capture_output=True,
        text=True, check=False, timeout=180,
    )  # fmt: skip
    assert done.stdout.strip().endswith("True"), done.stdout + done.stderr
    assert not Path("stolen").exists()


# Odd JSON


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a": ' + b"9" * 10**5 + b"}", "holds a number with thousands of digits"),
        (b"[" * 10**5, "hundreds of levels deep"),
        (b'{"a":' * 10**5, "hundreds of levels deep"),
        (b"[" + b"[]," * 2**20, "no answer in JSON needs more than 1,048,576: is it the right file"),
        ("{}".encode("utf-16"), "utf-8"),
    ],
    ids=["digits", "lists", "dicts", "large", "UTF-16"],
)
def test_json_that_is_refused(data, why):
    problem = checked(data, "1.2").problem
    assert why in problem
    assert "set_int_max" not in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    "data",
    [
        b'{"a": 1' + b"0" * 400 + b"}",
        b'{"a": 1e999}',
        b'{"a": NaN}',
        b'{"\\ud83d": "\\u001b[31m"}',
        b"[" * 300 + b"]" * 300,
    ],
)
def test_json_that_is_odd(data):
    assert checked(data, "1.2").criteria
    assert checked(b"\xef\xbb\xbf" + data, "1.2") == checked(data, "1.2"), "with the mark that some editors write"


# The process


@pytest.mark.parametrize("start", ["raise SystemExit(3)", "import os; os.close(1)"])
def test_a_process_that_does_not_start(start, monkeypatch):
    guarded.Worker.current().stop()
    before = {c.pid for c in psutil.Process().children()}
    with monkeypatch.context() as patch:
        patch.setattr(guarded, "_START", start)
        problem = checked(right()).problem
    assert "the process that looks at it did not start (exit status" in problem
    assert {c.pid for c in psutil.Process().children()} <= before
    assert works()


def test_a_process_that_never_gets_ready(monkeypatch):
    guarded.Worker.current().stop()
    with monkeypatch.context() as patch:
        patch.setattr(guarded, "_START", "import time; time.sleep(600)")
        patch.setattr(guarded, "SECONDS", 0.2)
        assert "did not start (it was not ready after 0.2 s)" in checked(right()).problem
    assert works()


def test_a_full_disk_for_its_folder(monkeypatch):
    guarded.Worker.current().stop()

    def full(**_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(guarded.tempfile, "mkdtemp", full)
        assert "did not start (No space left on device)" in checked(right()).problem
    assert works()


def test_ended_from_outside_between_two_checks():
    assert works()
    psutil.Process(guarded.Worker._now.pid).kill()
    guarded.Worker._now.child.wait(30)
    assert works()


@POSIX
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_ended_from_outside_during_a_check(how):
    """Not the artefact's fault, so the sentence does not call it damaged."""
    assert works()
    process = psutil.Process(guarded.Worker._now.pid)
    process.suspend()
    threading.Timer(0.3, lambda: (process.send_signal(getattr(signal, how)), process.resume())).start()
    problem = checked(right()).problem
    assert "something outside ended the process that looked at it" in problem
    assert "damaged" not in problem
    assert works()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system knows no such alarm")
def test_it_ends_by_itself_where_nobody_watches(monkeypatch):
    """The parent was killed, and a run goes on without an end."""
    wait = guarded.Worker._wait
    monkeypatch.setattr(guarded.Worker, "_wait", lambda self, _: wait(self, float("inf")))
    request = {"task": "3.2", "name": "a", "who": "ada", "secret": "", "facts": False}
    assert guarded.Worker().ask(request, loop("Relu").SerializeToString(), seconds=0.5) == ({}, "signal SIGALRM")


def test_a_process_that_does_not_read(monkeypatch):
    """More bytes than a pipe holds: writing them must not wait without a limit."""
    worker = guarded.Worker()
    psutil.Process(worker.pid).suspend()
    request = {"task": "1.2", "name": "a", "who": "ada", "secret": "", "facts": False}
    assert worker.ask(request, bytes(2**24), seconds=0.5) == ({}, "time")


def test_what_one_artefact_left_behind_does_not_count_for_the_next(monkeypatch):
    assert works()
    worker = guarded.Worker._now
    monkeypatch.setattr(guarded, "MEMORY", int(1.5 * worker._held()))
    assert works()
    assert worker.child.poll() is not None
    assert not Path(worker.folder).exists()


def test_a_kernel_without_input_and_output(folder, python):
    """What it writes to is closed, and the pipes to the process get those numbers."""
    Path("right.onnx").write_bytes(right())
    code = """
    import os
    for number in (0, 1, 2):
        os.close(number)
    from course_utils.handin import guarded
    from course_utils.exercises import task
    verdict = guarded.examine(task("2.4"), open("right.onnx", "rb").read(), "a.onnx", "ada")
    open("said", "w").write(repr(verdict))
    """
    python(code, cwd=folder)
    said = Path("said").read_text()
    assert "passed=True" in said
    assert "passed=False" not in said


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system knows no fork")
def test_a_fork_takes_nothing_from_its_parent():
    """It has a process and a lock of its own, even where a thread held the lock; what it deletes at its end is its own."""
    assert works()
    worker = guarded.Worker._now
    with guarded._lock:
        pid = os.fork()
        if pid == 0:
            fine = False
            try:
                fine = guarded._lock.acquire(timeout=5)
                guarded._lock.release()
                fine = fine and works() and guarded.Worker._now is not worker
                guarded.Worker._now.stop()
                worker.stop()
            finally:
                os._exit(0 if fine else 1)
        assert os.waitpid(pid, 0)[1] == 0
    assert worker.child.poll() is None
    assert Path(worker.folder).is_dir()
    assert works()
    assert guarded.Worker._now is worker


def test_the_stop_button_in_a_real_kernel(folder):
    """While an endless loop runs: the cell ends, the process is gone, and the next check is right."""
    from jupyter_client.manager import KernelManager

    Path("right.onnx").write_bytes(right())
    onnx.save(loop("Relu"), "endless.onnx")
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(cwd=str(folder))
    client = manager.client()
    client.start_channels()

    def run(code: str) -> dict:
        return client.execute_interactive(code, timeout=120, allow_stdin=False, output_hook=lambda _: None)["content"]

    try:
        client.wait_for_ready(timeout=60)
        assert (
            run("import course_utils as cu; from course_utils import student; student.remember('ada')")["status"]
            == "ok"
        )
        assert run("assert cu.check('2.4', 'right.onnx').passed")["status"] == "ok"
        kernel = psutil.Process(manager.provisioner.pid)
        # Bubblewrap, where there is one, stands around it, and has its name in its own command.
        child = [c for c in kernel.children(recursive=True) if "guarded_child" in " ".join(c.cmdline())][-1]
        before = child.cpu_times().user
        client.execute("cu.check('3.2', 'endless.onnx')", stop_on_error=False)  # what comes next is not dropped
        latest = time.monotonic() + 120
        while child.cpu_times().user == before:
            assert time.monotonic() < latest, "this process does nothing: another one looks at the answer"
            time.sleep(0.1)
        manager.interrupt_kernel()
        reply = client.get_shell_msg(timeout=60)["content"]
        while reply.get("execution_count") is None:
            reply = client.get_shell_msg(timeout=60)["content"]
        assert (reply["status"], reply.get("ename")) == ("error", "KeyboardInterrupt")
        assert not psutil.pid_exists(child.pid) or child.status() == psutil.STATUS_ZOMBIE
        assert run("assert cu.check('2.4', 'right.onnx').passed")["status"] == "ok"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
