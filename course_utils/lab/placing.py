"""What became of a request for providers: what was said, which were chosen, and where each node ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import CourseError

if TYPE_CHECKING:
    import numpy as np
    import onnx

BY = ("name", "device")


def placed(
    model: onnx.ModelProto,
    feed: Mapping[str, np.ndarray],
    providers: Sequence[str | tuple[str, Mapping[str, str]]],
    *,
    by: str = "name",
    strict: bool = False,
) -> dict[str, Any]:
    """Create a session as asked, run it once, and tell what happened. First used in lesson 05.

    providers: in their order, each a name or (name, options); by: "name" or "device", for plug-ins that are registered.
    strict: a node that is left for the CPU is an error (`session.disable_cpu_ep_fallback`).
    Returns a dict with the keys of the records in `data/ep_records/`: said, error, chosen (`get_providers()`), recorded
    ([provider, names of nodes] at the partition), ran ([provider, operator] in the profile), difference (from the CPU's
    output). Raises CourseError where an argument is something else.
    """
    import onnx

    from ..ep_experiment.placement import STRICT, place

    if by not in BY:
        raise CourseError(f"placed() was given by={by!r}: it takes 'name' or 'device'.")
    if not isinstance(model, onnx.ModelProto):
        raise CourseError(
            f"placed() was given a model of type {type(model).__name__}: onnx.load(…) makes what it takes."
        )
    if not isinstance(feed, Mapping):
        raise CourseError(f"placed() was given a feed of type {type(feed).__name__}: it takes a dict, name → array.")
    if not isinstance(providers, list | tuple) or not all(map(_is_request, providers)):
        raise CourseError(
            f"placed() was given providers={providers!r}: it takes a list of names, or of (name, options)."
        )
    asked = [
        [one, {}] if isinstance(one, str) else [one[0], {key: str(value) for key, value in one[1].items()}]
        for one in providers
    ]
    return place(model, feed, {"by": by, "providers": asked, "config": {STRICT: "1"} if strict else {}})


def _is_request(one: Any) -> bool:
    return isinstance(one, str) or (
        isinstance(one, tuple | list) and len(one) == 2 and isinstance(one[0], str) and isinstance(one[1], Mapping)
    )
