"""The simulation behind the widget of lesson 08, and the widget itself."""

from __future__ import annotations

import numpy as np
import pytest

from course_utils.errors import CourseError
from course_utils.lab.batching import simulate
from course_utils.widgets.batching import batching_explorer, frame

SPANS = {1: 1.0, 8: 4.0, 32: 12.0}


def test_few_requests_do_not_wait_for_nobody() -> None:
    found = simulate(SPANS, per_second=1, wait_ms=0, largest=16)
    assert found.batches.max() <= 2
    assert np.median(found.latencies) == pytest.approx(1.0)


def test_waiting_adds_to_every_answer_when_few_arrive() -> None:
    found = simulate(SPANS, per_second=1, wait_ms=5, largest=16)
    assert np.median(found.latencies) == pytest.approx(6.0)


def test_batches_save_a_server_that_single_runs_cannot() -> None:
    alone, together = (simulate(SPANS, 1500, 1, largest) for largest in (1, 16))
    assert "grows without end" in frame(alone)
    assert "keeps up" in frame(together)
    assert np.percentile(together.latencies, 99) < np.percentile(alone.latencies, 50)


@pytest.mark.parametrize("largest", [1, 4, 7])
def test_every_request_is_in_one_batch(largest: int) -> None:
    found = simulate(SPANS, 900, 2, largest, requests=500)
    assert found.batches.sum() == 500
    assert found.batches.max() <= largest
    assert (found.latencies >= 1.0 - 1e-9).all(), "no answer is faster than a run"


def test_a_full_batch_does_not_wait() -> None:
    found = simulate(SPANS, 100_000, 1000, largest=8, requests=800)
    assert found.busy > 0.9


def test_waiting_counts_from_the_arrival() -> None:
    """Whoever came while the model was busy has waited long enough, so a busy server does not pause between two batches."""
    found = simulate({1: 1.0, 32: 1.0}, per_second=5000, wait_ms=0.5, largest=32)
    assert found.busy > 0.9
    assert found.batches.mean() == pytest.approx(5, abs=1)


def test_explorer_is_small_and_linked() -> None:
    from ipywidgets.embed import dependency_state

    box = batching_explorer(SPANS)
    assert len(box.children) == 4
    assert len(str(dependency_state([box]))) < 400_000  # its own, without widgets of other tests


@pytest.mark.parametrize("spans", [{}, {2: 1.0}, {1: 0.0}, {1: 1.0, 0: 1.0}])
def test_absurd_spans_are_refused(spans: dict[int, float]) -> None:
    with pytest.raises(CourseError, match="milliseconds of one run"):
        batching_explorer(spans)
