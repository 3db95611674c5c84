"""Exercises of lesson 03: living branches and loops, an operator nobody knows, a file that lies, a forgotten eval()."""

from __future__ import annotations

from .. import Task
from .control_flow import check_gate, check_loop, draw_gate, draw_loop
from .custom_operator import check_hump, draw_hump
from .traced_router import check_lies, draw_router, traced_router
from .train_mode import check_eval, draw_train, train_mode

TASKS = (
    Task(
        "3.1",
        "Both branches alive",
        "onnx",
        check_gate,
        draw_gate,
        points=2,
        hints=(
            "The Python `if` is decided once, during the export. Which function of torch keeps a decision in the graph?",
            "Call torch.cond with the comparison of x.mean(), two functions for the branches, and (x,) as their argument.",
        ),
    ),
    Task(
        "3.2",
        "A loop of any length",
        "onnx",
        check_loop,
        draw_loop,
        points=2,
        hints=(
            "A Python loop over rows runs during the export. Which mechanisms of lesson 03 keep a loop in the graph?",
            "Give scan a step that takes (h, row) and returns the new h twice, the second time as a clone; begin with zeros and take the carried state.",
        ),
    ),
    Task(
        "3.3",
        "An operator that nobody knows",
        "onnx",
        check_hump,
        draw_hump,
        points=1,
        hints=(
            "The exporter needs a function that says the same in standard operators. In which order does the formula compute?",
            "Divide by width, raise to your power, add 1, divide height by it; hand the function over under the key torch.ops.scroll.hump.default.",
        ),
    ),
    Task(
        "3.4",
        "Find the lie",
        "json",
        check_lies,
        draw_router,
        lambda p: {"3.4.onnx": traced_router(p)},
        points=3,
        hints=(
            "Read from the nodes which path the file took. For each key, which decisions must come out differently?",
            "Choose x[0] just above or below first. Set another number so that, after the first decision, it is just above or below second; keep the rest low.",
        ),
        hidden=("path",),
    ),
    Task(
        "3.5",
        "Somebody forgot eval()",
        "onnx",
        check_eval,
        draw_train,
        lambda p: {"3.5.onnx": train_mode(p)},
        points=1,
        hints=(
            "Two kinds of operators behave differently in training. Where does each of them say that it is training?",
            "For BatchNormalization remove the attribute training_mode and all outputs but the first; for Dropout remove the input training_mode.",
        ),
    ),
)
