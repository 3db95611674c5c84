"""What the doctor's findings say: causes, cures, and what they quote."""

from __future__ import annotations

import pytest
from doctor_models import found, linear, parsed, weights
from test_doctor_findings import filled, notes

import course_utils as cu


def test_the_opset_that_was_asked_for():
    assert found(linear(opset=18), requested_opset=13) == ["opset-not-as-requested"]
    assert found(linear(opset=18), requested_opset=18) == []


def test_refusals_of_the_runtime_are_quoted():
    """The same words as when the model is loaded."""
    from course_utils.lab.opsets import why_not_loaded

    for model in (linear(opset=99), linear(ir=99)):
        assert why_not_loaded(model) in cu.doctor(model).findings[0].cause


@pytest.mark.parametrize(
    ("graph", "words"),
    [
        ("y = Reluu(x)", "ai.onnx never had an operator of this name. Is it Relu?"),
        ("y = Gelu(x)", "ai.onnx has it from opset 20 on, and the file has opset 17."),
        ("y = Upsample(x, x)", "ai.onnx withdrew it with opset 10, and the file has opset 17."),
        ("y = BiasGelu(x, x)", "The domain com.microsoft has one."),
    ],
)
def test_unknown_operators_are_explained(graph, words):
    report = cu.doctor(parsed(f"g (float[N] x) => (float[N] y) {{ {graph} }}", opset=17))
    assert report.codes == ["operator-unknown"]
    assert words in report.findings[0].cause


def test_attributes_of_other_opsets_are_explained():
    """As the default exporter left one behind in a conversion to 17; and one that the installed runtime may not know."""
    older = parsed("g (float[N] x) => (float[1] y) { y = ReduceL2<noop_with_empty_axes = 0>(x) }", opset=17)
    report = cu.doctor(older)
    assert report.codes == ["attribute-unknown"]
    assert "ReduceL2 has it from opset 18 on." in report.findings[0].cause
    assert found(parsed("g (float[N] x) => (float[1] y) { y = ReduceL2<noop_with_empty_axes = 0>(x) }", opset=18)) == []


def test_an_opset_that_nobody_knows_cannot_be_converted():
    cure = cu.doctor(linear(opset=99)).findings[0].cure
    assert "Is the number right?" in cure
    assert "opset_version=" in cure


@pytest.mark.parametrize(("layout", "codes"), [(0, []), (1, ["operator-not-implemented"])])
def test_recurrent_layers_with_the_batch_first(layout, codes):
    """The standard has this layout, ONNX Runtime on the CPU has not."""
    stored = {"w": weights(1, 12, 4), "r": weights(1, 12, 3)}
    report = cu.doctor(
        parsed(
            f"g (float[2, 5, 4] x) => (float[?, ?, ?, ?] y) {{ y = GRU<hidden_size = 3, layout = {layout}>(x, w, r) }}",
            stored,
        )
    )
    assert [c for c in report.codes if c != "batch-fixed"] == codes
    assert not codes or "layout=0" in report.findings[0].cure


@pytest.mark.parametrize("folder", ["/srv/env", "/home/{}".format("runner")])
def test_packages_tell_nothing_of_a_person(folder):
    text, model = f"{folder}/lib/python3.11/site-packages/torch/nn/linear.py", linear()
    notes(model, f'File "{text}", line 3')
    assert found(model) == []
    notes(model, f'File "/home/user{text}", line 3')
    assert found(model) == ["paths-of-a-machine"]


def test_quoted_words_stand_on_one_line():
    report = cu.doctor(filled(2**20, 2**20))
    assert all("\\n" not in f.cause for f in report.findings), report


@pytest.mark.parametrize(
    ("name", "version", "shown"),
    [
        ("pytorch", "2.13.0", "pytorch 2.13.0"),
        ("pytorch", "", "pytorch"),
        ("", "2.13.0", None),
        ("p" * 99, "v" * 99, "…"),
    ],
)
def test_who_wrote_the_file(name, version, shown):
    """At most sixty characters: what is longer is shown by its two ends."""
    model = linear()
    model.producer_name, model.producer_version = name, version
    told = cu.doctor(model).facts.get("written by")
    if shown == "…":
        assert told.startswith("ppp")
        assert told.endswith("vvv")
        assert 40 < len(told) <= 60
    else:
        assert told == shown


def test_weights_wherever_they_lie():
    """Those of constants and branches count as well, and the two dtypes that take most room are named."""
    zeros = ", ".join(20 * "0")
    model = parsed(
        f"""g (float[N, 4] x, bool c) => (float[N, 4] y, int64[8] z) <float[4] w = {{1, 2, 3, 4}}> {{
        z = Constant<value = int64[8] {{1, 2, 3, 4, 5, 6, 7, 8}}>()
        b = If(c) <
            then_branch = t () => (float[1] u) <float16[20] far = {{{zeros}}}> {{ f = Cast<to = 1>(far)  u = ReduceSum(f) }},
            else_branch = e () => (float[4] v) {{ v = Identity(w) }}>
        y = Add(x, b) }}"""
    )
    facts = cu.doctor(model).facts
    assert (facts["weights"], facts["nodes"]) == ("120 bytes (int64, float16)", "6")
