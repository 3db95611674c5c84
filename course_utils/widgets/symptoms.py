"""The explorer of lesson 09: choose a symptom, see what is said, the cause, the cure, and where the course shows it.

The symptoms are those of the sixteen patients of the hospital. What onnxruntime says is not written here: each patient
is made and provoked, so the words are those of the installed version.
"""

from __future__ import annotations

import html
import logging
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..diagnosis.vocabulary import lesson_name, spoken
from ..exercises import Params, personal_params, task
from ..style import INK

if TYPE_CHECKING:
    from ipywidgets import VBox

_LONGEST = 560  # characters of a message that are shown
_STUDENT = "lesson"  # draws the parameters of the patients
Provoke = Callable[[list[Path], Params], object]


@dataclass(frozen=True)
class Symptom:
    """One patient of the hospital. tool: the first thing to try. said: what can be seen where no words are said."""

    case: str
    seen: str
    cause: str
    cure: str
    tool: str
    lesson: str
    said: str = ""
    provoke: Provoke | None = None


def _session(file: Path, providers: tuple[str, ...] = ("CPUExecutionProvider",)) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    return ort.InferenceSession(str(file), options, providers=list(providers))


def _load(files: list[Path], p: Params) -> object:
    return _session(files[0])


def _more_rows(files: list[Path], p: Params) -> object:
    return _session(files[0]).run(None, {"x": np.zeros((p["batch"] + 3, p["features"]), np.float32)})


def _more_steps(files: list[Path], p: Params) -> object:
    return _session(files[0]).run(None, {"x": np.zeros((p["steps"] + 5, p["width"]), np.float32)})


def _wrong_provider(files: list[Path], p: Params) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return _session(files[0], (p["wrong_name"], "CPUExecutionProvider"))


def _quantize(files: list[Path], p: Params) -> object:
    from onnxruntime.quantization import quantize_dynamic

    return quantize_dynamic(files[0], files[0].with_name("never.onnx"))


def _as_sent(files: list[Path], p: Params) -> object:
    return _session(files[0]).run(None, {p["sends"]: np.zeros((2, *p["shape"][1:]), np.uint8)})


SYMPTOMS = (
    Symptom(
        "9.1", "It runs with one batch size only", provoke=_more_rows,
        cause="The batch size is a number in the input's shape, or in a stored shape that a Reshape reads.",
        cure="Export with dynamic_shapes. In a finished file: a name in place of the number, at every place.",
        tool="cu.doctor(path): batch-fixed; with run=True: batch-not-free", lesson="04",
    ),
    Symptom(
        "9.2", "It does not load: the opset", provoke=_load,
        cause="The file was written with a newer opset than this runtime knows.",
        cure="Export again with opset_version, update the runtime, or convert the file.",
        tool="cu.doctor(path): opset-too-new", lesson="02",
    ),
    Symptom(
        "9.3", "It does not load: the IR version", provoke=_load,
        cause="The format of the file is newer than the runtime reads. The opset may be old enough.",
        cure="Set model.ir_version to one that it reads, and save.",
        tool="cu.doctor(path): ir-too-new", lesson="02",
    ),
    Symptom(
        "9.4", "It does not load: a file is missing", provoke=_load,
        cause="The weights lie in a second file, which was renamed or left behind.",
        cure="Put it beside the model under the name that the model knows; or save everything as one file.",
        tool="cu.doctor(path): external-file-missing", lesson="01_large_files",
    ),
    Symptom(
        "9.5", "It does not load: an operator is unknown", provoke=_load,
        cause="The node belongs to a domain, or an opset, that this runtime does not have.",
        cure="Write it with standard operators, or register a library that implements it.",
        tool="cu.doctor(path): domain-unknown, operator-unknown", lesson="02_domains_and_functions",
    ),
    Symptom(
        "9.6", "Wrong numbers on some inputs", said="Nothing. The result is wrong, and looks fine.",
        cause="A Python if was traced: the branch of the example is in the file, the other one is not.",
        cure="torch.cond with the default exporter; in a finished file, an If with both graphs.",
        tool="cu.parity with inputs that differ in what matters", lesson="03",
    ),
    Symptom(
        "9.7", "Another answer at each call", said="Nothing. Two runs with the same input differ.",
        cause="The model was exported in training mode: Dropout draws, BatchNormalization looks at the batch.",
        cure="model.eval() before the export.",
        tool="cu.doctor(path): dropout-in-training, batchnorm-in-training", lesson="03_what_a_file_forgets",
    ),
    Symptom(
        "9.8", "As slow as without the accelerator", provoke=_wrong_provider,
        cause="The provider's name is misspelled, or it is not installed: the session uses the CPU.",
        cure="Compare with ort.get_available_providers(), and forbid the fallback: session.disable_cpu_ep_fallback.",
        tool="session.get_providers(); cu.strict_session", lesson="05",
    ),
    Symptom(
        "9.9", "Accuracy collapses in int8", said="Nothing. The file is written, and its answers are worth little.",
        cause="One channel is far wider than the others, or calibration saw other data than the model sees in use.",
        cure="Calibrate with real data, one scale per channel, and even out what is wide.",
        tool="compare float and int8 on real inputs; the range of every tensor", lesson="07_find_the_layer",
    ),
    Symptom(
        "9.10", "quantize_dynamic stops", provoke=_quantize,
        cause="The quantizer turns weights around, and value_info still describes them as they were.",
        cure="Clear value_info first, or run quant_pre_process.",
        tool="the message itself; cu.tensor_table shows the shapes in the file", lesson="07",
    ),
    Symptom(
        "9.11", "int8, and slower than float", said="Nothing. The clock says so, and the operators say why.",
        cause="A convolutional network was quantized dynamically: ConvInteger is slow, ranges are measured in each run.",
        cure="quantize_static with calibration data.",
        tool="cu.doctor(path): dynamic-quantized-conv", lesson="07",
    ),
    Symptom(
        "9.12", "It runs with one length only", provoke=_more_steps,
        cause="A Python loop was unrolled: the number of steps is frozen, and the file grows with it.",
        cure="scan or while_loop of torch; in a finished file, a Scan.",
        tool="cu.doctor(path): loop-unrolled", lesson="03",
    ),
    Symptom(
        "9.13", "A tool asks for shapes", said="Nothing in ONNX Runtime. Tools that plan memory beforehand refuse the file.",
        cause="Nobody wrote the shapes between the nodes into the file, or shape inference stops at some operator.",
        cure="onnx.shape_inference with data_prop=True; behind other operators, the symbolic one of ONNX Runtime.",
        tool="cu.tensor_table: what the file says; cu.doctor(path): shape-unknown, behind standard operators", lesson="09_unknown_shapes",
    ),
    Symptom(
        "9.14", "A tiny model is slower than NumPy", said="Nothing. The clock says so.",
        cause="A call costs the same whatever is in the model, and there are many calls.",
        cure="More rows in one call, several models in one file, IO binding.",
        tool="count the calls; cu.compare", lesson="09_tiny_models",
    ),
    Symptom(
        "9.15", "It refuses what the caller sends", provoke=_as_sent,
        cause="Name, dtype or shape of the input are others than the file declares.",
        cure="Read session.get_inputs(). Change the caller, or put the preparation into the model.",
        tool="session.get_inputs()", lesson="08",
    ),
    Symptom(
        "9.16", "Wrong numbers since the file was made anew", said="Nothing. All inputs give results that are a little off.",
        cause="One node computes something else than before: a weight or an attribute was changed on the way.",
        cure="Mend what the first differing node reads or is told, and compare all tensors again.",
        tool="cu.parity(model, path); between two files, every tensor as an output", lesson="09",
    ),
)  # fmt: skip


