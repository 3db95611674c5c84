"""Exercises of lesson 08: processing inside the graph, a mobile variant, a server's settings, a server's answers."""

from __future__ import annotations

from .. import Task
from .phone_variant import check_mobile, draw_mobile, for_the_server
from .server_limits import bodies, check_requests, check_settings, draw_limits, draw_requests
from .whole_graphs import check_answer, check_preparation, draw_answer, draw_preparation, scoring_net, small_net

TASKS = (
    Task(
        "8.1",
        "Put the preparation into the graph",
        "onnx",
        check_preparation,
        draw_preparation,
        lambda p: {"8.1.onnx": small_net(p)},
        points=1,
    ),
    Task(
        "8.2",
        "Answer with ids and probabilities",
        "onnx",
        check_answer,
        draw_answer,
        lambda p: {"8.2.onnx": scoring_net(p)},
        points=2,
    ),
    Task(
        "8.3",
        "Make a variant for a phone",
        "onnx",
        check_mobile,
        draw_mobile,
        lambda p: {"8.3.onnx": for_the_server(p)},
        points=3,
    ),
    Task("8.4", "Settings within limits", "json", check_settings, draw_limits, points=2),
    Task("8.5", "What does the server answer?", "json", check_requests, draw_requests, bodies, points=2),
)
