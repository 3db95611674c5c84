"""Hostile artefacts: each gets one sentence within its limits, and the kernel that checks it lives on."""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
from answers import given, params
from onnx import TensorProto, helper, numpy_helper

import course_utils as cu
from course_utils import student
from course_utils.exercises import task
from course_utils.handin import assessing, guarded


@pytest.fixture(autouse=True)
def ada(folder, nobody_known):
    student.remember("ada")


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(text)


HEAD = '<ir_version: 10, opset_import: ["": 21, "own": 1]>\n'
OWN = '<domain: "own", opset_import: ["": 21, "own": 1]>\n'


def loop(model_of: str, trips: str = "") -> onnx.ModelProto:
    """The task's signature x float[rows, 3] -> y float[3], and a Loop in between whose condition never turns false."""
    return parsed(
        HEAD
        + f"""g (float[rows, 3] x) => (float[3] y)
        <bool go = {{1}}, float[3] zeros = {{0, 0, 0}}, int64 trips = {{9223372036854775807}}> {{
            y = Loop ({trips}, go, zeros) <body = b (int64 i, bool c, float[3] s) => (bool more, float[3] t)
                {{ more = Identity (go)  t = {model_of} (s) }}>
        }}"""
    )


def calling_twice(depth: int) -> onnx.ModelProto:
    """Functions that call each other twice: 2 ** depth nodes, in a file of two kilobytes."""
    bodies = "".join(f"{OWN} f{n} (a) => (b) {{ c = own.f{n + 1} (a)  b = own.f{n + 1} (c) }}\n" for n in range(depth))
    last = f"{OWN} f{depth} (a) => (b) {{ b = Relu (a) }}"
    return parsed(HEAD + "g (float[rows, 3] x) => (float[3] y) { y = own.f0 (x) }\n" + bodies + last)


def function_named(name: str) -> onnx.ModelProto:
    return parsed(
        HEAD + f"g (float[rows, 3] x) => (float[rows, 3] y) {{ y = own.{name} (x) }}\n"
        f"{OWN} {name} (a) => (b) {{ b = Relu (a) }}"
    )


def many_nodes(count: int) -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", [f"t{n}"], [f"t{n + 1}"]) for n in range(count)]
    nodes[0].input[0], nodes[-1].output[0] = "x", "y"
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, ["rows", 3])], [value("y", TensorProto.FLOAT, [3])]
    )
    return helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])


def nested(levels: int) -> onnx.ModelProto:
    """An If in an If in an If …"""
    inner = "{ r0 = Relu (x) }"
    for n in range(levels):
        branch = f"b{n} () => (float[rows, 3] r{n}) {inner}"
        inner = f"{{ r{n + 1} = If (go) <then_branch = {branch}, else_branch = {branch}> }}"
    return parsed(f"{HEAD} g (float[rows, 3] x) => (float[rows, 3] r{levels}) <bool go = {{1}}> {inner}")


def in_a_circle() -> onnx.ModelProto:
    bodies = f"{OWN} f (a) => (b) {{ b = own.g (a) }}\n{OWN} g (a) => (b) {{ b = own.f (a) }}"
    return parsed(HEAD + "g (float[rows, 3] x) => (float[3] y) { y = own.f (x) }\n" + bodies)


def doubling() -> onnx.ModelProto:
    """A Loop whose state gets twice as long in each of sixty rounds, and then one row of it."""
    return parsed(
        HEAD
        + """g (float[rows, 3] x) => (float[3] y)
        <bool go = {1}, int64 trips = {60}, int64[1] axes = {0}> {
            long = Loop (trips, go, x) <body = b (int64 i, bool c, float[n, 3] s) => (bool more, float[m, 3] t)
                { more = Identity (go)  t = Concat <axis = 0> (s, s) }>
            y = ReduceMean <keepdims = 0> (long, axes)
        }"""
    )


def outside_in_a_subgraph() -> onnx.ModelProto:
    """A weight inside the branch of an If that is to be read from a file of this machine."""
    model = parsed(
        HEAD
        + """g (float[rows, 3] x) => (float[3] y) <bool go = {1}> {
            y = If (go) <then_branch = t () => (float[3] a) { a = Constant <value = float[3] {1, 2, 3}> () },
                         else_branch = e () => (float[3] b) { b = Constant <value = float[3] {1, 2, 3}> () }>
        }"""
    )
    constant = model.graph.node[0].attribute[0].g.node[0].attribute[0].t
    constant.CopyFrom(numpy_helper.from_array(np.zeros(3, np.float32), "secret"))
    constant.ClearField("raw_data")
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="secret.bin")
    return model


