"""The helpers of lesson 03: one export tried, and the widget over many trials."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import course_utils as cu
from course_utils.lab.exporter import exporter_messages
from course_utils.lab.exports import reason
from course_utils.style import INK
from course_utils.widgets.mechanisms import graph_html


class Gate(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x * 2
        return x - 1


INPUTS = {"above": (torch.ones(1, 2),), "below": (-3 * torch.ones(1, 2),)}


def by_tracing(module, args, file, **how):
    torch.onnx.export(module, args, file, dynamo=False, **how)


def by_scripting(module, args, file, **how):
    by_tracing(torch.jit.script(module), args, file, **how)


def by_default(module, args, file, **how):
    torch.onnx.export(module, args, file, external_data=False, verbose=False, **how)


@pytest.fixture
def trials(folder):
    ways = {"traced": by_tracing, "scripted": by_scripting, "default": by_default}
    return {
        "gate": {name: cu.try_export(way, Gate(), INPUTS["above"], "gate.onnx", INPUTS) for name, way in ways.items()}
    }


def test_verdicts(trials):
    row = trials["gate"]
    assert {name: trial.verdict for name, trial in row.items()} == {
        "traced": "wrong",
        "scripted": "right",
        "default": "refuses",
    }
    assert str(row["traced"]) == "✗ wrong on 'below': -6 in place of -4"
    assert row["traced"].outcomes["above"].verdict == "right"
    assert "GuardOnDataDependentSymNode" in str(row["default"])
    assert "/" not in row["default"].error


def test_a_refusing_exporter_prints_nothing(folder, capfd):
    cu.try_export(by_default, Gate(), INPUTS["above"], "gate.onnx", INPUTS)
    assert capfd.readouterr() == ("", "")


def test_an_old_file_is_not_taken_for_the_result(folder):
    (folder / "gate.onnx").write_bytes(b"old")
    trial = cu.try_export(lambda *_: None, Gate(), INPUTS["above"], "gate.onnx", INPUTS)
    assert (trial.verdict, trial.error) == ("refuses", "nothing was written to gate.onnx")


def test_a_file_that_does_not_load_or_takes_other_inputs(folder):
    def write(text):
        return lambda module, args, file: onnx.save(onnx.parser.parse_model(text), file)

    head = '<ir_version: 10, opset_import: ["": 18]> g '
    future = write(head.replace("10", "99") + "(float[n, 2] x) => (float[n, 2] y) { y = Relu(x) }")
    trial = cu.try_export(future, Gate(), (), "future.onnx", INPUTS)
    assert (trial.verdict, "does not load" in str(trial)) == ("stops", True)
    two = write(head + "(float[n, 2] x, float[n, 2] z) => (float[n, 2] y) { y = Add(x, z) }")
    assert "2 inputs" in str(cu.try_export(two, Gate(), (), "two.onnx", INPUTS))
    wider = write(head + "(float[n, 3] x) => (float[n, 3] y) { y = Relu(x) }")
    assert "Got: 2 Expected: 3" in str(cu.try_export(wider, Gate(), (), "wider.onnx", INPUTS))
    summed = write(head + "(float[n, 2] x) => (float y) { y = ReduceSum<keepdims=0>(x) }")
    assert "shapes [[]] in place of [[1, 2]]" in str(cu.try_export(summed, Gate(), (), "summed.onnx", INPUTS))


def test_a_sequence_is_fed_as_a_list(folder):
    class Total(nn.Module):
        def forward(self, parts: list[torch.Tensor]):
            total = torch.zeros_like(parts[0])
            for part in parts:
                total = total + part
            return total

    one = torch.ones(2)
    inputs = {"two": ([one, one],), "three": ([one, one, one],)}
    assert cu.try_export(by_scripting, Total(), ([one, one],), "total.onnx", inputs).verdict == "right"


def test_numbers_are_compared_in_eval_mode_and_the_module_is_left_alone(folder):
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    module[0].eval()
    trained = [part.training for part in module.modules()]

    def in_eval_mode(module, args, file):  # what the older exporter does, with the modes of all parts put back
        by_tracing(module, args, file)
        for part, training in zip(module.modules(), trained, strict=True):
            part.training = training

    assert cu.try_export(in_eval_mode, module, INPUTS["above"], "drop.onnx", INPUTS).verdict == "right"
    assert (module.training, module[0].training, module[1].training) == (True, False, True)


def test_random_numbers_are_named(folder):
    module = nn.Dropout(0.5).train()
    x = torch.ones(8, 8)
    trial = cu.try_export(by_default, module, (x,), "drop.onnx", {"ones": (x,)})
    assert "other numbers in every run" in str(trial)
    assert any("training mode" in message for message in trial.messages)


def test_no_input():
    with pytest.raises(cu.CourseError, match="at least one"):
        cu.try_export(by_tracing, Gate(), INPUTS["above"], "gate.onnx", {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.ones(1, 2), "'it' of try_export.* is a Tensor: it expects a tuple"),
        (None, "is a NoneType: it expects a tuple"),
        ((torch.ones(1, 2), torch.ones(1, 2)), "PyTorch itself does not run Gate on this input: TypeError"),
    ],
)
def test_an_input_that_pytorch_does_not_take(given, said, folder):
    with pytest.raises(cu.CourseError, match=said):
        cu.try_export(by_tracing, Gate(), INPUTS["above"], "gate.onnx", {"it": given})


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (ValueError(""), "ValueError: no message"),
        (ValueError('in "/srv/ada/x.py":56, or D:\\ada\\y.py'), 'ValueError: in "x.py":56, or y.py'),
        (ValueError("found these:\n- a dog"), "ValueError: found these: a dog"),
        (ValueError('not here:\n  File "/a/b.py", line 3'), "ValueError: not here"),
        (
            RuntimeError(
                "\x1b[96mstep\x1b[0m\n## Exception summary\n\n<class 'a.b.C'>: deep\n\n(Refer to the full stack trace above"
            ),
            "RuntimeError ← C: deep",
        ),
    ],
)
def test_reason_of_an_error(error, said):
    assert reason(error) == said


def test_exporter_messages_restores_everything(capfd):
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    handlers = [(h, h.filters[:]) for h in logging.getLogger("torch").handlers]

    def fail():
        logger.error("not heard")
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"), exporter_messages():
        fail()
    assert capfd.readouterr() == ("", "")
    assert [(h, h.filters) for h in logging.getLogger("torch").handlers] == handlers


def test_explorer_is_linked_without_a_kernel_and_small(trials):
    from ipywidgets import Widget
    from ipywidgets.embed import embed_data

    Widget.close_all()  # of earlier tests in this process, which would count
    box = cu.mechanism_explorer(trials)
    model, mechanism, _ = box.children
    assert (model.options, mechanism.options) == (("gate",), ("traced", "scripted", "default"))
    state = embed_data([box])["manager_state"]["state"]
    assert sum(m["model_name"] == "LinkModel" for m in state.values()) >= 4
    assert len(json.dumps(state)) < 100_000
    text = json.dumps(state)
    assert "then_branch" in text
    assert "Constant_1_output_0 = 2.0" in text
    assert "GuardOnDataDependentSymNode" in text
    shown = [m["state"]["value"] for m in state.values() if m["model_name"] == "HTMLModel" and "value" in m["state"]]
    assert shown
    assert all(f"color:{INK}" in page for page in shown if page), "text takes the colour of the page"


def test_explorer_wants_the_same_mechanisms_everywhere(trials):
    with pytest.raises(cu.CourseError, match="same mechanisms"):
        cu.mechanism_explorer({})
    with pytest.raises(cu.CourseError, match="same mechanisms"):
        cu.mechanism_explorer({**trials, "other": {"traced": trials["gate"]["traced"]}})


def test_graph_is_escaped():
    graph = onnx.parser.parse_graph("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    graph.input[0].name = graph.node[0].input[0] = "<b>"
    assert "<b>" not in graph_html(graph).replace("<b>g", "").replace("<b>graph", "").replace("<b>Relu", "")


class Refused(torch.nn.Module):
    """Takes inputs of 7 columns only."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(-1, 7)  # the line that is named


