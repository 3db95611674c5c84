"""Exercises of lesson 02: look up, lower, convert, heal, and prove it.

What a right answer is must not depend on the versions installed where it is given or graded. So histories are read up
to `model_heads.HORIZON` only, and the runtimes to please are stated in the parameters.
"""

from __future__ import annotations

from .. import Task
from .conversion import check_convert, draw_convert, old_model
from .gate_inputs import GATE
from .model_heads import check_domains, check_ir, draw_domains, draw_ir, from_the_future, unnamed_domain
from .operator_versions import chain, check_history, check_lowest, draw_chain, draw_history

TASKS = (
    Task(
        "2.1",
        "Look up the history",
        "json",
        check_history,
        draw_history,
        points=2,
        hints=(
            "One row of cu.operator_history(operator) is one version. Which column says when it came, and which one names its inputs?",
            "A newcomer's opset is the smallest in its history. For `moved`, keep the rows whose inputs hold the name, and take the smallest opset.",
        ),
    ),
    Task(
        "2.2",
        "The lowest opset",
        "json",
        check_lowest,
        draw_chain,
        lambda p: {"2.2.onnx": chain(p)},
        points=2,
        hints=(
            "An opset does not change all operators. Which version of each operator does the opset of the file choose?",
            "Ask onnx.defs.get_schema(operator, opset).since_version for each node. No version that you found may be newer than the opset you write.",
        ),
    ),
    Task(
        "2.3",
        "Convert to another opset",
        "onnx",
        check_convert,
        draw_convert,
        lambda p: {"2.3.onnx": old_model(p)},
        points=1,
        hints=(
            "Between the two opsets, operators changed their form, and one changed its meaning. Which tool rewrites nodes?",
            "Call version_converter.convert_version(model, target), then run both models on the same random input and compare.",
        ),
    ),
    Task(
        "2.4",
        "An IR version from the future",
        "onnx",
        check_ir,
        draw_ir,
        lambda p: {"2.4.onnx": from_the_future(p)},
        points=1,
        hints=(
            "The IR version is a field of the file, apart from the opset. Between which two limits must it lie?",
            "Find the row of your opset in onnx.helper.VERSION_TABLE: its IR version is the lower limit, device_ir is the upper one.",
        ),
    ),
    Task(
        "2.5",
        "Name your domains",
        "onnx",
        check_domains,
        draw_domains,
        lambda p: {"2.5.onnx": unnamed_domain(p)},
        points=2,
        hints=(
            "Each domain of a node needs an entry in opset_import. Compare the two lists, then look at the history of the standard operators.",
            "Append helper.make_opsetid for the domain without an entry, and set the version of ai.onnx only after get_schema(…).since_version fits your device for each standard node.",
        ),
    ),
    GATE,
)
