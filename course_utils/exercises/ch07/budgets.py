"""Task 7.6: six files of one network, three uses with budgets, and the one file that fits each use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from random import Random
from typing import Any

import numpy as np
import onnx

from ...lab.graphs import operator_counts
from ...lab.provenance import optimized
from .. import Criteria, Criterion, Params
from ..examine import wants_keys, whole
from ..fashion_reference import pictures, recorded
from ..trained_network import CONVS
from .variants import BLOCK, FORMS, form, form_of, variants

LETTERS = "abcdef"
PICTURES = 200
_SMALL = ("weights", "pairs", "operators")
FACTS = ("bytes", "opset", "accuracy", "difference", "int8", "foreign")
Facts = dict[str, Any]


def draw_budgets(rng: Random) -> Params:
    order = list(range(10))
    rng.shuffle(order)
    p: Params = {"order": order, "first": rng.randrange(0, 9800, 50), "seed": rng.getrandbits(32)}
    drawn = details(p)
    opset, (page, board, archive) = drawn["opsets"], drawn["uses"]

    def limit(right: str, other: str) -> int:
        return rng.randrange(opset[right], opset[other])

    return p | {
        "uses": {
            "page": {
                "most_bytes": rng.randrange(360_000, 480_000, 10_000),
                "points": 3,
                "opset": limit(page, "pairs" if page == "weights" else "weights"),
                "foreign": 0,
            },
            "board": {
                "int8": CONVS,
                "points": 3,
                "opset": limit(board, "operators" if board == "pairs" else "pairs"),
            },
            "archive": {
                "most_bytes": rng.randrange(650_000, 750_000, 10_000) if archive == "float16" else 400_000,
                "difference": 0.002 if archive == "float16" else 0.009,
            },
        }
    }


def details(p: Params) -> dict[str, Any]:
    """Which file is which, and which kind fits page, board and archive: not among the parameters, it is the answer."""
    rng = Random(p["seed"])
    versions = sorted(rng.sample(range(13, 20), 3))
    opset = dict(zip(rng.sample(_SMALL, 3), versions, strict=True))
    # The others are older than any limit: what rules them out is something else.
    opset |= {kind: rng.randint(13, versions[0]) for kind in ("float32", "float16", "dark")}
    uses = (
        min(("weights", "pairs"), key=opset.__getitem__),
        min(("pairs", "operators"), key=opset.__getitem__),
        rng.choice(["float16", "weights"]),
    )
    kinds = ["float32", "float16", "dark", *_SMALL]
    rng.shuffle(kinds)
    return {
        "opsets": opset,
        "uses": uses,
        "kinds": dict(zip(LETTERS, kinds, strict=True)),
        "bad": rng.choice(_SMALL[1:]),
    }


def right_uses(p: Params) -> dict[str, str]:
    """Use → letter."""
    drawn = details(p)
    letter = {kind: name for name, kind in drawn["kinds"].items()}
    return dict(zip(p["uses"], (letter[kind] for kind in drawn["uses"]), strict=True))


def six_files(p: Params) -> dict[str, onnx.ModelProto]:
    drawn = details(p)
    made = variants(p["order"], drawn["opsets"], drawn["bad"])
    return {f"7.6_{letter}.onnx": made[kind] for letter, kind in drawn["kinds"].items()}


def measured(p: Params) -> dict[str, Facts]:
    """Letter → what an answer should say of the file."""
    return {letter: {name: seen[name] for name in FACTS} for letter, seen in _seen(p).items()}


def _seen(p: Params) -> Mapping[str, Facts]:
    return _measure(tuple(p["order"]), p["first"], p["seed"])


@lru_cache(8)
def _measure(order: tuple[int, ...], first: int, seed: int) -> dict[str, Facts]:
    """The facts of each file, and beside them, with a blank in their names, what slips make of them."""
    drawn = details({"seed": seed})
    record, chosen = recorded(), slice(first, first + PICTURES)
    blocks = slice(first // BLOCK, (first + PICTURES) // BLOCK)
    wanted, place = pictures("test")[1][chosen], np.argsort(order)
    found = {}
    for letter, kind in drawn["kinds"].items():
        name = form_of(kind, drawn["bad"])
        row = FORMS.index(name)
        classes, cut = record["classes"][row, chosen], record["cut classes"][row, chosen]
        found[letter] = _of_form(name) | {
            "opset": drawn["opsets"][kind],
            "accuracy": float((classes == wanted).mean()),
            "difference": float(np.sqrt(record["squares"][row, blocks].mean())),
            # As a session without more settings has it on processors without VNNI.
            "cut accuracy": float((cut == wanted).mean()),
            "cut difference": float(np.sqrt(record["cut squares"][row, blocks].mean())),
            "usual accuracy": float((place[classes] == wanted).mean()),
            "largest difference": float(record["largest"][row, blocks].max()),
            "mean difference": float(record["sizes"][row, blocks].mean()),
        }
    return found


@cache
def _of_form(name: str) -> Facts:
    """What neither the order of the classes nor the opset changes."""
    model = form(name, list(range(10)), 17)
    inside, runs = operator_counts(model), operator_counts(optimized(model, "extended"))
    return {
        "bytes": len(model.SerializeToString(deterministic=True)),
        "int8": _convolutions(runs),
        "foreign": sorted(name for name in inside if "::" in name),
        "stored int8": _convolutions(inside),
        "running foreign": sorted(name for name in runs if "::" in name),
        "format": model.ir_version,
    }


def _convolutions(counts: Mapping[str, int]) -> int:
    return sum(count for name, count in counts.items() if name.endswith("QLinearConv"))


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12:  # NaN is not
        return float(value)
    return None


def check_budgets(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"facts", "uses"}, criteria):
        return criteria
    facts, uses = answer["facts"], answer["uses"]
    formed = criteria.require(
        "facts has a dict for each of the six letters",
        isinstance(facts, dict) and set(facts) == set(LETTERS) and all(isinstance(f, dict) for f in facts.values()),
        f"Write a dict from {', '.join(LETTERS)} to a dict of facts.",
    )
    odd = [f for f in facts.values() if set(f) != set(FACTS)] if formed else []
    formed &= criteria.require(
        f"each has the facts {', '.join(FACTS)}",
        formed and not odd,
        lambda: f"One has {', '.join(map(str, odd[0])) or 'none'}." if odd else "Mend the letters first.",
    )
    formed &= criteria.require(
        "uses names a letter for page, board and archive",
        isinstance(uses, dict)
        and set(uses) == set(p["uses"])
        and all(isinstance(letter, str) and letter in LETTERS and len(letter) == 1 for letter in uses.values()),
        'Write {"page": …, "board": …, "archive": …} with one letter each.',
    )
    if not formed:
        return criteria
    seen = _seen(p)
    wrong = [
        (name, letter) for name in FACTS for letter in LETTERS if not _agrees(name, facts[letter][name], seen[letter])
    ]
    total = len(FACTS) * len(LETTERS)

    def why() -> str:
        name = wrong[0][0]
        pairs = [(facts[letter][name], seen[letter]) for other, letter in wrong if other == name]
        return f"{total - len(wrong)} of {total} are right. Of {name}: {_cause(name, pairs)}"

    if not criteria.add("the facts of the six files", not wrong, why):
        criteria.add("the file for each use", False, "The choice is looked at once all facts are right.")
        return criteria
    right = right_uses(p)
    missed = [use for use in right if uses[use] != right[use]]

    def broken() -> str:
        limits = sorted({limit for use in missed for limit in _breaks(p, use, seen, uses[use])})
        return (
            f"{len(right) - len(missed)} of {len(right)} are right. What you chose breaks a limit on "
            f"{' and on '.join(limits)}: a file must keep all limits of its use."
        )

    criteria.add("the file for each use", not missed, broken)
    return criteria


def _agrees(name: str, value: Any, seen: Facts) -> bool:
    want = seen[name]
    if name == "foreign":
        return isinstance(value, list) and all(isinstance(v, str) for v in value) and sorted(value) == want
    if name in ("bytes", "opset", "int8"):
        return whole(value) == want
    number = _number(value)
    if number is None:
        return False
    wants = (want, seen[f"cut {name}"])
    if name == "accuracy":  # another processor may round a few pictures to another class
        return any(abs(number - want) <= 3.1 / PICTURES for want in wants)
    return any(math.isclose(number, want, rel_tol=0.25, abs_tol=3e-4) for want in wants)


# Fact → what a usual slip writes in its place, and what to say of it; the last entry is said where none fits.
_SLIPS: dict[str, dict[str, Callable[[Facts], Any]]] = {
    "bytes": {
        "write bytes, not KB.": lambda f: f["bytes"] / 1000,
        "write bytes, and not KB or MB.": lambda f: f["bytes"] / 1024,
        "write bytes, not MB.": lambda f: f["bytes"] / 1e6,
    },
    "opset": {"that is the IR version, the version of the format.": lambda f: f["format"]},
    "accuracy": {
        "position i of the logits belongs to class order[i].": lambda f: f["usual accuracy"],
        "write a share from 0 to 1, not per cent.": lambda f: 100 * f["accuracy"],
    },
    "difference": {
        "that is the largest one: take the root of the mean of squares.": lambda f: f["largest difference"],
        "that is the mean of absolute values: take the root of the mean of squares.": lambda f: f["mean difference"],
        "the root is missing.": lambda f: f["difference"] ** 2,
    },
    "int8": {"the file holds pairs and Conv, but what runs? Count in cu.optimized(file).": lambda f: f["stored int8"]},
    "foreign": {
        "write each with its domain, as cu.op_histogram does.": lambda f: [n.split("::")[1] for n in f["foreign"]],
        "these are operators that ONNX Runtime puts in when it loads a file. Look at the file itself.": lambda f: f[
            "running foreign"
        ],
    },
}
_WANTED = {
    "bytes": "the size of the whole file: path.stat().st_size.",
    "opset": "the version in opset_import of the standard domain, which has an empty name.",
    "accuracy": f"the share of right answers on your {PICTURES} pictures, normalised by cu.normalize.",
    "difference": "of all logits of your pictures, beside those of the float32 file: np.sqrt(np.mean((got - exact) ** 2)).",
    "int8": "how many QLinearConv there are in the graph that runs, cu.optimized(file).",
    "foreign": "a list of the operators with :: in their names in cu.op_histogram(file), each once; or an empty list.",
}


def _cause(name: str, pairs: list[tuple[Any, Facts]]) -> str:
    """What the wrong values have in common, if it is a usual slip."""
    fits = (said for said, slip in _SLIPS[name].items() if all(_near(value, slip(seen)) for value, seen in pairs))
    return next(fits, _WANTED[name])


def _near(value: Any, slip: Any) -> bool:
    if isinstance(slip, list):
        return isinstance(value, list) and sorted(map(str, value)) == sorted(slip)
    number = _number(value)
    return number is not None and math.isclose(number, slip, rel_tol=0.01, abs_tol=1e-9)


def _breaks(p: Params, use: str, seen: Mapping[str, Facts], letter: str) -> list[str]:
    """Which limits of a use a file does not keep."""
    limits, facts = p["uses"][use], seen[letter]
    best = max(f["bytes"] for f in seen.values())
    accuracy = next(f["accuracy"] for f in seen.values() if f["bytes"] == best)  # the float32 file is the largest one
    kept = {
        "most_bytes": facts["bytes"] <= limits.get("most_bytes", math.inf),
        "points": 100 * (accuracy - facts["accuracy"]) <= limits.get("points", math.inf),
        "opset": facts["opset"] <= limits.get("opset", math.inf),
        "foreign": len(facts["foreign"]) <= limits.get("foreign", math.inf),
        "int8": facts["int8"] >= limits.get("int8", 0),
        "difference": facts["difference"] <= limits.get("difference", math.inf),
    }
    return [name for name, fits in kept.items() if not fits]
