"""Running a model so that a wrong feed gets one clear sentence, and so that every tensor inside can be seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx
import onnxruntime as ort

from .errors import CourseError
from .onnx_files import Model, as_model

SECONDS = 20  # what is run here takes milliseconds: more than this is a loop without an end


class OutOfTimeError(CourseError):
    """A run that was stopped because it went on for too long."""


_stopped: list[OutOfTimeError] | None = None  # inside `patient_once`: the runs that were stopped there


@contextmanager
def patient_once() -> Iterator[None]:
    """Inside, only one run may take all its time: the next ones are refused, and the end raises what stopped the first.

    A check runs a model several times, and goes on when one of them fails. It would wait as long each time.
    """
    global _stopped  # noqa: PLW0603 - one check at a time in a process
    _stopped = []
    try:
        yield
        if _stopped:
            raise _stopped[0]
    finally:
        _stopped = None


_NUMPY = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(int64)": "int64",
    "tensor(int32)": "int32", "tensor(int16)": "int16", "tensor(int8)": "int8", "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64", "tensor(bool)": "bool",
}  # fmt: skip


def session_for(model: Model, *, optimize: bool = True) -> ort.InferenceSession:
    """An InferenceSession on the CPU provider. Raises CourseError with ONNX Runtime's reason when it refuses the model.

    optimize: False runs the graph as it is written, node by node.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # every error comes back as an exception; the same words on stderr help nobody
    # Threads that wait by spinning take the processor from others: with two checks at a time each took half as long again.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = as_model(model)
    try:
        return ort.InferenceSession(source.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exception classes derive from Exception alone
        raise CourseError(f"ONNX Runtime does not load this model: {str(error).strip().splitlines()[0]}") from None


def check_feed(session: ort.InferenceSession, feed: Mapping[str, np.ndarray]) -> None:
    """Raise CourseError when names, dtypes or shapes in `feed` are not what the session's inputs ask for."""
    inputs = {i.name: i for i in session.get_inputs()}
    if set(feed) != set(inputs):
        raise CourseError(f"The model's inputs are named {sorted(inputs)}, and it was fed {sorted(feed)}.")
    for name, value in feed.items():
        if not isinstance(value, np.ndarray):
            raise CourseError(
                f"Input {name!r} was fed a {type(value).__name__}, the model expects a NumPy array: "
                f"np.asarray(…) makes one, and so does a torch tensor's .numpy()."
            )
        wanted = inputs[name]
        dtype = _NUMPY.get(wanted.type, wanted.type)
        if dtype == "tensor(string)" and value.dtype.kind in "OUS":
            dtype = str(value.dtype)  # ONNX Runtime takes all three of NumPy's forms of text
        if str(value.dtype) != dtype:
            raise CourseError(
                f"Input {name!r} was fed {value.dtype}, the model expects {dtype}: convert it with .astype(np.{dtype})."
            )
        fits = len(value.shape) == len(wanted.shape) and all(
            not isinstance(w, int) or w == g for w, g in zip(wanted.shape, value.shape, strict=True)
        )
        if not fits:
            raise CourseError(
                f"Input {name!r} was fed shape {list(value.shape)}, the model expects {wanted.shape} "
                f"(a name or None stands for any size)."
            )


def run(
    session: ort.InferenceSession, feed: Mapping[str, np.ndarray], seconds: float = SECONDS
) -> dict[str, np.ndarray]:
    """All outputs by name, after `check_feed`. Raises CourseError with ONNX Runtime's reason when the run itself fails.

    seconds: after them the run is stopped (OutOfTimeError), between two nodes or two rounds of a `Loop`. While ONNX Runtime runs, a
    kernel does not hear Jupyter's stop button.
    """
    check_feed(session, feed)
    if _stopped:
        raise _stopped[0]
    names = [o.name for o in session.get_outputs()]
    options = ort.RunOptions()
    options.log_severity_level = 4
    alarm = threading.Timer(seconds, setattr, (options, "terminate", True))
    alarm.daemon = True
    alarm.start()
    try:
        values = session.run(names, dict(feed), options)
    except Exception as error:  # its exception classes derive from Exception alone
        if options.terminate:
            late = OutOfTimeError(
                f"The run was stopped after {seconds:g} s. A Loop of this model goes on without an end, or the model is "
                f"far too large for what is asked of it: look at each Loop's condition and at its number of rounds."
            )
            if _stopped is not None:
                _stopped.append(late)
            raise late from None
        raise CourseError(f"ONNX Runtime stopped in the run: {str(error).strip().splitlines()[0]}") from None
    finally:
        alarm.cancel()
    return dict(zip(names, values, strict=True))


def run_all(model: Model, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor that the top-level nodes compute, in the order of the nodes, by ONNX Runtime without optimisation."""
    proto = onnx.ModelProto()
    proto.CopyFrom(as_model(model))
    graph = proto.graph
    check_feed(session_for(proto, optimize=False), feed)  # on the model as given: the names in errors are the student's
    names = [name for node in graph.node for name in node.output if name]
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return run(session_for(proto, optimize=False), feed)
