"""Made-up inputs: which sizes a model leaves free, what is tried for them, and what is fed."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from doctor_models import parsed

from course_utils.diagnosis.child.feeding import Shapes, UnmadeError, formula, others, size_of, together


def session(inputs: str, opset: int = 21) -> ort.InferenceSession:
    """Of a model with these inputs, which does nothing with them."""
    names = [part.split()[-1] for part in inputs.split(", ") if " " in part]
    model = parsed(f"g ({inputs}) => (int64[?] y) {{ y = Shape({names[0]}) }}", opset=opset)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def shapes(inputs: str) -> Shapes:
    return Shapes(session(inputs).get_inputs())


def given(name: str, kind: str, *shape: object) -> SimpleNamespace:
    return SimpleNamespace(name=name, type=kind, shape=list(shape))


@pytest.mark.parametrize(
    ("inputs", "first", "other"),
    [
        ("float[N, 3, H, W] x", ["N"], ["H", "W"]), ("float[2, 3] x", [], []), ("float x", [], []), ("float[T, N] x, float[N, 4] h", ["T", "N"], []),
        ("float[N, L] x, float[1, L] h", ["N"], ["L"]), ("float[1, N, L] x, float[N, 4] h", ["N"], ["L"]), ("float[?, 4, ?] x", ["axis 0 of x"], ["axis 2 of x"]),
        ("float[N, N] x", ["N"], []), ("float[N, N, L, L] x", ["N"], ["L"]),
    ],
)  # fmt: skip
def test_what_is_free(inputs, first, other):
    """A name that stands in front somewhere is the batch everywhere; a size without a name gets one."""
    found = shapes(inputs)
    assert (found.first, found.other) == (first, other)
    assert found.free == [*first, *other]


def test_a_formula_of_other_sizes_is_not_free():
    sized = Shapes(
        [
            given("x", "tensor(float)", "b", "s"),
            given("m", "tensor(float)", "b", "p + s"),
            given("c", "tensor(float)", "2*b", "p"),
        ]
    )
    assert (sized.first, sized.other) == (["b"], ["s", "p"])
    fed = sized.feed({"b": 2, "s": 3, "p": 4}, "normal")
    assert {name: array.shape for name, array in fed.items()} == {"x": (2, 3), "m": (2, 7), "c": (4, 4)}


def test_numbers_that_are_no_sizes():
    odd = given("x", "tensor(float)", -1, 0, None, 3)
    assert Shapes.of(odd) == ["axis 0 of x", 0, "axis 2 of x", 3]


@pytest.mark.parametrize(
    ("inputs", "only"),
    [
        ("float[N] x", True),
        ("double[N] x", True),
        ("float16[N] x", True),
        ("int64[N] x", False),
        ("float[N] x, bool[N] m", False),
        ("string[N] x", False),
    ],
)
def test_inputs_that_cannot_be_at_fault(inputs, only):
    assert shapes(inputs).only_floats is only


# Sizes that are tried


def tried(inputs: str, hints: list[int]) -> list[tuple[int, ...]]:
    return [tuple(sizes.values()) for sizes in shapes(inputs).tries(hints)]


def test_batches_are_tried():
    assert tried("float[N, 4] x", []) == [(n,) for n in (1, 2, 3, 4, 8, 16, 32, 64)]
    assert tried("float[N, 4] x", [5, 8, 6]) == [(n,) for n in (1, 2, 3, 4, 8, 16, 32, 64, 5, 6)], "each once"
    assert tried("float[N, 4] x, float[M, 4] z", [])[:3] == [(1, 1), (2, 2), (3, 3)]


def test_one_size_beside_the_batch():
    rarer = [*range(3, 16), 28, 96, 112, 128, 160, 192, 256, 299, 320, 384, 416, 448, 512, 640]
    wanted = [(1, 16), (1, 32), (1, 64), (1, 224), (1, 7), (1, 1), (2, 2), (16, 16), (7, 7), (2, 16), (3, 16), (4, 16)]
    assert tried("float[N, L] x", [7]) == [*wanted, *((1, n) for n in rarer if n != 7)]


def test_two_sizes_beside_the_batch():
    """An empty cache, and pairs of the numbers that stand in the file; of these the first six."""
    found = tried("float[N, P, L] x", [5, 9])
    assert found[:6] == [(1, 16, 16), (1, 32, 32), (1, 64, 64), (1, 224, 224), (1, 16, 0), (1, 0, 16)]
    assert (1, 5, 9) in found
    assert (1, 9, 5) in found
    many = tried("float[N, P, L] x", list(range(700, 708)))
    assert (1, 705, 700) in many
    assert (1, 706, 700) not in many
    three = tried("float[N, P, L, K] x", [5, 9])
    assert three[4:7] == [(1, 16, 16, 0), (1, 16, 0, 16), (1, 0, 16, 16)]
    assert (1, 5, 9, 5) not in three
    assert not [sizes for sizes in tried("float[N, L] x", []) if 0 in sizes], "a single size is not empty"


def test_not_more_than_96_are_tried():
    found = tried("float[N, P, L] x", list(range(700, 760)))
    assert len(found) == len(set(found)) == 96


# What is fed


KINDS = {
    "float": np.float32, "double": np.float64, "float16": np.float16, "int64": np.int64, "int32": np.int32, "int16": np.int16, "int8": np.int8,
    "uint8": np.uint8, "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64, "bool": np.bool_,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_every_dtype(kind):
    """A session takes them; normal numbers or zeros, and numbers between 0.1 and 1 or ones."""
    made = session(f"{kind}[N, 400] x")
    sized = Shapes(made.get_inputs())
    normal, uniform = (sized.feed({"N": 3}, how)["x"] for how in ("normal", "uniform"))
    for array in (normal, uniform):
        assert (array.dtype, array.shape) == (KINDS[kind], (3, 400))
        assert made.run(None, {"x": array})[0].tolist() == [3, 400]
    if kind in ("float", "double", "float16"):
        assert -0.2 < normal.mean() < 0.2
        assert 0.9 < normal.std() < 1.1
        assert 0.1 <= uniform.min() < 0.15
        assert 0.95 < uniform.max() <= 1
    else:
        assert not normal.any()
        assert uniform.all()
        assert uniform.max() == 1
    assert (sized.feed({"N": 3}, "normal")["x"] == normal).all(), "each time the same"


def test_texts_and_what_cannot_be_made_up():
    assert shapes("string[N] x").feed({"N": 2}, "normal")["x"].tolist() == ["a", "a"]
    for kind in ("seq(tensor(float))", "tensor(bfloat16)", "map(int64,tensor(float))"):
        with pytest.raises(UnmadeError, match=r"the input 'x' is a .*, which cannot be made up"):
            Shapes([given("x", kind, 2)]).feed({}, "normal")


def test_inputs_that_are_too_large():
    """64 million numbers at most."""
    sized = Shapes([given("x", "tensor(bool)", "N", 2**10)])
    assert sized.feed({"N": 2**16}, "normal")["x"].size == 2**26
    with pytest.raises(UnmadeError, match=r"'x' of shape \[65537, 1024\] is too large to make up"):
        sized.feed({"N": 2**16 + 1}, "normal")


# Other sizes than the one that ran


@pytest.mark.parametrize(
    ("name", "size", "wanted"),
    [
        ("N", 1, [2, 3]), ("N", 2, [3]), ("N", 3, [2, 4]), ("N", 8, [2, 3, 9]), ("L", 1, [2, 3, 16, 32, 64]), ("L", 16, [17, 8, 32, 48, 64]),
        ("L", 64, [65, 32, 128, 192, 16]), ("L", 65, [66, 32, 130, 16, 64]), ("L", 0, [1, 8]), ("L", 3, [4, 6, 9, 16, 32, 64]), ("N", 0, [2, 3]),
        ("L", 2, [3, 4, 6, 16, 32, 64]), ("L", 4, [5, 2, 8, 12, 16, 32, 64]),
    ],
)  # fmt: skip
def test_other_sizes(name, size, wanted):
    """Not 1, which fits nearly everything."""
    assert others(shapes("float[N, L] x"), name, {"N": size, "L": size}) == wanted


def test_sizes_that_change_together():
    """With those of its kind, with those that are equal, with all; each way once, and not the size alone."""
    sized = shapes("float[N, L, K] x, float[M, 4] z")
    base = {"N": 1, "M": 1, "L": 16, "K": 16}
    assert together(sized, "N", base, 2) == [{**base, "N": 2, "M": 2}, dict.fromkeys(base, 2)]
    assert together(sized, "L", base, 8) == [{**base, "L": 8, "K": 8}, dict.fromkeys(base, 8)]
    base["K"] = 1
    assert together(sized, "K", base, 5) == [
        {**base, "L": 5, "K": 5},
        {**base, "N": 5, "M": 5, "K": 5},
        dict.fromkeys(base, 5),
    ]
    assert together(shapes("float[N, L] x"), "L", {"N": 1, "L": 16}, 8) == [{"N": 8, "L": 8}]
    assert together(shapes("float[N, 4] x"), "N", {"N": 1}, 2) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("p + s", 7), ("p - s", -1), ("2*p", 6), ("(p + s)//2", 3), ("p//0", None), ("p", None), ("7", None), ("p + q", None), ("p/2", None),
        ("p**2", None), ("f(p)", None), ("p +", None), ("", None), ("p + 999999", 1_000_002), ("p + 1000000", None), ("p + -1", None), ("p + 1.5", None),
        ("p + 'a'", None), ("past_key + 1", None), ("p\0 + 1", None), ("(" * 300 + "p", None), ("p" + " + 1" * 49, 52), ("p" + " + 1" * 50, None),
    ],
)  # fmt: skip
def test_formulas(text, value):
    """As exporters write them; nothing else is worked out, and of endless ones only 200 characters are read."""
    assert formula(text, {"p": 3, "s": 4}) == value


def test_the_number_for_a_dimension():
    assert [size_of(d, {"p": 3, "p + 1": 9}) for d in (5, 0, "p", "q", "p + 1", "p + 2")] == [5, 0, 3, None, 9, 5]


def test_the_twin_runs():
    """What is fed is what the model takes."""
    made = session("float[N, L, 4] x, int64[N, L] i, bool[1, ?] m")
    sized = Shapes(made.get_inputs())
    sizes = next(iter(sized.tries([])))
    assert sizes == {"N": 1, "L": 16, "axis 1 of m": 16}
    assert made.run(None, sized.feed(sizes, "normal"))[0].tolist() == [1, 16, 4]
