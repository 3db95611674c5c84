"""Task 8.2: which ids a graph gives, and in which order, when it is nearly right."""

from __future__ import annotations

import pytest
from answers import accepted, criteria, failed, params
from test_exercise_08 import ANSWER, with_answer

IDS = "id = Gather<axis = 0>(ids, place)"


def student(best: int) -> str:
    return next(w for w in map(str, range(99)) if params("8.2", w)["best"] == best)


def numbers(values: list[int]) -> str:
    return f", int64[{len(values)}] order = {{{', '.join(map(str, values))}}}"


@pytest.mark.parametrize("best", [2, 3, 4])
def test_ids_in_another_order(best: int) -> None:
    who = student(best)
    accepted("8.2", with_answer(who, ANSWER), who)
    turned = ANSWER.replace(IDS, "found = Gather<axis = 0>(ids, place)  id = Gather<axis = 1>(found, order)")
    backwards = list(range(best))[::-1]
    assert "The best one comes last" in failed("8.2", with_answer(who, turned, more=numbers(backwards)), who)
    if best > 2:
        other = [1, 0, *range(2, best)]
        assert "their order is not" in failed("8.2", with_answer(who, turned, more=numbers(other)), who)
    first = ANSWER.replace(IDS, "none = Sub(place, place)  at = Add(none, order)  id = Gather<axis = 0>(ids, at)")
    hints = failed("8.2", with_answer(who, first, more=numbers(list(range(best)))), who)
    assert "These are the first ids of the table" in hints
    beside = ANSWER.replace(IDS, "next = Add(place, one)  at = Mod(next, size)  id = Gather<axis = 0>(ids, at)")
    model = with_answer(who, beside, more=", int64 one = {1}, int64 size = {8}")
    assert "Compare with the ids of the largest scores" in failed("8.2", model, who)
    assert [c.passed for c in criteria("8.2", model, who) if not c.condition] == [False, True]


def test_probabilities_of_the_best_alone() -> None:
    both = "all = Softmax<axis = 1>(c)\n    probability, place = TopK<axis = 1>(all, k)"
    assert both in ANSWER
    alone = ANSWER.replace(both, "v, place = TopK<axis = 1>(c, k)  probability = Softmax<axis = 1>(v)")
    assert "The softmax sees the best classes only" in failed("8.2", with_answer("ada", alone))