def scripted(module, args, file, **how):
    torch.onnx.export(torch.jit.script(module), args, file, dynamo=False, **how)


@pytest.mark.parametrize("export", [torch.onnx.export, functools.partial(torch.onnx.export, dynamo=False), scripted])
def test_the_line_of_the_cause_is_named(export, folder) -> None:
    """By its file's name and number, with its text; the exporter's own lines and folders are not."""
    error = cu.try_export(export, Refused(), (torch.ones(2, 4),), "m.onnx", {"x": (torch.ones(2, 7),)}).error
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    number = 1 + next(i for i, line in enumerate(lines) if "# the line that is named" in line)
    assert "RuntimeError: shape '[-1, 7]' is invalid for input of size 8 (" in error
    assert f"({Path(__file__).name}, line {number}: return x.reshape(-1, 7)" in error
    assert str(Path(__file__).parent) not in error


def test_a_line_of_a_cell_has_no_file() -> None:
    text = RuntimeError('bad\n  File "/tmp/ipykernel_17/4711.py", line 2, in forward\n    x = y\n')
    assert reason(text) == "RuntimeError: bad (line 2 of a cell: x = y)"
    assert reason(RuntimeError("bad")) == "RuntimeError: bad"


def test_the_caller_of_a_library_is_not_the_cause() -> None:
    """This file calls json, and json finds the mistake: no line of ours was called on the way."""
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    assert Path(__file__).name not in reason(caught.value)
