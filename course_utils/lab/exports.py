"""One export tried: what was written or refused, and whether the file tells the truth."""

from __future__ import annotations

import re
import sysconfig
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime as ort

from ..errors import CourseError
from ..onnx_files import as_model
from ..paths import PACKAGE
from .exporter import exporter_messages
from .parity import as_numpy, copied, difference, tensors_in, untouched

if TYPE_CHECKING:
    import torch

RIGHT, WRONG, STOPS = "right", "wrong", "stops"
MARKS = {RIGHT: ("✓", "#009E73"), WRONG: ("✗", "#D55E00"), STOPS: ("■", "#56B4E9")}  # the colours of the lesson's plot
_LONGEST = 320  # characters of an error that are shown


@dataclass(frozen=True)
class Outcome:
    """One input, fed to the written file. verdict: "right", "wrong" or "stops" (an error instead of numbers)."""

    verdict: str
    detail: str

    def __str__(self) -> str:
        return f"{MARKS[self.verdict][0]} {self.verdict}: {self.detail}"


@dataclass(frozen=True)
class Trial:
    """One attempt to export one model. error: why nothing was written, else empty. outcomes: by the name of the input."""

    model: onnx.ModelProto | None
    error: str = ""
    messages: tuple[str, ...] = ()
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """ "refuses" (no file), "wrong" (one input gives wrong numbers), "stops" (one input gives an error), or "right"."""
        if self.model is None:
            return "refuses"
        found = {outcome.verdict for outcome in self.outcomes.values()}
        return next((v for v in (WRONG, STOPS) if v in found), RIGHT)

    def __str__(self) -> str:
        if self.model is None:
            return f"refuses: {self.error}"
        if self.verdict == RIGHT:
            return "✓ right on every input"
        worst = next((name, o) for name, o in self.outcomes.items() if o.verdict == self.verdict)
        return f"{MARKS[self.verdict][0]} {self.verdict} on {worst[0]!r}: {worst[1].detail}"

    __repr__ = __str__


def try_export(
    export: Callable[..., Any],
    module: torch.nn.Module,
    args: tuple[Any, ...],
    file: str | Path,
    inputs: Mapping[str, tuple[Any, ...]],
    **how: Any,
) -> Trial:
    """Call `export(module, args, file, **how)`; then feed each input to the file and to PyTorch, and compare.

    inputs: a name for each → the arguments of `module`, as a tuple. Lists, tuples and dicts in them are flattened for the file, in
    the order in which the exporters do it, unless the file takes a sequence. PyTorch runs in eval mode, because that is
    what a file is for; the module is left as it was. Numbers agree within atol 1e-4 and rtol 1e-3. An error of the
    exporter, the runtime or the run is a result, not an exception. First used in lesson 03.
    Raises CourseError when there is no input, one is no tuple, or PyTorch itself does not take it.
    """
    if not inputs:
        raise CourseError("try_export() was given no input: give it at least one, such as {'example': (x,)}.")
    for name, given in inputs.items():
        if not isinstance(given, tuple):
            raise CourseError(
                f"The input {name!r} of try_export() is a {type(given).__name__}: it expects a tuple with all arguments "
                f"of the module, such as (x,)."
            )
    path = Path(file)
    path.unlink(missing_ok=True)  # an old file would be taken for the result
    messages: list[str] = []
    try:
        with exporter_messages() as messages:
            export(module, args, file, **how)
    except Exception as error:  # exporters raise classes of many libraries
        return Trial(None, reason(error), tuple(messages))
    if not path.exists():
        return Trial(None, f"nothing was written to {path.name}", tuple(messages))
    proto = as_model(path)
    return Trial(proto, "", tuple(messages), {name: _outcome(proto, module, x) for name, x in inputs.items()})


