"""Opsets, IR version, domains and operators: does this runtime know what the file asks for?"""

from __future__ import annotations

import difflib
import time
from collections import defaultdict
from collections.abc import Iterator

import onnx

from ...onnx_files import COMPILED
from ..child import runtime
from ..child.alone import alone
from ..child.onnx_tools import Verdict, ask_runtime
from ..parts import STANDARD, Scope, attribute, domain, dtype_name, is_op
from ..patient import Patient
from ..vocabulary import ERROR, WARNING, Code, Finding, Place, code, finding, listed, nodes, plain
from .dtypes import differing

IR = code(
    "ir-too-new",
    ERROR,
    "02",
    "The file format (IR version) is newer than this runtime reads",
    "Update ONNX Runtime, or set model.ir_version to what it reads and save again: that is safe for models without newer features.",
)
NEW = code(
    "opset-too-new",
    ERROR,
    "02",
    "The opset is newer than this runtime takes",
    "Update ONNX Runtime, export with a lower opset_version, or try onnx.version_converter.convert_version.",
)
OLD = code(
    "opset-too-old",
    WARNING,
    "02_converter",
    "The opset is older than what ONNX Runtime promises to support",
    "Move it up with onnx.version_converter.convert_version, and compare the results before and after.",
)
NONE = code(
    "opset-missing",
    ERROR,
    "02_domains_and_functions",
    "A node's domain is not in the list of opsets",
    "Add it to model.opset_import: onnx.helper.make_opsetid(domain, version).",
)
DIFFERS = code(
    "opset-not-as-requested",
    WARNING,
    "02",
    "The file has another opset than was asked for",
    "Trust the file, and assert its opset after each export. The default exporter writes 18 where it cannot go lower.",
)
DOMAIN = code(
    "domain-unknown",
    ERROR,
    "02_domains_and_functions",
    "Operators of a domain that this runtime does not know",
    "Register the library that brings them (SessionOptions.register_custom_ops_library), or replace the nodes.",
)
OPERATOR = code(
    "operator-unknown",
    ERROR,
    "02",
    "There is no such operator in the opset of the file",
    "Correct the name, or convert the model to an opset that has the operator.",
)
ATTRIBUTE = code(
    "attribute-unknown",
    ERROR,
    "02",
    "A node has an attribute that its operator does not have in this opset",
    "Correct its name, convert the model to an opset that has it, or update ONNX Runtime. The default exporter can leave one "
    "behind when it converts to an opset below 18: export 18 in its place.",
)
KERNEL = code(
    "operator-not-implemented",
    ERROR,
    "02",
    "ONNX Runtime knows the operator, and does not implement this version of it, or these dtypes, for the CPU",
    "Export in float32 or float16, convert the model to another opset, or run it on a provider that implements the operator.",
)
CLASH = code(
    "function-name-clash",
    ERROR,
    "02_domains_and_functions",
    "A function is named like a standard operator, and ONNX Runtime takes it for that one",
    "Give the function a name that no standard operator has. Loading the file as it is can end the whole process.",
)
_MICROSOFT = {
    "ai.onnx.contrib": "The package onnxruntime-extensions brings them.",
    "com.microsoft.extensions": "The package onnxruntime-extensions brings them.",
    "ai.onnx.training": "They are for training, and inference builds leave them out.",
    "ai.onnx.preview.training": "They are for training, and inference builds leave them out.",
    "org.pytorch.aten": "They stand for PyTorch functions that the exporter could not translate: export again with the default exporter.",
    "aten": "They stand for PyTorch functions that the exporter could not translate: export again with the default exporter.",
}
_OLDEST_PROMISED = 7
_OLDEST_IR_WITH_OPSETS = 3
_CHECKED = ("", "ai.onnx.ml", "com.microsoft")  # domains in which ONNX Runtime refuses attributes that it does not know
_RECURRENT = ("RNN", "GRU", "LSTM")
# Its optimiser looks at the second input of what has these names (onnxruntime 1.31.1 ends the process if there is none).
_TWO_INPUTS = ("Add", "Sub", "Mul", "Div")


