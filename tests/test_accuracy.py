"""The accuracy that an answer loses: drawn evenly in effect, and decided as by all images, however few are run."""

import numpy as np
import pytest

from course_utils.exercises import accuracy
from course_utils.exercises.fashion_reference import pictures
from course_utils.exercises.trained_network import float_logits
from course_utils.lab.data import normalize


class Reference:
    """Says where it is right, and remembers what it was asked."""

    def __init__(self, right: np.ndarray) -> None:
        self.right, self.asked = right, []

    def __call__(self, of: np.ndarray) -> np.ndarray:
        self.asked += of.tolist()
        return self.right[of]


def whole(right: np.ndarray, weight: np.ndarray, reference: np.ndarray) -> float:
    """Points lost, from all images."""
    return 100 * (int(weight[reference].sum()) - int(weight[right].sum())) / int(weight.sum())


@pytest.mark.parametrize("seed", range(40))
def test_the_outcome_is_that_of_all_images(seed):
    draw = np.random.default_rng(seed)
    for _ in range(50):
        counts = [int(n) for n in draw.integers(1, 120, 3)]
        weight = accuracy.weights(counts)
        right, reference = (draw.random(len(weight)) < share for share in draw.random(2))
        lost = whole(right, weight, reference)
        step = 100 / int(weight.sum())
        # At the border, one image beside it on either side, and anywhere.
        for most in (
            lost,
            lost - step,
            lost + step,
            np.nextafter(lost, -200),
            np.nextafter(lost, 200),
            draw.uniform(-5, 60),
        ):
            asked = Reference(reference)
            found = accuracy.loss(right, weight, asked, float(most))
            assert found.within == (lost <= most)
            assert len(set(asked.asked)) == len(asked.asked)
            assert found.right == weight[right].sum() / weight.sum()
            assert found.reference <= weight[reference].sum() / weight.sum()


def test_what_is_certain_is_not_asked():
    weight = np.ones(300, np.int64)
    good = np.arange(300) % 10 > 0
    asked = Reference(np.ones(300, bool))
    assert accuracy.loss(good, weight, asked, 10.0).within
    assert len(asked.asked) == 30, "it cannot lose more than what is wrong"
    asked = Reference(np.ones(300, bool))
    assert not accuracy.loss(~good, weight, asked, 10.0).within
    assert len(asked.asked) == 270, "what is right cannot win so much back"


def test_all_groups_stand_for_all_images():
    groups = accuracy.groups()
    assert [len(group) for group in groups] == list(accuracy.SIZES)
    assert sorted(np.concatenate(groups).tolist()) == list(range(10_000))
    weight = accuracy.weights((180, 72, 48))
    shares = [part.sum() / weight.sum() for part in np.split(weight, np.cumsum((180, 72)))]
    assert shares == [size / 10_000 for size in accuracy.SIZES]


def test_hard_images_are_those_between_two_classes():
    """As this machine computes the logits; the borders are those of the record."""
    draw = np.random.default_rng(0)

    def nearness(group: np.ndarray) -> np.ndarray:
        some = draw.choice(group, 60, replace=False)
        best = np.sort(float_logits(normalize(pictures("test")[0][some])), 1)
        return best[:, -1] - best[:, -2]

    hard, middle, easy = map(nearness, accuracy.groups())
    assert hard.max() < middle.min() + 0.01
    assert middle.max() < easy.min() + 0.01
