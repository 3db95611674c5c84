"""What an answer is worth: reading the artefact, running its task's check, measuring facts for the report card.

The artefact is untrusted. `guarded.examine` calls this in a process of its own, with limits; tests may call it directly.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import onnx

from ..errors import CourseError, MissingPackageError
from ..exercises import Criteria, Criterion, Task, hidden_inputs, personal_params
from ..exercises.examine import every_node, every_tensor
from ..onnx_files import is_compiled, parse
from ..running import OutOfTimeError, patient_once

LARGEST_ARTEFACT = 64 * 2**20  # bytes; no exercise needs more
LARGEST_JSON = 2**20
MOST_NODES = 20_000  # with those inside If, Loop and Scan, and of each function as often as it is called
MOST_LEVELS = 8  # of graphs inside graphs


@dataclass(frozen=True)
class Verdict:
    """What was found in an artefact. criteria: none when it could not be read. facts: for the report card.

    problem: why it could not be read or not be examined to the end, one sentence; empty when it was. ended: how the process
    that looked at it was ended: "time", "memory", or its end in words; empty when it lives on. lacking: whether the problem is
    a package that is not installed here.
    """

    criteria: tuple[Criterion, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    problem: str = ""
    ended: str = ""
    lacking: bool = False


def assessed(
    it: Task, data: bytes, name: str, who: str, *, secret: str = "", key: str = "", facts: bool = False
) -> Verdict:
    """Read an artefact and run its task's check on it. name: of the file, for messages. facts: measure them, too.

    secret: an instructor's, for the inputs. key: of the student's class, for the parameters.
    """
    try:
        criteria = tuple(assess(it, read(it, data, name), who, secret, key))
    except CourseError as error:
        return Verdict(problem=str(error), lacking=isinstance(error, MissingPackageError))
    if not facts or not all(c.passed for c in criteria):
        return Verdict(criteria)
    # Read again: a check may have changed the model it looked at.
    return Verdict(criteria, _facts(it, read(it, data, name), who, key))


def read(it: Task, data: bytes, name: str) -> Any:
    """The ModelProto or JSON value in these bytes. Raises CourseError, in one sentence, when there is none."""
    if it.kind == "json":
        return read_json(data, name)
    model = parse(data, repr(name))
    if outside := [t for t in every_tensor(model) if t.data_location == onnx.TensorProto.EXTERNAL]:
        places = sorted({e.value for t in outside for e in t.external_data if e.key == "location"})
        place = f" ({places[0][:80]!r})" if places else ""
        raise CourseError(
            f"{name!r} does not hold all its weights, they lie in another file{place}: load the weights into the model, then "
            f"save it in one file."
        )
    try:
        nodes = count_nodes(model)
    except RecursionError:
        raise CourseError(
            f"{name!r} has hundreds of functions, each of which calls the next, and no exercise needs that: is it the right "
            f"file?"
        ) from None
    if nodes > MOST_NODES:
        raise CourseError(
            f"{name!r} has {'more than a million' if nodes > 10**6 else nodes} nodes, counted with those of each function "
            f"as often as it is called, an answer has at most {MOST_NODES:,}: is it the right file?"
        )
    if any(deeper_than(MOST_LEVELS, nodes) for nodes in (model.graph.node, *(f.node for f in model.functions))):
        raise CourseError(
            f"{name!r} has graphs inside graphs, more than {MOST_LEVELS} levels deep, and no exercise needs more: is it the "
            f"right file?"
        )
    if any(is_compiled(node) for node in every_node(model)):
        raise CourseError(
            f"{name!r} holds code that was compiled for one execution provider (EPContext), and nobody can look into that: hand "
            f"in the model that it was compiled from."
        )
    return model


def deeper_than(levels: int, nodes: Iterable[onnx.NodeProto]) -> bool:
    """Whether If, Loop or Scan are nested deeper. onnx.checker looks twice at each level, so its time doubles with it."""
    inner = [graph.node for node in nodes for a in node.attribute for graph in (a.g, *a.graphs) if graph.node]
    return bool(inner) and (levels == 0 or any(deeper_than(levels - 1, graph) for graph in inner))


def read_json(data: bytes, name: str) -> Any:
    """A JSON value. Raises CourseError, in one sentence, when it is none, or far too large."""
    if len(data) > LARGEST_JSON:
        raise CourseError(
            f"{name!r} has {len(data):,} bytes, and no answer in JSON needs more than {LARGEST_JSON:,}: is it the right file?"
        )
    try:
        return json.loads(data.decode("utf-8-sig"))  # some editors put a mark before the text
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        why = str(error)
    except ValueError:
        why = "it holds a number with thousands of digits"
    except RecursionError:
        why = "it holds lists in lists, or dicts in dicts, hundreds of levels deep"
    raise CourseError(f"{name!r} is not a JSON file ({why}): write it with json.dump.")


def count_nodes(model: onnx.ModelProto) -> int:
    """Nodes of a model when every call of one of its functions is replaced by the function's nodes.

    Functions that call each other in a circle count as more than anything.
    """
    bodies = {(f.domain, f.name): f.node for f in model.functions}
    open_calls: set[tuple[str, str]] = set()

    @functools.cache
    def of_function(key: tuple[str, str]) -> int:
        if key in open_calls:
            return 10**9
        open_calls.add(key)
        found = of_nodes(bodies[key])
        open_calls.discard(key)
        return found

    def of_nodes(nodes: Iterable[onnx.NodeProto]) -> int:
        total = 0
        for node in nodes:
            key = (node.domain, node.op_type)
            total += of_function(key) if key in bodies else 1
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    total += of_nodes(graph.node)
        return total

    return of_nodes(model.graph.node) + len(model.functions)


def assess(it: Task, value: Any, who: str, secret: str = "", key: str = "") -> list[Criterion]:
    """Run a task's check on an artefact that was read. An error inside the check is a failed criterion, not a crash.

    secret: hidden inputs are drawn from it, too. key: personal parameters are drawn from it, too.

    Raises OutOfTimeError when a run of the artefact did not come to its end, MemoryError, and MissingPackageError when the
    check needs a package that is not installed: the answer is not to blame.
    """
    try:
        with patient_once():
            return it.check(value, personal_params(it, who, key), hidden_inputs(it, who, secret))
    except (OutOfTimeError, MemoryError, MissingPackageError):
        raise
    except Exception as error:  # artefacts are untrusted, and every library a check calls has errors of its own
        criteria = Criteria()
        hint = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        criteria.require("the answer can be examined", False, hint)
        return criteria


def _facts(it: Task, value: Any, who: str, key: str) -> dict[str, str]:
    try:
        measured = it.measure(value, personal_params(it, who, key)) if it.measure else {}
        return {str(name): str(fact) for name, fact in measured.items()}
    except Exception as error:  # as in `assess`
        return {"measured": f"not this time ({type(error).__name__}: {' '.join(str(error).split())[:200]})"}