def numbers(patient: Patient) -> Iterator[Finding]:
    """IR version and opsets, against what this runtime takes. The refusals are its own words."""
    model, here = patient.model, f"ONNX Runtime {runtime.version()}"
    used = {domain(node) for _, _, node in patient.each_node()}
    ir_words = runtime.refusal(model.ir_version, "", 7)
    if ir_words:
        text = f"IR version {model.ir_version}; {here} reads up to {runtime.newest_ir()}. It says: “{plain(ir_words, 300)}”"
        yield finding(IR, text, Place("file", "ir_version"))
    for name, version in sorted(patient.opsets.items(), key=lambda item: str(item[0])):
        if name not in runtime.domains() or version < 1:
            continue
        words = runtime.refusal(8, name, version)
        if words:
            shown = name or "ai.onnx"
            text = f"{shown} {version}; {here} takes up to {runtime.newest(name)}. It says: “{plain(words, 600)}”"
            known, advice = onnx.defs.onnx_opset_version(), ""
            if name == "" and version > known:
                advice = (
                    f"Is the number right? onnx {onnx.__version__} knows opsets up to {known}, so it cannot convert the file. Export "
                    f"again with opset_version={runtime.newest('')}, or update onnx and ONNX Runtime."
                )
            yield finding(NEW, text, Place("file", f"opset of {shown}"), advice)
    opset = patient.opsets.get("")
    if opset is None and model.ir_version < _OLDEST_IR_WITH_OPSETS:
        opset = 1  # before IR version 3 a file had no list of opsets
    if opset is not None and opset < _OLDEST_PROMISED and "" in used:
        text = f"Opset {opset}; ONNX Runtime promises {_OLDEST_PROMISED} and newer. Some operators of older ones are missing."
        yield finding(OLD, text, Place("file", "opset of ai.onnx"))
    asked = patient.requested_opset
    if asked is not None and opset != asked:
        yield finding(DIFFERS, f"Asked for: {asked}. In the file: {opset}.", Place("file", "opset of ai.onnx"))


def operators(patient: Patient) -> Iterator[Finding]:
    """Each node's domain and operator, against the definitions that the runtime itself holds."""
    if any(d in runtime.domains() and v > runtime.newest(d) for d, v in patient.opsets.items()):
        return  # said already; what a newer opset holds is not known here
    found: dict[tuple[Code, str], list[tuple[Place, str]]] = defaultdict(list)
    doubtful: dict[tuple[Code, str], tuple[list[tuple[Place, str]], bytes]] = {}
    for scope, index, node in patient.each_node():
        if (domain(node), node.op_type) not in patient.functions:
            what, certain = _judged(patient, scope, node)
            seen = scope.place(index), plain(node.op_type)
            if what is not None and certain:
                found[what].append(seen)
            elif what is not None:
                doubtful.setdefault(what, ([], alone(patient, scope, node)))[0].append(seen)
    until = time.monotonic() + patient.seconds  # for all questions together: each takes milliseconds
    for what, (places, model) in doubtful.items():
        left = until - time.monotonic()
        answer = ask_runtime(model, 0, left) if left > 0 else Verdict()
        # No answer: what the runtime's own list says of an attribute still counts; of implementations it does not tell all.
        if what[0] is ATTRIBUTE if answer.loads is None else any(said in answer.words for said in _REFUSALS[what[0]]):
            found[what] = places
    for (kind, detail), items in found.items():
        where = [place for place, _ in items]
        if kind is NONE:
            yield finding(NONE, f"The domain {detail!r}, used by {nodes(len(where))}, is not in opset_import.", where)
        elif kind is DOMAIN:
            ops, hint = listed(dict.fromkeys(op for _, op in items)), _MICROSOFT.get(detail, "")
            text = f"{nodes(len(where))} of the domain {detail!r}: {ops}. {hint}".rstrip()
            yield finding(DOMAIN, text, where)
    for kind in (OPERATOR, ATTRIBUTE, KERNEL):  # a model in bfloat16 can have many of these
        details = {detail: items for (code_, detail), items in found.items() if code_ is kind}
        if details:
            rest = f" And {len(details) - 3} more." if len(details) > 3 else ""
            where = [place for items in details.values() for place, _ in items]
            advice = _OTHER_PROVIDER if kind is KERNEL and all(_elsewhere(detail) for detail in details) else ""
            yield finding(kind, " ".join(list(details)[:3]) + rest, where, advice)


