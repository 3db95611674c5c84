"""Task 5.4: what was said, what was chosen and what was used, and the cause of it.

What the WebGPU and QNN plug-ins answer was seen with them; `tests/test_placed.py` asks again where they work.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

import onnxruntime as ort

from .. import Criteria, Criterion, Params
from ..examine import wants_keys
from .placed import CPU, WEBGPU

_CAUSES = (
    "nothing wrong",
    "wrong name",
    "missing provider",
    "wrong option",
    "plug-in by name",
    "unsupported operators",
)
_NAMES = {  # real name → how people write it
    "TensorrtExecutionProvider": "TensorRTExecutionProvider",
    "DmlExecutionProvider": "DirectMLExecutionProvider",
    "NnapiExecutionProvider": "NNAPIExecutionProvider",
    "OpenVINOExecutionProvider": "OpenVinoExecutionProvider",
    "CoreMLExecutionProvider": "CoreMlExecutionProvider",
}
_LAYOUTS = ("NHCW", "NCWH", "HWCN", "CHW", "HWC")


def draw_transcripts(rng: Random) -> Params:
    wrong = rng.choice(sorted(_NAMES))
    # OpenVINO is a plug-in today, so it is not among those that take nodes when they are asked for by name.
    real = rng.sample(sorted(_NAMES.keys() - {wrong, "OpenVINOExecutionProvider"}), 3)
    nodes, few, written = rng.randint(20, 60), rng.randint(1, 5), _NAMES[wrong]
    lacking = "Specified provider {!r} is not in available provider names."
    again = f"Falling back to [{CPU!r}] and retrying."
    layout = f"EP Error Error creating execution provider: Invalid preferred layout: {rng.choice(_LAYOUTS)}"
    found: list[tuple[str, str, list[str], list[str], dict[str, int]]] = [
        (
            written,
            "name",
            [lacking.format(written), f"EP Error Unknown Provider Type: {written}", again],
            [CPU],
            {CPU: nodes},
        ),
        (real[0], "name", [lacking.format(real[0])], [CPU], {CPU: nodes}),
        (WEBGPU, "device", [layout, again], [CPU], {CPU: nodes}),
        (rng.choice([WEBGPU, "QNNExecutionProvider"]), "name", [], [CPU], {CPU: nodes}),
        (real[1], "name", [], [real[1], CPU], {CPU: nodes}),
        (real[2], "name", [], [real[2], CPU], {real[2]: nodes - few, CPU: few}),
        (real[0], "name", [], [real[0], CPU], {real[0]: nodes}),
    ]
    rng.shuffle(found)
    keys = ("asked for", "by", "said", "get_providers()", "record: nodes per provider")
    return {
        "transcripts": {
            letter: dict(zip(keys, ([first, CPU], *others), strict=True))
            for letter, (first, *others) in zip("ABCDEFG", found, strict=True)
        }
    }


def _cause(transcript: Mapping[str, Any]) -> str:
    said, record = " ".join(transcript["said"]), transcript["record: nodes per provider"]
    if "Unknown Provider Type" in said:
        return "wrong name"
    if "EP Error" in said:
        return "wrong option"
    if "not in available" in said:
        return "missing provider"
    if transcript["get_providers()"] == [CPU]:
        return "plug-in by name"
    return "unsupported operators" if CPU in record else "nothing wrong"


_SIGNS = {
    "wrong name": "it is said that this type of provider is unknown, so no package has a provider of this name.",
    "wrong option": "it is said that the value of an option is invalid, so provider and name are fine.",
    "plug-in by name": "nothing is said, and the provider is not even in get_providers(): a registered plug-in is chosen by its device.",
    "missing provider": "a warning is all there is: the name is right, but the installed package lacks it.",
    "unsupported operators": "nothing is said, the provider is registered, and the CPU has nodes in the record.",
    "nothing wrong": "all nodes are on the provider that was asked for first.",
}


def check_transcripts(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, transcripts = Criteria(), p["transcripts"]
    if not wants_keys(answer, {"causes", "right_name"}, criteria):
        return criteria
    causes = answer["causes"]
    if not criteria.require(
        "causes names one of the causes for each transcript",
        isinstance(causes, dict) and set(causes) == set(transcripts) and all(c in _CAUSES for c in causes.values()),
        f"It is a dict with the keys {', '.join(transcripts)}; the causes are: {', '.join(_CAUSES)}.",
    ):
        return criteria
    wrong = [(causes[letter], _cause(t)) for letter, t in transcripts.items() if causes[letter] != _cause(t)]
    if not criteria.add(
        "all transcripts are explained",
        not wrong,
        f"{len(transcripts) - len(wrong)} of {len(transcripts)} are right. In one that you call {wrong[0][0]!r}, "
        f"{_SIGNS[wrong[0][1]]}"
        if wrong
        else "",
    ):
        return criteria
    misspelled = next(t["asked for"][0] for t in transcripts.values() if _cause(t) == "wrong name")
    name = answer["right_name"]
    criteria.add(
        "right_name is the real name of the misspelled provider",
        name == next(real for real, written in _NAMES.items() if written == misspelled),
        f"{name!r} is no provider that ONNX Runtime knows: search in ort.get_all_providers(), capital letters count."
        if name not in ort.get_all_providers()
        else "That is another provider.",
    )
    return criteria
