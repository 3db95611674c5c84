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
        except (CourseError, UnicodeError) as error:  # a damaged name is no text
            found.append(Outcome(feed, None, str(error)))
    return found


def compare(
    model: onnx.ModelProto,
    cases: Mapping[str, Sequence[Feed]],
    right: Calculation,
    slips: Mapping[str, Calculation],
    criteria: Criteria,
    *,
    otherwise: str | Callable[[], str],
    atol: float = 1e-4,
    rtol: float = 1e-3,
) -> None:
    """Add one goal for each case (what it says → inputs): the model's first output is what `right` computes from them.

    slips: sentence → what an answer with that mistake computes. One that agrees with the model on every input that it ran
    on is the hint. otherwise: the hint when none agrees. Both are computed only for an answer that is wrong.
    Raises OutOfTimeError when a run does not come to its end.
    """
    ran = iter(outcomes(model, [feed for feeds in cases.values() for feed in feeds]))
    found = {what: [next(ran) for _ in feeds] for what, feeds in cases.items()}
    wrong = {what: [o for o in seen if not same(o.got, right(o.feed), atol, rtol)] for what, seen in found.items()}
    cause = ""
    if any(o.got is not None for failed in wrong.values() for o in failed):
        cause = slip_made([o for seen in found.values() for o in seen if o.got is not None], slips, atol, rtol)
    for what, failed in wrong.items():
        hint = ""
        if failed:
            refused = failed[0].got is None
            hint = _difference(failed[0], right(failed[0].feed)) + " "
            hint += cause or ("" if refused else otherwise if isinstance(otherwise, str) else otherwise())
        criteria.add(what, not failed, hint)


def slip_made(ran: Sequence[Outcome], slips: Mapping[str, Calculation], atol: float = 1e-4, rtol: float = 1e-3) -> str:
    """The slip that gives what the model gave, every time; several where they cannot be told apart; empty when none does."""
    fit = [text for text, slip in slips.items() if all(same(o.got, slip(o.feed), atol, rtol, nan=True) for o in ran)]
    return " Or: ".join(fit[:2])


def same(
    got: np.ndarray | None, want: np.ndarray, atol: float = 1e-4, rtol: float = 1e-3, *, nan: bool = False
) -> bool:
    """Whether a result has the shape and, nearly, the numbers that it should have. nan: whether nan equals nan."""
    return got is not None and got.shape == want.shape and np.allclose(got, want, atol=atol, rtol=rtol, equal_nan=nan)


def _difference(o: Outcome, want: np.ndarray) -> str:
    if o.got is None:
        return f"It is refused: {o.said.rstrip('.')}."
    if o.got.shape != want.shape:
        return f"The result has the shape {list(o.got.shape)}, expected {list(want.shape)}."
    if odd := int((~np.isfinite(o.got)).sum()):
        return f"{odd} of {o.got.size} numbers of the result are nan or infinite."
    return f"The largest difference is {np.abs(o.got.astype(np.float64) - want).max():.3g}."