# What ONNX Runtime says where a doubt is justified.
_REFUSALS = {
    KERNEL: ("Could not find an implementation", "InsertedPrecisionFreeCast"),
    ATTRIBUTE: ("Unrecognized attribute",),
}
_OTHER_PROVIDER = (
    "The operator is made for other execution providers, such as CUDA: run the model there, or take the file from before it "
    "was optimised for one."
)


def _elsewhere(detail: str) -> bool:
    return detail.endswith(_NOT_HERE)


_NOT_HERE = "has no implementation for the CPU."


def _judged(patient: Patient, scope: Scope, node: onnx.NodeProto) -> tuple[tuple[Code, str] | None, bool]:
    """What is wrong with a node's operator, if anything, and the words for it; and whether that is certain.

    What the runtime lists of itself is not all: some operators take any attribute, and of some it does not tell that they
    are made of others. Then it has to be asked.
    """
    name, op = domain(node), node.op_type
    version = scope.version(node)
    if version is None and patient.model.ir_version < _OLDEST_IR_WITH_OPSETS and name == "":
        version = 1
    if version is None:
        return (NONE, plain(name) or "ai.onnx"), True
    if name not in runtime.domains():
        return (DOMAIN, plain(name)), True
    reason, since = _reason(name, op, version)
    if reason:
        return (OPERATOR, f"{plain(op)}: {reason}"), True
    odd = _odd_attribute(name, op, since, node)
    if odd:
        return (ATTRIBUTE, odd), False
    if differing(patient, scope, node):
        return None, True  # `dtypes` says so
    return _without_kernel(name, op, since, version, _types(patient, scope, node))


def _without_kernel(
    name: str, op: str, since: int, version: int, types: tuple[str, ...]
) -> tuple[tuple[Code, str] | None, bool]:
    """The same for an operator that is known: where the CPU does not implement it."""
    if _runs(name, op, since, version, types):
        return None, True
    known = [t.removeprefix("tensor(").removesuffix(")") for t in types if t]
    fed = f" with inputs of {', '.join(known)}" if known else ""
    if _defined_by_onnx(name, op, version) is None:
        fed = fed if (name, op) in runtime.kernels() else ""
        return (KERNEL, f"{plain(op)} of {name or 'ai.onnx'}{fed} {_NOT_HERE}"), False
    fed = fed if _runs(name, op, since, version, ()) else ""
    return (KERNEL, f"{plain(op)} as of opset {since}{fed}."), True


def _defined_by_onnx(name: str, op_type: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, name)
    except onnx.defs.SchemaError:
        return None


def _reason(name: str, op_type: str, version: int) -> tuple[str, int]:
    """(why the operator is none in this opset, or an empty text; the opset that brought the definition in force)."""
    table = runtime.schemas()
    known = table.get((name, op_type), [])
    if not known and not runtime.schemas_of(name):
        return "", 0  # a domain of which the runtime does not tell what is in it
    inforce = [s for s in known if s.since <= version]
    shown = name or "ai.onnx"
    if inforce and not inforce[-1].withdrawn:
        return "", inforce[-1].since
    if inforce:
        return f"{shown} withdrew it with opset {inforce[-1].since}, and the file has opset {version}.", 0
    if known:
        return f"{shown} has it from opset {known[0].since} on, and the file has opset {version}.", 0
    same = [n for d, n in table if d == name]
    near = difflib.get_close_matches(op_type, same, n=1, cutoff=0.7) if isinstance(op_type, str) else []
    elsewhere = [d for d, n in table if n == op_type and d != name]
    hint = f" The domain {elsewhere[0] or 'ai.onnx'} has one." if elsewhere else f" Is it {near[0]}?" if near else ""
    return f"{shown} never had an operator of this name.{hint}", 0


