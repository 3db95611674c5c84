"""Opsets, IR version, domains and operators: what is said where this runtime does not know what a file asks for."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from doctor_models import found, linear, named_function, parsed, weights
from onnx import helper

import course_utils as cu
from course_utils.diagnosis.child import runtime
from course_utils.diagnosis.vocabulary import Finding


def model(
    body: str,
    stored: Mapping[str, np.ndarray] | None = None,
    *,
    more: str = "",
    opset: int = 21,
    kind: str = "float[N, 4]",
    out: str = "",
) -> onnx.ModelProto:
    return parsed(
        f"g ({kind} x) => ({out or kind} y) {{ {body} }}", stored, opset=opset, more=f', "{more}": 1' if more else ""
    )


def the(made: onnx.ModelProto, code: str, **how: object) -> Finding:
    (finding,) = [f for f in cu.doctor(made, **how).findings if f.code.id == code]
    return finding


# Numbers


def test_the_newest_that_this_runtime_takes():
    """The next one is refused, and the finding tells both."""
    newest, ir = runtime.newest(""), runtime.newest_ir()
    assert found(linear(opset=newest, ir=ir)) == []
    late = the(linear(opset=newest + 1), "opset-too-new")
    assert late.cause.startswith(
        f"ai.onnx {newest + 1}; ONNX Runtime {runtime.version()} takes up to {newest}. It says: “"
    )
    assert late.cause.endswith(f"It says: “{runtime.refusal(8, '', newest + 1)}”"), (
        "to its end, where the number stands"
    )
    assert late.places == "file 'opset of ai.onnx'"
    assert ("Is the number right?" in late.cure) == (newest + 1 > onnx.defs.onnx_opset_version())
    beyond = the(linear(ir=ir + 1), "ir-too-new")
    assert beyond.cause.startswith(
        f"IR version {ir + 1}; ONNX Runtime {runtime.version()} reads up to {ir}. It says: “"
    )
    assert beyond.cause.endswith(f"It says: “{runtime.refusal(ir + 1, '', 7)}”")
    assert beyond.places == "file 'ir_version'"


def test_an_opset_that_onnx_does_not_know():
    cure = the(linear(opset=onnx.defs.onnx_opset_version() + 1), "opset-too-new").cure
    assert f"onnx {onnx.__version__} knows opsets up to {onnx.defs.onnx_opset_version()}, so" in cure
    assert f"opset_version={runtime.newest('')}," in cure


def test_opsets_of_other_domains():
    """The one that nobody knows is another finding, or none where nobody uses it."""
    for domain in ("com.microsoft", "ai.onnx.ml"):
        made = linear()
        made.opset_import.append(helper.make_opsetid(domain, 99))
        late = the(made, "opset-too-new")
        assert late.cause.startswith(f"{domain} 99; ")
        assert f" takes up to {runtime.newest(domain)}. " in late.cause
        assert f" for domain {domain} is till opset {runtime.newest(domain)}." in late.cause
        assert late.cure == late.code.cure
        made.opset_import[1].version = runtime.newest(domain)
        assert found(made) == []
        made.opset_import[1].version = 0
        assert "opset-too-new" not in found(made)
    made.opset_import[1].domain, made.opset_import[1].version = "my.own", 99
    assert found(made) == []


def test_opsets_that_are_given_count():
    """In an old file format, too; and opset 0 is not too new."""
    made = model("y = Gelu(x)", opset=20)
    made.ir_version = 2
    assert "operator-unknown" not in found(made)
    assert [c for c in found(linear(opset=0)) if c.startswith("op")] == ["operator-unknown", "opset-too-old"]


def test_nothing_is_said_of_operators_in_an_opset_that_is_too_new():
    made = linear(opset=99)
    made.graph.node[0].op_type = "Matmul"
    assert found(made) == ["opset-too-new"]


@pytest.mark.parametrize(("opset", "old"), [(6, True), (7, False)])
def test_opsets_that_are_too_old(opset, old):
    made = model("y = Tanh(x)", opset=opset)
    assert ("opset-too-old" in found(made)) == old
    if old:
        assert the(made, "opset-too-old").cause.startswith("Opset 6; ONNX Runtime promises 7 and newer.")
        made.graph.node[0].domain = "com.microsoft"
        made.graph.node[0].op_type = "QuickGelu"
        made.opset_import.append(helper.make_opsetid("com.microsoft", 1))
        assert "opset-too-old" not in found(made), "no node is of this opset"


@pytest.mark.parametrize(("ir", "codes"), [(2, ["opset-too-old"]), (3, ["opset-missing"])])
def test_files_from_before_there_were_opsets(ir, codes):
    """Before IR version 3 there was no list of them: it is opset 1."""
    made = model("y = Tanh(x)", opset=6)
    made.ir_version = ir
    del made.opset_import[:]
    codes_found = found(made)
    assert [c for c in codes_found if c in ("opset-too-old", "opset-missing")] == codes
    if ir == 2:
        assert the(made, "opset-too-old").cause.startswith("Opset 1;")
        made.graph.node[0].op_type = "Gelu"
        assert "has it from opset 20 on, and the file has opset 1." in the(made, "operator-unknown").cause


def test_the_opset_that_was_asked_for():
    finding = the(linear(opset=18), "opset-not-as-requested", requested_opset=17)
    assert (finding.cause, finding.places) == ("Asked for: 17. In the file: 18.", "file 'opset of ai.onnx'")


# Domains


def test_a_domain_that_is_not_imported():
    made = model("a = com.microsoft.QuickGelu(x)  y = com.microsoft.QuickGelu(a)")
    finding = the(made, "opset-missing")
    assert finding.cause.startswith("The domain 'com.microsoft', used by 2 nodes, is not in opset_import.")
    assert finding.count == 2
    standard = linear()
    standard.opset_import[0].domain = "ai.onnx.ml"
    standard.opset_import[0].version = 3
    assert the(standard, "opset-missing").cause.startswith("The domain 'ai.onnx', used by 1 node,")


HINTS = {
    "ai.onnx.contrib": "onnxruntime-extensions", "com.microsoft.extensions": "onnxruntime-extensions", "ai.onnx.training": "for training",
    "ai.onnx.preview.training": "for training", "org.pytorch.aten": "PyTorch functions", "aten": "PyTorch functions",
}  # fmt: skip


@pytest.mark.parametrize("domain", HINTS)
def test_domains_that_are_known_elsewhere(domain):
    made = model("a = Relu(x)  y = Tanh(a)", more=domain)
    for node, op in zip(made.graph.node, ("First", "Second"), strict=True):
        node.domain, node.op_type = domain, op
    finding = the(made, "domain-unknown")
    assert finding.cause.startswith(f"2 nodes of the domain '{domain}': First, Second. T")
    assert HINTS[domain] in finding.cause


def test_a_domain_of_somebody_s_own():
    made = model("a = my.own.F(x)  y = my.own.F(a)", more="my.own")
    assert the(made, "domain-unknown").cause.startswith("2 nodes of the domain 'my.own': F. ONNX Runtime says")


# Operators


@pytest.mark.parametrize(
    ("body", "opset", "words"),
    [
        ("y = Sofmax(x)", 21, "Sofmax: ai.onnx never had an operator of this name. Is it Softmax?"), ("y = Qwertz(x)", 21, "Qwertz: ai.onnx never had an operator of this name. ONNX"),
        ("y = Gelu(x)", 19, "Gelu: ai.onnx has it from opset 20 on, and the file has opset 19."),
        ("y = GroupNormalization<num_groups = 1>(x, x, x)", 17, "GroupNormalization: ai.onnx has it from opset 18 on, and the file has opset 17."),
        ("y = Upsample(x, x)", 10, "Upsample: ai.onnx withdrew it with opset 10, and the file has opset 10."),
        ("y = com.microsoft.Relu(x)", 21, "Relu: com.microsoft never had an operator of this name. The domain ai.onnx has one."),
        ("y = QuickGelu(x)", 21, "QuickGelu: ai.onnx never had an operator of this name. The domain com.microsoft has one."),
    ],
)  # fmt: skip
def test_operators_that_are_not_there(body, opset, words):
    made = model(body, opset=opset, more="com.microsoft")
    assert the(made, "operator-unknown").cause.startswith(words)


def test_operators_in_their_own_opset():
    assert found(model("y = Gelu(x)", opset=20)) == []
    resized = model("y = Upsample(x, s)", {"s": np.ones(2, np.float32)}, opset=9)
    assert "operator-unknown" not in found(resized)


def test_many_causes_are_counted():
    names = ("Abc", "Bcd", "Cde", "Def", "Efg")
    for number in (3, 5):
        body = "  ".join(
            f"{'y' if i == number - 1 else f't{i}'} = {name}({f't{i - 1}' if i else 'x'})"
            for i, name in enumerate(names[:number])
        )
        finding = the(model(body), "operator-unknown")
        assert finding.count == number
        assert ("And 2 more." in finding.cause) == (number == 5)
        assert "more." not in finding.cause.split("ONNX Runtime says")[0].replace("And 2 more.", "")
        assert "Cde:" in finding.cause
        assert "Def:" not in finding.cause


# Attributes


def test_attributes_that_are_not_there():
    assert the(model("y = Relu<alpha = 1.0>(x)"), "attribute-unknown").cause.startswith(
        "Relu as of opset 14 has no attribute 'alpha'. ONNX Runtime says"
    )
    older = model("y = ReduceSum<noop_with_empty_axes = 1>(x)", opset=12, out="float[1, 1]")
    assert "ReduceSum has it from opset 13 on." in the(older, "attribute-unknown").cause
    assert found(model("y = Relu<__note = 1>(x)")) == [], "names that begin so are nobody's"
    assert found(model("y = LeakyRelu<alpha = 1.0>(x)")) == []
    second = the(model("y = LeakyRelu<alpha = 1.0, beta = 2.0>(x)"), "attribute-unknown")
    assert second.cause.startswith("LeakyRelu as of opset 16 has no attribute 'beta'.")
    learned = 'y = ai.onnx.ml.Normalizer<norm = "L2", power = 2>(x)'
    assert the(model(learned, more="ai.onnx.ml"), "attribute-unknown").cause.startswith(
        "Normalizer as of opset 1 has no attribute 'power'."
    )


def test_an_attribute_that_only_onnx_knows(monkeypatch):
    """As where the onnx package is newer than ONNX Runtime."""
    from dataclasses import replace

    table = {
        key: [replace(s, attributes=s.attributes - {"axis"}) for s in group] if key[1] == "Softmax" else group
        for key, group in runtime.schemas().items()
    }
    monkeypatch.setattr(runtime, "schemas", lambda: table)
    from course_utils.diagnosis.findings import versions

    node = helper.make_node("Softmax", ["x"], ["y"], axis=1)
    words = versions._odd_attribute("", "Softmax", 13, node)
    assert (
        words
        == f"Softmax as of opset 13 has no attribute 'axis'. The onnx package knows it from opset 13 on, ONNX Runtime {runtime.version()} does not."
    )


# Implementations


def test_operators_that_the_cpu_lacks():
    made = parsed("g (int16[N] x, int16[N] z) => (int16[N] y) { y = Max(x, z) }")
    finding = the(made, "operator-not-implemented")
    assert finding.cause.startswith("Max as of opset 13 with inputs of int16, int16. ")
    assert finding.cure == finding.code.cure
    old = the(model("y = Relu(x)", opset=1), "operator-not-implemented")
    assert old.cause.startswith("Relu as of opset 1. "), "whatever it is fed"
    own = the(
        parsed("g (bfloat16[N] x) => (bfloat16[N] y) { y = com.microsoft.FastGelu(x) }", more=', "com.microsoft": 1'),
        "operator-not-implemented",
    )
    assert own.cause.startswith("FastGelu of com.microsoft with inputs of bfloat16 has no implementation for the CPU. ")
    assert own.cure.startswith("The operator is made for other execution providers")


def test_both_kinds_of_missing_implementations():
    """The cure of another provider only where it helps everywhere."""
    both = parsed(
        "g (int16[N] x, bfloat16[N] z) => (int16[N] y, bfloat16[N] v) { y = Max(x, x)  v = com.microsoft.FastGelu(z) }",
        more=', "com.microsoft": 1',
    )
    finding = the(both, "operator-not-implemented")
    assert finding.count == 2
    assert finding.cure == finding.code.cure


def test_types_that_are_not_known():
    """In a branch the types of outer tensors are not at hand: nothing is said before the runtime says it."""
    branch = """g (bool c, {0}[N] x) => ({0}[N] y) {{
        y = If (c) <then_branch = a () => ({0}[N] t) {{ t = Max(x, x) }}, else_branch = b () => ({0}[N] e) {{ e = Neg(x) }}> }}"""
    assert found(parsed(branch.format("float"))) == []
    finding = the(parsed(branch.format("int16")), "operator-not-implemented")
    assert finding.cause.startswith("ONNX Runtime says: ")


@pytest.mark.parametrize(
    "body",
    [
        "y = Constant<value = float[1, 4] {1.0, 2.0, 3.0, 4.0}>()",
        "y = MeanVarianceNormalization<axes = [1]>(x)",
        "y = HardSwish(x)",
        "y = Celu(x)",
        "y = GroupNormalization<num_groups = 2>(x, s, s)",
    ],
)
def test_operators_that_are_made_of_others(body):
    stored = {"s": weights(4)} if "Group" in body else None
    kind, out = ("float[N, 4]", "float[1, 4]" if "Constant" in body else "")
    assert [c for c in found(model(body, stored, kind=kind, out=out)) if c != "dead-nodes"] == []


# Clashes and layouts


@pytest.mark.parametrize(
    ("name", "codes"), [("Add", True), ("Sub", True), ("Mul", True), ("Div", True), ("Pow", False)]
)
def test_functions_that_are_named_like_operators_of_two_inputs(name, codes):
    made = named_function(name)
    assert ("function-name-clash" in [f.code.id for f in cu.doctor(made).findings]) == codes
    if codes:
        finding = the(made, "function-name-clash")
        assert finding.cause.startswith(f"The function my.own::{name} is called with 1 input. ")
        assert f"as the standard {name} has it" in finding.cause
        assert finding.places == "node #0 'y'"


def test_a_function_of_two_inputs_is_no_clash():
    made = named_function("Add")
    made.functions[0].input.append("b2")
    made.graph.node[0].input.append("x")
    assert found(made) == []


@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("layout", [None, 0, 1])
def test_the_batch_in_front_of_recurrent_layers(op, layout):
    gates = {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    said = "" if layout is None else f", layout = {layout}"
    body = f"y = {op}<hidden_size = 3{said}>(x, w, r)"
    made = model(
        body,
        {"w": weights(1, 3 * gates, 4), "r": weights(1, 3 * gates, 3)},
        kind="float[T, N, 4]",
        out="float[?, ?, ?, ?]",
    )
    assert ("operator-not-implemented" in found(made)) == (layout == 1)
    if layout == 1:
        finding = the(made, "operator-not-implemented")
        assert finding.cause.startswith(f"{op} with layout=1, where the batch stands first.")
        assert "layout=0" in finding.cure


def test_an_attribute_too_many_beside_graphs():
    """The runtime is asked about the node alone: what its branches read from outside is not there."""
    made = parsed("""g (bool c, float[4] x) => (float[4] y) { h = Neg(x)  y = If<odd = 1,
        then_branch = a () => (float[4] t) { t = Abs(h) }, else_branch = b () => (float[4] e) { e = Neg(h) }>(c) }""")
    assert the(made, "attribute-unknown").cause.startswith("If as of opset 21 has no attribute 'odd'.")
