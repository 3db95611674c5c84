"""The tools of the onnx package, and ONNX Runtime, in a process of their own. Started by `tools`, never imported by it.

They are compiled code, made for models that mean well: on others they can crash or never come back. Here they may. Reads
questions from the standard input until it ends: a line of JSON, and the model behind it. Answers each with lines of JSON,
at once: what was said before the process died still counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import onnx

from ...processes import alarm
from ..parts import HOLE

MOST_MEMORY = 12 * 10**9  # bytes


def say(out: BinaryIO, event: str, words: str = "", data: bytes = b"") -> None:
    """One line, and `size` bytes behind it."""
    out.write(json.dumps({"event": event, "words": words, "size": len(data)}).encode() + b"\n" + data)
    out.flush()


def objection(tool: Callable[..., object], *given: object, **options: object) -> str:
    """What a tool objects to; empty where it does not."""
    try:
        tool(*given, **options)
    except Exception as error:  # classes of its own, and those of the layers below
        return str(error) or type(error).__name__
    return ""


def inferred(data: bytes) -> tuple[bytes, str]:
    """The types and shapes that can be inferred, as a GraphProto without nodes; or why there are none."""
    try:
        graph = onnx.shape_inference.infer_shapes(data, data_prop=True).graph
    except Exception as error:
        return b"", str(error) or type(error).__name__
    for field in ("node", "initializer", "sparse_initializer"):
        graph.ClearField(field)
    return graph.SerializeToString(), ""


def verdict(data: bytes, largest: int) -> tuple[str, str]:
    """Whether ONNX Runtime takes a model without its weights: ("loads" or "refuses", its words); "unknown" if it is not here.

    Its optimisation, which computes what is constant, is switched off: no node is executed. In the place of the weights is
    one file that is all hole, as long as the largest of them.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        return "unknown", str(error)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")  # it would read all the weights
    with tempfile.TemporaryDirectory(prefix="doctor-", ignore_cleanup_errors=True) as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(data)
        with Path(folder, HOLE).open("wb") as hole:
            hole.truncate(largest)
        try:
            ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except MemoryError:
            return "unknown", "it takes too much memory"
        except Exception as error:
            words = str(error).replace(f"{folder}/", "")
            return ("unknown", "it takes too much memory") if "bad_alloc" in words else ("refuses", words)
    return "loads", ""


def main() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):  # Windows, or a lower limit is set already
        pass
    given, out = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a print of some library must not get among the answers
    while line := given.readline():
        question = json.loads(line)
        parts = [given.read(size) for size in question["sizes"]]
        limit = 2 * question["seconds"]  # for each step; the parent is far earlier
        alarm(limit)
        say(out, "start")
        if question["whom"] == "runtime":
            say(out, *verdict(parts[0], question["largest"]))
        else:
            with_shapes, empty = parts
            say(out, "checker", objection(onnx.checker.check_model, empty))
            alarm(limit)
            say(
                out,
                "strict",
                objection(onnx.shape_inference.infer_shapes, with_shapes, check_type=True, strict_mode=True),
            )
            alarm(limit)
            found, words = inferred(with_shapes)
            say(out, "inferred", words, found)
        alarm(0)
        say(out, "end")


if __name__ == "__main__":
    main()
