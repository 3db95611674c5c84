"""Running an answer on a check's inputs. Where it is wrong, the usual slips are computed, too, to find the one that was made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ..errors import CourseError
from ..running import OutOfTimeError, run, session_for
from . import Criteria

Feed = dict[str, np.ndarray]
Calculation = Callable[[Feed], np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What a model made of one feed. got: its first output; None when it was refused, for the reason `said`."""

    feed: Feed
    got: np.ndarray | None
    said: str = ""


def outcomes(model: onnx.ModelProto, feeds: Sequence[Feed]) -> list[Outcome]:
    """Run a model as it stands in the file. Raises OutOfTimeError when a run does not come to its end."""
    try:
        session = session_for(model, optimize=False)
    except CourseError as error:
        return [Outcome(feed, None, str(error)) for feed in feeds]
    found = []
    for feed in feeds:
        try:
            found.append(Outcome(feed, next(iter(run(session, feed).values()))))
        except OutOfTimeError:
            raise
        except CourseError as error:
            found.append(Outcome(feed, None, str(error)))
    return found


def compare(
    model: onnx.ModelProto,
    cases: Mapping[str, Sequence[Feed]],
    right: Calculation,
    slips: Mapping[str, Calculation],
    criteria: Criteria,
    *,
    otherwise: str,
    atol: float = 1e-4,
    rtol: float = 1e-3,
) -> bool:
    """Add one goal for each case (what it says → inputs): the model's first output is what `right` computes from them.

    slips: sentence → what an answer with that mistake computes. The first that agrees with the model on every input that
    it ran on is the hint; they are computed only for an answer that is wrong. otherwise: the hint when none agrees.
    Returns whether all goals are met. Raises OutOfTimeError when a run does not come to its end.
    """
    found = {what: outcomes(model, feeds) for what, feeds in cases.items()}
    wrong = {
        what: next((o for o in seen if not same(o.got, right(o.feed), atol, rtol)), None)
        for what, seen in found.items()
    }
    cause = ""
    if any(o and o.got is not None for o in wrong.values()):
        ran = [o for seen in found.values() for o in seen if o.got is not None]
        cause = slip_made(ran, slips, atol, rtol) or otherwise
    for what, first in wrong.items():
        criteria.add(what, first is None, "" if first is None else _difference(first, right(first.feed), cause))
    return not any(wrong.values())


def slip_made(ran: Sequence[Outcome], slips: Mapping[str, Calculation], atol: float = 1e-4, rtol: float = 1e-3) -> str:
    """The first slip that gives what the model gave, every time; empty when none does."""
    return next((text for text, slip in slips.items() if all(same(o.got, slip(o.feed), atol, rtol) for o in ran)), "")


def same(got: np.ndarray | None, want: np.ndarray, atol: float = 1e-4, rtol: float = 1e-3) -> bool:
    """Whether a result has the shape and, nearly, the numbers that it should have."""
    return got is not None and got.shape == want.shape and np.allclose(got, want, atol=atol, rtol=rtol)


def _difference(o: Outcome, want: np.ndarray, cause: str) -> str:
    if o.got is None:
        return f"It is refused: {o.said}"
    if o.got.shape != want.shape:
        return f"The result has the shape {list(o.got.shape)}, expected {list(want.shape)}. {cause}"
    if odd := int((~np.isfinite(o.got)).sum()):
        return f"{odd} of {o.got.size} numbers of the result are nan or infinite. {cause}"
    return f"The largest difference is {np.abs(o.got.astype(np.float64) - want).max():.3g}. {cause}"
