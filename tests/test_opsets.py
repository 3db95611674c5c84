"""The helpers of lesson 02: history, probe, the exporter's messages, the explorer."""

from __future__ import annotations

import json
import logging
import warnings

import onnx
import pytest

import course_utils as cu
from course_utils.lab.opsets import editions_of, why_not_loaded
from course_utils.widgets.opsets import frame


def test_history_has_every_version_once() -> None:
    history = cu.operator_history()
    expected = [s for s in onnx.defs.get_all_schemas_with_history() if s.domain == ""]
    assert len(history) == len(expected)
    assert not history.duplicated(["operator", "opset"]).any()
    assert set(history["event"]) == {"new", "changed", "withdrawn"}
    assert history["opset"].is_monotonic_increasing


def test_history_says_what_is_different() -> None:
    mean = cu.operator_history("ReduceMean").set_index("opset")
    assert "axes: attribute → input" in mean.loc[18, "what"]
    assert mean.loc[18, "inputs"] == "data, axes"
    assert "default of axis: 1 → -1" in cu.operator_history("Softmax").set_index("opset").loc[13, "what"]
    assert list(cu.operator_history("Upsample")["event"])[-1] == "withdrawn"


def test_history_of_another_domain() -> None:
    assert "Normalizer" in set(cu.operator_history(domain="ai.onnx.ml")["operator"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [("softmx", "Softmax"), ("CONV", "Conv"), ("LayerNorm", "LayerNormalization"), ("zzz", "lists all")],
)
def test_unknown_operator_gets_the_closest_names(name: str, hint: str) -> None:
    with pytest.raises(cu.CourseError, match=hint) as caught:
        cu.operator_history(name)
    assert repr(name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_domain() -> None:
    with pytest.raises(cu.CourseError, match=r"ai\.onnx\.ml"):
        cu.operator_history(domain="com.example")


def test_probe_finds_both_limits() -> None:
    table = cu.loads_in_this_runtime(opsets=[7, 17, 99], ir_versions=[8, 99])
    assert table.loc[8].to_dict() == {7: True, 17: True, 99: False}
    assert not table.loc[99].any()
    assert all(dtype == "bool" for dtype in table.dtypes)


def test_probe_by_default_reaches_beyond_the_newest() -> None:
    table = cu.loads_in_this_runtime()
    assert table.columns.max() > onnx.defs.onnx_opset_version()
    assert table.index.max() > onnx.IR_VERSION
    assert table.loc[8, 17]


@pytest.mark.parametrize("bad", [[0], [-1], ["17"], [17.0], [True]])
def test_probe_refuses_what_is_no_opset(bad: list) -> None:
    with pytest.raises(cu.CourseError, match="whole numbers from 1 on"):
        cu.loads_in_this_runtime(opsets=bad)


def test_reason_names_no_source_file() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 99, opset_import: ["": 17]> g (float[1] x) => (float[1] y) { y = Relu(x) }'
    )
    assert why_not_loaded(model).startswith("Unsupported model IR version: 99")
    model.ir_version, model.opset_import[0].version = 8, 99
    assert why_not_loaded(model).startswith("ONNX Runtime only *guarantees*")


def test_messages_are_collected_and_not_printed(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch.onnx")  # it gives its logger a handler when it is imported
    logger = logging.getLogger("torch.onnx")
    handlers = logger.handlers[:]
    with cu.exporter_messages() as heard:
        logging.getLogger("torch.onnx.somewhere").warning("one\ntwo")
        logging.getLogger("onnxscript").warning("three")
        logging.getLogger("onnxscript").warning("three")
        warnings.warn("four", stacklevel=1)
    assert heard == ["one two", "three", "four"]
    assert capfd.readouterr() == ("", "")
    assert logger.handlers == handlers


def test_logging_is_restored_after_an_error() -> None:
    logger = logging.getLogger("onnxscript")
    before = (logger.handlers[:], logger.propagate)
    with pytest.raises(ValueError, match="boom"), cu.exporter_messages():
        raise ValueError("boom")
    assert (logger.handlers, logger.propagate) == before


def test_explorer_is_linked_without_a_kernel_and_small() -> None:
    from ipywidgets import Widget
    from ipywidgets.embed import embed_data

    Widget.close_all()  # of earlier tests in this process, which would count
    box = cu.opset_explorer()
    chooser, stack = box.children
    assert len(chooser.options) == len(stack.children)
    assert chooser.index == stack.selected_index
    assert f"<b>{chooser.value}</b>" in stack.children[chooser.index].value
    state = embed_data([box])["manager_state"]["state"]
    assert any(model["model_name"] == "LinkModel" for model in state.values())
    assert len(json.dumps(state)) < 400_000


def test_explorer_of_chosen_operators() -> None:
    assert cu.opset_explorer(["Resize", "Conv"]).children[0].options == ("Conv", "Resize")
    assert cu.opset_explorer("Conv").children[0].options == ("Conv",)
    with pytest.raises(cu.CourseError, match="Did you mean Conv"):
        cu.opset_explorer(["conv"])
    with pytest.raises(cu.CourseError, match="no operator"):
        cu.opset_explorer([])


def test_explorer_uses_the_colours_of_the_page() -> None:
    text = frame(editions_of("Upsample"))
    assert 'stroke="currentColor"' in text
    assert "withdrawn" in text
    assert "color:var(--pst-color-text-base," in text
