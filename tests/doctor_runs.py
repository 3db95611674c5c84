"""Sessions of small models for the tests of the process that loads and runs a model, here in the process of the tests."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from doctor_models import parsed

from course_utils.diagnosis.child import trial_child as worker
from course_utils.diagnosis.child.feeding import Shapes

RESHAPE = "g (float[N, {}] x) => (float[?, ?] y) {{ y = Reshape(x, s) }}"


def listen(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Event → what is said of it from now on."""
    events: dict[str, dict[str, Any]] = {}
    monkeypatch.setattr(worker, "say", lambda **what: events.update({what.pop("event"): what}))
    return events


def runs(graph: str, stored: Mapping[str, object] | None = None, seconds: float = 60) -> worker.Runs:
    model = parsed(graph, {k: np.asarray(v) for k, v in (stored or {}).items()})
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return worker.Runs(session, Shapes(session.get_inputs()), time.monotonic() + seconds)