def reason(error: BaseException) -> str:
    """The class of an error, its first telling line, and the line of the module's own code where it arose, where that is
    known; without advice, colours and paths of this machine.

    The default exporter wraps the error that matters into one that says in which step it happened: both classes are named.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    names, found = [type(error).__name__], text
    _, _, summary = text.partition("## Exception summary")
    if match := re.search(r"<class '([\w.]+)'>: (.*)", summary, re.DOTALL):
        names.append(match[1].rpartition(".")[2])
        found = match[2].partition("(Refer to the full stack trace")[0].partition("⬆️")[0]
    if inner := re.search(r"got (\w+)\([\"'](.+?)[\"']\)", found):  # torch.compile packs the error of an operator
        names.append(inner[1])
        found = inner[2]
    if _SCRIPT in found and (last := re.findall(r"^(?:\w+\.)*(\w+(?:Error|Exception)): (.+)", found, re.MULTILINE)):
        names.append(last[-1][0])  # TorchScript puts the error that matters last
        found = last[-1][1]
    lines = [line.strip() for line in found.strip().splitlines() if line.strip()]
    first = lines[0] if lines else "no message"
    if first.endswith(":") and len(lines) > 1 and not lines[1].startswith("File "):
        first += " " + lines[1].removeprefix("- ")
    names = [name for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    return f"{' ← '.join(names)}: {_without_paths(first).rstrip(':')[:_LONGEST]}{_origin(error, text)}"


_SCRIPT = "operation failed in the TorchScript interpreter"
# Code that is not the student's: packages, the standard library, and the helpers of the course.
_LIBRARIES = ("site-packages", "dist-packages", sysconfig.get_paths()["stdlib"], str(PACKAGE), "<")


def _origin(error: BaseException, text: str) -> str:
    """` (net.py, line 5: if x.sum() > 0:)`: the last line outside the libraries that the error's text names, or that was
    called by a library on the way to the error. Empty where there is none."""
    named = re.findall(r'File "([^"\n]+)", line (\d+)(?:, in \S+)?\n\s*(.*)', text)
    places = [(path, int(line), code) for path, line, code in named if not any(part in path for part in _LIBRARIES)]
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and inner not in chain:
        chain.append(inner)
    for raised in chain if not places else ():
        within = False
        for frame in traceback.extract_tb(raised.__traceback__):
            library = any(part in frame.filename for part in _LIBRARIES)
            within |= library and str(PACKAGE) not in frame.filename
            if within and not library:
                places.append((frame.filename, frame.lineno or 0, frame.line or ""))
    if not places:
        return ""
    if marked := re.findall(
        r"^\s*(.*)\n\s*~+ <--- HERE", text, re.MULTILINE
    ):  # TorchScript shows the lines before, too
        places[-1] = (*places[-1][:2], marked[-1])
    path, line, code = places[-1]
    file = f"line {line} of a cell" if "ipykernel_" in path else f"{Path(path).name}, line {line}"
    return f" ({file}{f': {code.strip()[:_LONGEST_LINE]}' if code.strip() else ''})"


_LONGEST_LINE = 100


def _without_paths(text: str) -> str:
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = " ".join(re.sub(r"Load model from \S+ failed:", "", text).split())
    return re.sub(r"(?:[A-Za-z]:)?(?:[\\/][\w.@+-]+)+[\\/]([\w.-]+)", r"\1", text)


def _outcome(proto: onnx.ModelProto, module: Any, args: tuple[Any, ...]) -> Outcome:
    try:
        want = _eval_numbers(module, args)
    except Exception as error:  # whatever a module raises
        raise CourseError(
            f"PyTorch itself does not run {type(module).__name__} on this input: {reason(error)}"
        ) from None
    options = ort.SessionOptions()
    options.log_severity_level = 4  # every error comes back as an exception; the same words on stderr help nobody
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
        return Outcome(STOPS, f"the file does not load. {_without_paths(str(error))[:_LONGEST]}")
    names, values = [i.name for i in session.get_inputs()], _values(session, args)
    if len(names) != len(values):
        return Outcome(STOPS, f"the file has {len(names)} inputs, this input has {len(values)} tensors")
    feed = dict(zip(names, values, strict=True))
    try:
        got, again = session.run(None, feed), session.run(None, feed)
    except Exception as error:
        return Outcome(STOPS, _without_paths(str(error)).partition(" Please fix")[0][:_LONGEST])
    if any(x.shape != y.shape for x, y in zip(got, want, strict=False)) or len(got) != len(want):
        return Outcome(WRONG, f"shapes {[list(x.shape) for x in got]} in place of {[list(y.shape) for y in want]}")
    worst = max(range(len(want)), key=lambda k: difference(got[k], want[k]))
    x, y = got[worst], want[worst]
    if all(np.allclose(g, w, atol=1e-4, rtol=1e-3, equal_nan=True) for g, w in zip(got, want, strict=True)):
        return Outcome(RIGHT, f"largest difference {difference(x, y):.1e}")
    at = np.unravel_index(np.argmax(np.abs(x.astype(np.float64) - y)), x.shape)
    detail = f"{x[at]:.4g} in place of {y[at]:.4g}"
    if not all(np.array_equal(a, b) for a, b in zip(got, again, strict=True)):
        detail = f"other numbers in every run, such as {detail}"
    return Outcome(WRONG, detail)


def _values(session: ort.InferenceSession, args: tuple[Any, ...]) -> list[Any]:
    """What to feed: one array per tensor, or a list of arrays where the file takes a sequence."""
    if any(i.type.startswith("seq(") for i in session.get_inputs()):
        return [[as_numpy(t) for t in x] if isinstance(x, list | tuple) else as_numpy(x) for x in args]
    return [as_numpy(t) for t in tensors_in(args)]


def _eval_numbers(module: Any, args: tuple[Any, ...]) -> list[np.ndarray]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with untouched(module):
            return [as_numpy(t) for t in tensors_in(module(*copied(args)))]
    finally:
        for part, training in modes:
            part.training = training
