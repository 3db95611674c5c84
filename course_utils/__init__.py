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

from .version import __version__

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
    from .deploy.node_lab import in_node
    from .deploy.phone_checks import prepared_for_checker, usability
    from .deploy.ready_files import course_files, listing, onnxruntime_web
    from .deploy.serving_lab import start_server
    from .diagnosis import doctor, doctor_codes
    from .environment import machine, setup
    from .ep_experiment.placement import overheard
    from .errors import CourseError
    from .handin.checks import check, given, hint, params
    from .handin.report_cards import report_card
    from .handin.solutions import solution
    from .handin.submission import submit
    from .lab.archive import archive_photographs
    from .lab.claims import claim
    from .lab.data import CLASS_NAMES, fashion_mnist, normalize
    from .lab.exporter import exporter_messages
    from .lab.exports import try_export
    from .lab.graphs import graph_diff, node_table, op_histogram, tensor_table
    from .lab.language_models import checkpoint, decoder_file, give_back, smollm2, story
    from .lab.lookups import telemetry_record, watch_lookups
    from .lab.models import fashion_resnet, minilm, resnet18, sentence_encoder
    from .lab.opsets import loads_in_this_runtime, operator_history
    from .lab.parity import parity
    from .lab.pictures import picture
    from .lab.placing import placed
    from .lab.provenance import optimized, origins, traffic
    from .lab.providers import provider_devices, provider_plugins, second_provider
    from .lab.quantization import Calibration
    from .lab.quizzes import quiz
    from .lab.sessions import (
        ep_record,
        ep_records,
        run_ep_experiment,
        session_log,
        strict_session,
    )
    from .lab.shapes import probe_sizes, run_in_batches, written_shapes
    from .lab.small_decoder import small_decoder_text
    from .lab.stopwatch import compare
    from .lab.training import train_pictures
    from .lab.triton_config import triton_findings
    from .pages.browser_lab import deployment_record, in_browser
    from .pages.capstone_page import quest_page
    from .pages.viewer import show, show_page
    from .pages.webgpu_lab import webgpu_in_browser
    from .widgets.batching import batching_explorer
    from .widgets.levels import level_explorer
    from .widgets.mechanisms import mechanism_explorer
    from .widgets.opsets import opset_explorer
    from .widgets.placement import placement_explorer
    from .widgets.quantization import scale_explorer
    from .widgets.shapes import shape_explorer
    from .widgets.steps import step_through
    from .widgets.symptoms import symptom_explorer

_HOME = {
    "CLASS_NAMES": "lab.data",
    "Calibration": "lab.quantization",
    "CourseError": "errors",
    "archive_photographs": "lab.archive",
    "batching_explorer": "widgets.batching",
    "check": "handin.checks",
    "checkpoint": "lab.language_models",
    "claim": "lab.claims",
    "compare": "lab.stopwatch",
    "course_files": "deploy.ready_files",
    "decoder_file": "lab.language_models",
    "deployment_record": "pages.browser_lab",
    "doctor": "diagnosis",
    "doctor_codes": "diagnosis",
    "ep_record": "lab.sessions",
    "ep_records": "lab.sessions",
    "exporter_messages": "lab.exporter",
    "fashion_mnist": "lab.data",
    "fashion_resnet": "lab.models",
    "give_back": "lab.language_models",
    "given": "handin.checks",
    "graph_diff": "lab.graphs",
    "hint": "handin.checks",
    "in_browser": "pages.browser_lab",
    "in_node": "deploy.node_lab",
    "level_explorer": "widgets.levels",
    "listing": "deploy.ready_files",
    "loads_in_this_runtime": "lab.opsets",
    "machine": "environment",
    "mechanism_explorer": "widgets.mechanisms",
    "minilm": "lab.models",
    "node_table": "lab.graphs",
    "normalize": "lab.data",
    "onnxruntime_web": "deploy.ready_files",
    "op_histogram": "lab.graphs",
    "operator_history": "lab.opsets",
    "opset_explorer": "widgets.opsets",
    "optimized": "lab.provenance",
    "origins": "lab.provenance",
    "overheard": "ep_experiment.placement",
    "params": "handin.checks",
    "parity": "lab.parity",
    "picture": "lab.pictures",
    "placed": "lab.placing",
    "placement_explorer": "widgets.placement",
    "prepared_for_checker": "deploy.phone_checks",
    "probe_sizes": "lab.shapes",
    "provider_devices": "lab.providers",
    "provider_plugins": "lab.providers",
    "quest_page": "pages.capstone_page",
    "quiz": "lab.quizzes",
    "report_card": "handin.report_cards",
    "resnet18": "lab.models",
    "run_ep_experiment": "lab.sessions",
    "run_in_batches": "lab.shapes",
    "scale_explorer": "widgets.quantization",
    "second_provider": "lab.providers",
    "sentence_encoder": "lab.models",
    "session_log": "lab.sessions",
    "setup": "environment",
    "shape_explorer": "widgets.shapes",
    "show": "pages.viewer",
    "show_page": "pages.viewer",
    "small_decoder_text": "lab.small_decoder",
    "smollm2": "lab.language_models",
    "solution": "handin.solutions",
    "start_server": "deploy.serving_lab",
    "step_through": "widgets.steps",
    "story": "lab.language_models",
    "strict_session": "lab.sessions",
    "submit": "handin.submission",
    "symptom_explorer": "widgets.symptoms",
    "telemetry_record": "lab.lookups",
    "tensor_table": "lab.graphs",
    "traffic": "lab.provenance",
    "train_pictures": "lab.training",
    "triton_findings": "lab.triton_config",
    "try_export": "lab.exports",
    "usability": "deploy.phone_checks",
    "watch_lookups": "lab.lookups",
    "webgpu_in_browser": "pages.webgpu_lab",
    "written_shapes": "lab.shapes",
}
__all__ = sorted(_HOME)  # noqa: PLE0605 - the names are strings, only computed


def __getattr__(name: str) -> Any:
    """Load the module a public name lives in, on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"course_utils has no {name!r}. It offers: {', '.join(__all__)}.")
    from .errors import CourseError, missing

    try:
        value = getattr(importlib.import_module(f"course_utils.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:  # the package alone brings what the doctor and the checks need
        if error.name is None or error.name.startswith("course_utils"):
            raise
        raise CourseError(missing(error.name, "lessons")) from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
