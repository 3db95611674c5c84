"""The tools of the onnx package, in a process of their own. Started by `tools`, never imported by it.

onnx.checker and onnx.shape_inference are compiled code, made for models that mean well: on others they can crash or never
come back. Here they may. Reads models (eight bytes of length, then the model) from the standard input until it ends, and
answers each with lines of JSON, one per tool, at once: what was said before the process died still counts.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import BinaryIO

import onnx

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
        graph = onnx.shape_inference.infer_shapes(data, data_prop=True)
        graph = onnx.ModelProto.FromString(graph).graph if isinstance(graph, bytes) else graph.graph
    except Exception as error:
        return b"", str(error) or type(error).__name__
    for field in ("node", "initializer", "sparse_initializer"):
        graph.ClearField(field)
    return graph.SerializeToString(), ""


def main() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):  # Windows, or a lower limit is set already
        pass
    given, out = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # a print of some library must not get among the answers
    while len(head := given.read(16)) == 16:
        with_shapes, empty = (given.read(int.from_bytes(part, "little")) for part in (head[:8], head[8:]))
        say(out, "start")
        say(out, "checker", objection(onnx.checker.check_model, empty))
        say(out, "strict", objection(onnx.shape_inference.infer_shapes, with_shapes, check_type=True, strict_mode=True))
        found, words = inferred(with_shapes)
        say(out, "inferred", words, found)
        say(out, "end")


if __name__ == "__main__":
    main()
