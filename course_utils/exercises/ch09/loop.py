"""The hospital: a loop that was unrolled."""

from __future__ import annotations

from random import Random

import numpy as np
import onnx
from onnx import helper

from ...lab.graphs import operator_counts
from .. import Criteria, Criterion, Params, Task
from ..examine import has_io, is_sound, numpy_source
from ..slips import Calculation
from .hospital import any_size, judged, patient

node = helper.make_node

# 9.12: an unrolled loop


def _draw_loop(rng: Random) -> Params:
    return {"steps": rng.randint(6, 9), "width": rng.choice([3, 4, 5]), "seed": rng.getrandbits(32)}


def _loop_weights(p: Params) -> dict[str, np.ndarray]:
    draw, width = np.random.default_rng(p["seed"]), p["width"]
    return {
        "from_input": draw.normal(0, 0.7, (width, width)).astype(np.float32),
        "from_state": draw.normal(0, 0.7, (width, width)).astype(np.float32),
        "start": draw.normal(0, 1, (width,)).astype(np.float32),
    }


def _unrolled(p: Params) -> onnx.ModelProto:
    """What tracing makes of `for x_t in x: state = tanh(x_t @ from_input + state @ from_state)`."""
    nodes, state, weights = [], "start", dict(_loop_weights(p))
    for t in range(p["steps"]):
        weights[f"index{t}"] = np.array(t)
        after = "y" if t == p["steps"] - 1 else f"state{t}"
        nodes += [
            node("Gather", ["x", f"index{t}"], [f"x{t}"], f"take{t}", axis=0),
            node("MatMul", [f"x{t}", "from_input"], [f"a{t}"], f"input{t}"),
            node("MatMul", [state, "from_state"], [f"b{t}"], f"state_product{t}"),
            node("Add", [f"a{t}", f"b{t}"], [f"c{t}"], f"sum{t}"),
            node("Tanh", [f"c{t}"], [after], f"tanh{t}"),
        ]
        state = after
    return patient("unrolled", nodes, weights, [p["steps"], p["width"]], [p["width"]])


def _states(p: Params, x: np.ndarray, mistake: str = "") -> np.ndarray:
    w = _loop_weights(p)
    state = {"zero start": np.zeros_like(w["start"]), "one start": np.ones_like(w["start"])}.get(mistake, w["start"])
    if mistake == "exchanged":
        w["from_input"], w["from_state"] = w["from_state"], w["from_input"]
    steps = x[::-1] if mistake == "reversed" else x[: p["steps"]] if mistake == "cut" else x
    states = []
    for row in {"one less": steps[:-1], "no first": steps[1:]}.get(mistake, steps):
        total = row @ w["from_input"] + state @ w["from_state"]
        state = (total if mistake == "no tanh" else np.tanh(total)).astype(np.float32)
        states.append(state)
    return np.array(states) if mistake == "all" else states[0] if mistake == "first" else state


_LOOP_CAUSES = {
    "zero start": "The loop starts with zeros: it must start with the stored tensor start.",
    "reversed": "The rows are read from the last to the first: leave scan_input_directions alone.",
    "cut": "It stops after as many steps as the patient had: the loop is still unrolled.",
    "one less": "The last step is missing.",
    "all": "These are the states of all steps, one below the other: y is the last one only.",
    "first": "This is the state after the first step.",
    "one start": "The loop starts with ones: it must start with the stored tensor start.",
    "no first": "The first row is left out.",
    "exchanged": "The two weights are exchanged: from_input belongs to x_t, and from_state to the state.",
    "no tanh": "The tanh is missing.",
}


def _check_loop(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    count = sum(operator_counts(model).values())
    if not criteria.require(
        "the loop stands in the graph once",
        count <= 20,
        f"There are {count} nodes, and one step has 5: the loop is unrolled, and its {p['steps']} steps are frozen. A Scan "
        "or a Loop holds one step as a subgraph.",
    ):
        return criteria
    if not any_size(model, criteria, "steps"):
        return criteria
    if not is_sound(model, criteria) or not has_io(model, {"x": "float"}, {"y": "float"}, criteria):
        return criteria
    source = numpy_source(rng)

    def states(mistake: str = "") -> Calculation:
        return lambda feed: _states(p, feed["x"], mistake)

    lengths = (p["steps"] + int(source.integers(3, 30)), p["steps"], 2)
    judged(
        model,
        {
            f"y is the last of {steps} states": [{"x": source.normal(0, 1, (steps, p["width"])).astype(np.float32)}]
            for steps in lengths
        },
        states(),
        {text: states(kind) for kind, text in _LOOP_CAUSES.items()},
        criteria,
        otherwise="One step is tanh(x_t @ from_input + state @ from_state).",
    )
    return criteria


UNROLLED = Task(
    "9.12",
    "An unrolled loop",
    "onnx",
    _check_loop,
    _draw_loop,
    lambda p: {"9.12.onnx": _unrolled(p)},
    (
        "Compare the nodes of the first step with those of the second. What changes from step to step, and what stays?",
        "An operator of ONNX runs a subgraph once for each row of a tensor, and hands a state on: Scan. Its state begins "
        "with start, its scan input is x.",
        "Make a graph with the inputs s_in and x_t, four nodes, and the output s_out. Then one node "
        "Scan(start, x) → y with body=that graph and num_scan_inputs=1. Weights of the main graph are visible in the body. "
        "The first dimension of x becomes a name.",
    ),
    points=3,
)
