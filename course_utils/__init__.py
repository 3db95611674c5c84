"""Helpers of the ONNX Scroll course: data, viewers, tables, timing and checks. `import course_utils as cu`.

Only what would distract from a lesson lives here. Every name loads its module on first use, so the import itself
takes a few milliseconds: torch and onnxruntime are loaded when something needs them.

The import also switches off the telemetry of ONNX Runtime, for this process and its children. Whoever wants it sets the
variable ORT_DISABLE_TELEMETRY to 0 before.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# ONNX Runtime reads the variable once, when it is imported. An empty value counts as none, as it does for ONNX Runtime.
if not os.environ.get("ORT_DISABLE_TELEMETRY"):
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if "onnxruntime" in sys.modules:
        warnings.warn(
            "onnxruntime was imported before course_utils, so this process may send its telemetry: restart it and "
            "import course_utils first, or set ORT_DISABLE_TELEMETRY=1 before Python starts.",
            stacklevel=2,
        )

if TYPE_CHECKING:
    from .browser_lab import deployment_record, in_browser, node, npm_package
    from .capstone_page import quest_page
    from .checks import check, given, hint, params
    from .claims import claim, ledger
    from .data import CLASS_NAMES, fashion_mnist, normalize
    from .diagnosis import doctor, doctor_codes
    from .environment import machine, setup
    from .ep_experiment import overheard
    from .errors import CourseError
    from .exporter import exporter_messages
    from .graphs import graph_diff, node_table, op_histogram, tensor_table
    from .lookups import telemetry_record, watch_lookups
    from .mechanisms import mechanism_explorer, try_export
    from .models import fashion_resnet, minilm, random_encoder, resnet18
    from .node_lab import in_node
    from .opsets import loads_in_this_runtime, operator_history
    from .parity_gate import parity
    from .phone_checks import prepared_for_checker, usability
    from .pictures import picture
    from .provenance import optimized, origins, traffic
    from .quantization import Calibration, ready_to_quantize
    from .quizzes import quiz
    from .ready_files import course_files, listing, onnxruntime_web
    from .report_cards import report_card
    from .serving_lab import start_server
    from .sessions import (
        ep_record,
        placement_explorer,
        run_ep_experiment,
        second_environment,
        session_log,
        strict_session,
    )
    from .shapes import probe_sizes, run_in_batches, shape_explorer, written_shapes
    from .stopwatch import compare
    from .submission import submit
    from .triton_config import triton_findings
    from .viewer import show, show_page
    from .widget_batching import batching_explorer
    from .widget_levels import level_explorer
    from .widget_opsets import opset_explorer
    from .widget_quantization import scale_explorer
    from .widget_steps import step_through
    from .widget_symptoms import symptom_explorer

_HOME = {
    "CLASS_NAMES": "data",
    "Calibration": "quantization",
    "CourseError": "errors",
    "batching_explorer": "widget_batching",
    "check": "checks",
    "claim": "claims",
    "compare": "stopwatch",
    "course_files": "ready_files",
    "deployment_record": "browser_lab",
    "doctor": "diagnosis",
    "doctor_codes": "diagnosis",
    "ep_record": "sessions",
    "exporter_messages": "exporter",
    "fashion_mnist": "data",
    "fashion_resnet": "models",
    "given": "checks",
    "graph_diff": "graphs",
    "hint": "checks",
    "in_browser": "browser_lab",
    "in_node": "node_lab",
    "ledger": "claims",
    "level_explorer": "widget_levels",
    "listing": "ready_files",
    "loads_in_this_runtime": "opsets",
    "machine": "environment",
    "mechanism_explorer": "mechanisms",
    "minilm": "models",
    "node": "browser_lab",
    "node_table": "graphs",
    "normalize": "data",
    "npm_package": "browser_lab",
    "onnxruntime_web": "ready_files",
    "op_histogram": "graphs",
    "operator_history": "opsets",
    "opset_explorer": "widget_opsets",
    "optimized": "provenance",
    "origins": "provenance",
    "overheard": "ep_experiment",
    "params": "checks",
    "parity": "parity_gate",
    "picture": "pictures",
    "placement_explorer": "sessions",
    "prepared_for_checker": "phone_checks",
    "probe_sizes": "shapes",
    "quest_page": "capstone_page",
    "quiz": "quizzes",
    "random_encoder": "models",
    "ready_to_quantize": "quantization",
    "report_card": "report_cards",
    "resnet18": "models",
    "run_ep_experiment": "sessions",
    "run_in_batches": "shapes",
    "scale_explorer": "widget_quantization",
    "second_environment": "sessions",
    "session_log": "sessions",
    "setup": "environment",
    "shape_explorer": "shapes",
    "show": "viewer",
    "show_page": "viewer",
    "start_server": "serving_lab",
    "step_through": "widget_steps",
    "strict_session": "sessions",
    "submit": "submission",
    "symptom_explorer": "widget_symptoms",
    "telemetry_record": "lookups",
    "tensor_table": "graphs",
    "traffic": "provenance",
    "triton_findings": "triton_config",
    "try_export": "mechanisms",
    "usability": "phone_checks",
    "watch_lookups": "lookups",
    "written_shapes": "shapes",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the names are strings, only computed


def __getattr__(name: str) -> Any:
    """Load the module a public name lives in, on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"course_utils has no {name!r}. It offers: {', '.join(__all__)}.")
    value = getattr(importlib.import_module(f"course_utils.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
