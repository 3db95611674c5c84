"""Running a model so that a wrong feed gets one clear sentence, and so that every tensor inside can be seen."""

from __future__ import annotations

import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from .errors import CourseError
from .onnx_files import LIMIT, Model, as_model, check_file, existing

SECONDS = 20  # what is run here takes milliseconds: more than this is a loop without an end
threads = 0  # of each session; 0: as many as the machine has processors


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

    optimize: False runs the graph as it is written, node by node. Then products of uint8 with int8 depend on the processor.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 4  # every error comes back as an exception; the same words on stderr help nobody
    # Threads that wait by spinning take the processor from others: with two checks at a time each took half as long again.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads
    # x86 without VNNI cuts off products of uint8 with int8 at 16 bits. With this key ONNX Runtime rewrites the weights to
    # uint8, and the same file gives the same numbers, and so the same points, on any processor.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return open_session(model, options, ["CPUExecutionProvider"])


def open_session(model: Model, options: ort.SessionOptions, providers: list, **more: object) -> ort.InferenceSession:
    """An InferenceSession of a path, of bytes or of a ModelProto. A path is handed to ONNX Runtime as a path: so it finds
    weights in other files itself, and neither they nor the model are held twice.

    Raises CourseError with one sentence for what is no model, and with ONNX Runtime's reason when it refuses the model.
    """
    with _source(model) as source:
        try:
            return ort.InferenceSession(source, options, providers=providers, **more)
        except Exception as error:  # its exception classes derive from Exception alone
            words = runtime_words(error)
    if not isinstance(model, onnx.ModelProto | bytes):
        check_file(Path(model))  # a damaged file, or weights that are missing, in a better sentence
    raise RefusedError(f"ONNX Runtime does not load this model: {words}", words)


class RefusedError(CourseError):
    """ONNX Runtime does not load a model. words: what it says."""

    def __init__(self, sentence: str, words: str) -> None:
        super().__init__(sentence)
        self.words = words


@contextmanager
def _source(model: Model) -> Iterator[str | bytes]:
    """What ONNX Runtime is given for a model: a path, or its bytes."""
    if not isinstance(model, onnx.ModelProto | bytes):
        yield str(existing(model))
        return
    proto = as_model(model)
    if isinstance(model, bytes) or _stored_bytes(proto) < LIMIT - _MARGIN:
        yield model if isinstance(model, bytes) else proto.SerializeToString()
        return
    with tempfile.TemporaryDirectory(prefix="model-", ignore_cleanup_errors=True) as folder:  # more than protobuf takes
        copy, path = onnx.ModelProto(), str(Path(folder, "model.onnx"))
        copy.CopyFrom(proto)
        onnx.save_model(copy, path, save_as_external_data=True, location="weights.bin")
        del copy
        yield path


_MARGIN = 2**24  # bytes for all that is no weight


def _stored_bytes(proto: onnx.ModelProto) -> int:
    """Bytes of the weights in a ModelProto; its own ByteSize() has no answer beyond 2 GB."""
    return sum(len(tensor.raw_data) + 4 * len(tensor.float_data) for tensor in proto.graph.initializer)


# A place in ONNX Runtime's own source: file, line, and the function with or without its types.
_SOURCE_PLACE = re.compile(
    r"(?:/\S*/)?\w+\.(?:cc|h|hpp|cu):\d+ (?:\w+ (?=[A-Z'])|.*?<lambda\(.*?\)> |.*?\)(?: const)?(?: \[with .*?\])? (?=\S))"
)


def runtime_words(error: Exception | str) -> str:
    """What ONNX Runtime said, in one line: whole, but without the error's number, folders, and places in its source."""
    text = " ".join(str(error).split())
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : (?:Load model from .*? failed:)?", "", text)
    text = re.sub(r"(?:[A-Za-z]:)?(?:[\\/][\w.@+-]+)+[\\/](?=[\w.-])", "", _SOURCE_PLACE.sub(" ", text))
    return " ".join(text.split()) or type(error).__name__


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


class _Watcher:
    """Stops runs that go on for too long. One thread for all of them: starting one for each run took longer than most runs."""

    _LOOK = 0.05  # seconds between two looks
    _STAYS = 5.0  # seconds after the last run

    def __init__(self) -> None:
        self._running: dict[int, tuple[float, ort.RunOptions]] = {}
        self._lock = threading.Lock()
        self._awake = False

    def watch(self, options: ort.RunOptions, seconds: float) -> None:
        with self._lock:
            self._running[id(options)] = (time.monotonic() + seconds, options)
            if not self._awake:
                threading.Thread(target=self._look, daemon=True).start()
                self._awake = True

    def leave(self, options: ort.RunOptions) -> None:
        with self._lock:
            del self._running[id(options)]

    def _look(self) -> None:
        idle_since = time.monotonic()
        while True:
            time.sleep(self._LOOK)
            now = time.monotonic()
            with self._lock:
                for deadline, options in self._running.values():
                    if now > deadline:
                        options.terminate = True
                if self._running:
                    idle_since = now
                elif now > idle_since + self._STAYS:
                    self._awake = False
                    return


_watcher = _Watcher()


def _after_fork() -> None:
    """The thread stays with the parent, and it may have held the lock."""
    global _watcher  # noqa: PLW0603 - there is one
    _watcher = _Watcher()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
    _watcher.watch(options, seconds)
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
        raise CourseError(f"ONNX Runtime stopped in the run: {runtime_words(error)}") from None
    finally:
        _watcher.leave(options)
    return dict(zip(names, values, strict=True))


def run_all(model: Model, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every tensor that the top-level nodes compute, in the order of the nodes, by ONNX Runtime without optimisation."""
    proto = as_model(model)
    if proto is model:  # the student's own; one that was read here may be changed
        proto = onnx.ModelProto()
        proto.CopyFrom(model)
    names = [name for node in proto.graph.node for name in node.output if name]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = session_for(proto, optimize=False)
    del proto  # it is as large as the session
    return run(session, feed)