def _odd_attribute(name: str, op_type: str, since: int, node: onnx.NodeProto) -> str:
    """The first attribute that the definition in force does not have, in words; empty where all are known."""
    definitions = runtime.schemas().get((name, op_type), [])
    now = next((s for s in definitions if s.since == since), None)
    if now is None or name not in _CHECKED:
        return ""
    for a in node.attribute:
        if a.name not in now.attributes and not a.name.startswith("__"):
            later = next((s.since for s in definitions if s.since > since and a.name in s.attributes), 0)
            hint = f" {op_type} has it from opset {later} on." if later else _by_onnx(name, op_type, a.name)
            return f"{plain(op_type)} as of opset {since} has no attribute {plain(a.name)!r}.{hint}"
    return ""


def _by_onnx(name: str, op_type: str, attribute: str) -> str:
    """Where the onnx package, which may be newer than the runtime, has the attribute."""
    try:
        schema = onnx.defs.get_schema(op_type, name)
    except onnx.defs.SchemaError:
        return ""
    if attribute not in schema.attributes:
        return ""
    return (
        f" The onnx package knows it from opset {schema.since_version} on, ONNX Runtime {runtime.version()} does not."
    )


def _types(patient: Patient, scope: Scope, node: onnx.NodeProto) -> tuple[str, ...]:
    """The type of each input, such as tensor(float); empty where it is not known."""
    if scope.label:
        return ("",) * len(node.input)
    found = (patient.tensor_types.get(name, 0) for name in node.input)
    return tuple(f"tensor({dtype_name(t)})" if t else "" for t in found)


def _runs(name: str, op_type: str, since: int, version: int, types: tuple[str, ...]) -> bool:
    """Whether there is an implementation, or the operator is defined by others, which ONNX Runtime puts in its place."""
    if runtime.implemented(name, op_type, since, types) or (name == "" and op_type == "Constant"):
        return True
    if op_type == COMPILED and name == "com.microsoft":
        return True  # made for one provider, which `hardware` says
    schema = _defined_by_onnx(name, op_type, version)
    # onnx's own stubs do not list these two properties.
    by_others = ("has_function", "has_context_dependent_function")
    return schema is not None and any(getattr(schema, name) for name in by_others)


def clashes(patient: Patient) -> Iterator[Finding]:
    found = [
        (scope.place(index), node)
        for scope, index, node in patient.each_node()
        if node.op_type in _TWO_INPUTS and node.domain not in STANDARD
        if (domain(node), node.op_type) in patient.functions and len(node.input) < 2
    ]
    if found:
        node = found[0][1]
        text = (
            f"The function {plain(node.domain)}::{node.op_type} is called with {len(node.input)} input. The optimiser looks "
            f"for a second one, as the standard {node.op_type} has it, and ONNX Runtime 1.31 then ends the process."
        )
        yield finding(CLASH, text, [place for place, _ in found])


def batch_first(patient: Patient) -> Iterator[Finding]:
    """Recurrent layers in the other layout, for which there is a definition and no implementation."""
    found = [
        (scope.place(i), node.op_type)
        for scope, i, node in patient.each_node()
        if is_op(node, *_RECURRENT) and attribute(node, "layout", 0) == 1 and runtime.kernels()
    ]
    if found:
        text = f"{listed(dict.fromkeys(op for _, op in found))} with layout=1, where the batch stands first."
        advice = "Write it with layout=0, and a Transpose for its input, its states and its output."
        yield finding(KERNEL, text, [place for place, _ in found], advice)


CHECKS = (numbers, operators, batch_first, clashes)