HOSTILE = {
    "endless loop": (lambda: loop("Relu"), r"The run was stopped after \d+ s\. A Loop of this model goes on without an end"),
    "function named Add": (lambda: function_named("Add"), r"ended the process that looked at it \(signal SIG"),
    "function named Mul": (lambda: function_named("Mul"), r"ended the process that looked at it \(signal SIG"),
    "calling twice": (lambda: calling_twice(30), "more than a million nodes"),
    "calling twice, twelve deep": (lambda: calling_twice(12), ""),
    "in a circle": (in_a_circle, "more than a million nodes"),
    "200 000 nodes": (lambda: many_nodes(200_000), r"200000 nodes, .* at most 20,000"),
    "If in If, 12 deep": (lambda: nested(12), "more than 8 levels deep"),
    "doubling": (doubling, ""),
    "weights in a subgraph outside": (outside_in_a_subgraph, "lie in another file"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_one_sentence_and_nothing_kept(name):
    """Task 3.2 asks for a model with a loop; here the loop, and more, is meant badly."""
    make, sentence = HOSTILE[name]
    Path("secret.bin").write_bytes(np.ones(3, np.float32).tobytes())
    onnx.save(make(), "hostile.onnx")
    before = psutil.Process().memory_info().rss
    result = cu.check("3.2", "hostile.onnx")
    said = str(result)
    assert not result.passed
    assert result.score[0] == 0
    assert sentence == "" or re.search(sentence, said), said
    assert "Traceback" not in said
    assert result.criteria or said.count("\n") == 0, "one sentence where nothing could be checked"
    assert psutil.Process().memory_info().rss - before < 300 * 2**20, "what it takes, it takes elsewhere"
    if result.problem:
        assert not Path("work/answers/ada/answers.json").exists(), "what cannot be checked is not kept"


def test_what_is_large_and_deep_enough_is_read():
    """Each at its limit, and one beyond."""
    for make, limit in ((many_nodes, assessing.MOST_NODES), (nested, assessing.MOST_LEVELS)):
        it = task("3.2")
        assessing.read(it, make(limit).SerializeToString(), "a.onnx")
        with pytest.raises(cu.CourseError, match="is it the right file"):
            assessing.read(it, make(limit + 1).SerializeToString(), "a.onnx")


def test_the_next_answer_is_checked_as_ever(tmp_path):
    """After an artefact that ended the process."""
    onnx.save(function_named("Add"), "hostile.onnx")
    assert cu.check("3.2", "hostile.onnx").problem
    model = given("2.4")
    model.ir_version = params("2.4")["device_ir"]
    onnx.save(model, "good.onnx")
    assert cu.check("2.4", "good.onnx").passed


def test_time_limit(monkeypatch):
    """Whatever the child does: here it is kept from answering at all."""
    worker = guarded.Worker()
    monkeypatch.setattr(guarded, "SECONDS", 1.0)
    psutil.Process(worker.pid).suspend()
    began = time.monotonic()
    assert worker.ask({"task": "1.1", "name": "a", "who": "ada", "secret": "", "facts": False}, b"{}", seconds=1) == (
        {},
        "time",
    )
    assert time.monotonic() - began < 30
    assert worker.child.poll() is not None, "it is ended"


def test_memory_limit(monkeypatch):
    """A limit that the process passes by being there."""
    guarded.Worker.current()
    monkeypatch.setattr(guarded, "MEMORY", 2**20)
    monkeypatch.setattr(guarded, "_LOOK", 0.0)
    verdict = guarded.examine(task("3.2"), loop("Relu").SerializeToString(), "a.onnx", "ada")
    assert verdict.problem == (
        "'a.onnx' could not be checked, it took more than 2 GiB of memory: look for a node whose result is far larger than "
        "its input."
    )


def test_the_stop_button_ends_the_process_and_the_next_check_works(monkeypatch):
    """An interrupt while the child works: its late answer must not be taken for the next one's."""
    model = given("2.4")
    model.ir_version = params("2.4")["device_ir"]
    right = model.SerializeToString()

    def interrupted(self, deadline):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(guarded.Worker, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            guarded.examine(task("3.2"), loop("Relu").SerializeToString(), "a.onnx", "ada")
    verdict = guarded.examine(task("2.4"), right, "b.onnx", "ada")
    assert verdict.criteria
    assert all(c.passed for c in verdict.criteria)


def test_two_threads_get_their_own_answers():
    model = given("2.4")
    model.ir_version = params("2.4")["device_ir"]
    artefacts = {"right": model.SerializeToString(), "wrong": given("2.4").SerializeToString()}
    found = {}

    def ask(name: str) -> None:
        found[name] = [guarded.examine(task("2.4"), artefacts[name], name, "ada") for _ in range(5)]

    threads = [threading.Thread(target=ask, args=(name,)) for name in artefacts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [all(c.passed for c in v.criteria) for v in found["right"]] == [True] * 5
    assert [all(c.passed for c in v.criteria) for v in found["wrong"]] == [False] * 5


def test_the_process_outlives_the_thread_that_started_it():
    """Bubblewrap, where it is, ends with the thread by which it was started."""
    guarded.Worker.current().stop()
    data = given("2.4").SerializeToString()
    asking = threading.Thread(target=guarded.examine, args=(task("2.4"), data, "a.onnx", "ada"))
    asking.start()
    asking.join()
    worker = guarded.Worker._now
    time.sleep(0.5)
    assert guarded.examine(task("2.4"), data, "a.onnx", "ada").criteria
    assert guarded.Worker._now is worker


def test_same_as_without_the_process():
    data = given("2.4").SerializeToString()
    apart, here = (f(task("2.4"), data, "a.onnx", "ada") for f in (guarded.examine, assessing.assessed))
    assert apart == here


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system knows no fork")
def test_after_a_fork_the_child_starts_its_own():
    data = given("2.4").SerializeToString()
    guarded.examine(task("2.4"), data, "a.onnx", "ada")
    worker = guarded.Worker._now
    pid = os.fork()
    if pid == 0:
        os._exit(0 if guarded.Worker._now.owner != os.getpid() else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert worker.child.poll() is None