def words(symptom: Symptom) -> str:
    """What is said about this patient, by the installed packages; without the names of folders."""
    if symptom.provoke is None:
        return symptom.said
    it = task(symptom.case)
    p = personal_params(it, _STUDENT)
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for name, model in it.given(p).items() if it.given else ():
            files.append(Path(folder, name))
            files[-1].write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        logging.disable(logging.WARNING)  # the quantizer recommends things
        try:
            symptom.provoke(files, p)
        except Exception as error:  # onnxruntime's classes derive from Exception alone
            text = spoken(f"{type(error).__name__}: {error}", folder)
        else:
            text = "Nothing, in this version."
        finally:
            logging.disable(logging.NOTSET)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + " …"


def symptom_explorer() -> VBox:
    """A chooser of symptoms; each shows what is said, the cause, the cure, the tool and the lesson. First used in lesson 09.

    All frames are made beforehand and linked in the browser, so that it works on a page without a kernel.
    """
    import ipywidgets as widgets

    look = widgets.HTML()  # one layout and one style for all keeps the page small
    frames = [widgets.HTML(_frame(s, words(s)), layout=look.layout, style=look.style) for s in SYMPTOMS]
    first = next(at for at, s in enumerate(SYMPTOMS) if s.case == "9.6")  # nothing is said, and the numbers are wrong
    chooser = widgets.Dropdown(options=[s.seen for s in SYMPTOMS], index=first, description="symptom")
    stack = widgets.Stack(frames, selected_index=first)
    widgets.jslink((chooser, "index"), (stack, "selected_index"))
    return widgets.VBox([chooser, stack])


def _frame(s: Symptom, said: str) -> str:
    spoken = f"<code style='color:inherit;background:none'>{html.escape(said)}</code>"
    rows = {
        "you read" if s.provoke else "you see": spoken if s.provoke else html.escape(said),
        "cause": html.escape(s.cause),
        "cure": html.escape(s.cure),
        "tool": html.escape(s.tool),
        "lesson": f"{html.escape(lesson_name(s.lesson))}; in the hospital: case {s.case}",
    }
    cells = "".join(
        f"<div style='display:flex;gap:.8em;margin:.3em 0'><small style='flex:0 0 4.5em;opacity:.75'>{name}</small>"
        f"<div style='min-width:0;overflow-wrap:anywhere'>{text}</div></div>"
        for name, text in rows.items()
    )
    return (
        f"<div style='color:{INK};line-height:1.45;border:1px solid;border-radius:6px;padding:.3em .9em;margin:.3em 0'>"
        f"<b>{html.escape(s.seen)}</b>{cells}</div>"
    )
