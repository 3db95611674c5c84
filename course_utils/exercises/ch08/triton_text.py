"""Task 8.7: mend the `config.pbtxt` of a model repository, so that it fits its model and what was agreed."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ...errors import CourseError, MissingPackageError
from ...lab.triton_config import config_findings, read_config
from ...running import session_for
from .. import Criteria, Criterion, Params
from ..examine import wants_keys

_LONGEST = 20_000  # characters
_TYPES = {"uint8": "UINT8", "float": "FP32", "int16": "INT16", "int64": "INT64", "int32": "INT32", "float16": "FP16"}
_NEAR = {"uint8": "INT8", "float": "FP64", "int16": "INT32", "int64": "INT32", "int32": "INT64", "float16": "FP32"}


def draw_triton(rng: Random) -> Params:
    newest = rng.randint(3, 9)
    agreed: Params = {
        "versions": [*sorted(rng.sample(range(1, newest), 2)), newest],
        "serve": "the newest version alone",
    }
    fixed = rng.random() < 0.4
    if not fixed:
        agreed |= {"batch": rng.choice([8, 12, 16, 24]), "wait_ms": rng.randint(2, 9)}
    agreed |= {"sessions": rng.randint(2, 4), "on": rng.choice(["CPU", "GPU 0", "GPU 1"])}
    word = rng.choice(["shop", "clinic", "archive", "mail", "radio"])
    return {"folder": f"{word}_{rng.randint(10, 99)}", "agreed": agreed, "seed": rng.getrandbits(32)}


def details(p: Params) -> dict[str, Any]:
    """The model's tensors and the faults of the text: not among the parameters, they are what is looked for."""
    rng, fixed = Random(p["seed"]), "batch" not in p["agreed"]
    io = ["image type", "words type", "order of dims", "name of an output", "free words", "score type"]
    settings = ["name", "versions", "sessions", "place"] + ([] if fixed else ["wait", "preferred"])
    faults = {*rng.sample(io, 3), *rng.sample(settings, 3), "batch"}
    return {
        "fixed": fixed,
        "faults": faults,
        "misspelled": rng.choice(
            [("instance_group", "instance_groups"), ("backend", "back_end"), ("data_type", "datatype")]
        ),
        "image": (rng.choice(["image", "picture", "frame"]), rng.choice(["uint8", "float", "int16"])),
        "words": (rng.choice(["words", "tokens", "ids"]), rng.choice(["int64", "int32"])),
        "score": (rng.choice(["score", "probability"]), rng.choice(["float", "float16"])),
        "label": rng.choice(["label", "best"]),
        "sizes": (*rng.sample(range(20, 60), 2), rng.randint(5, 30)),
    }


def served_model(p: Params) -> onnx.ModelProto:
    """Image and words in, label and score out; with a free batch or with one of 1."""
    d = details(p)
    (image, image_type), (words, words_type), (score, score_type) = d["image"], d["words"], d["score"]
    height, width, classes = d["sizes"]
    batch = 1 if d["fixed"] else "batch"
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
        model ({image_type}[{batch}, {height}, {width}] {image}, {words_type}[{batch}, length] {words})
        => (int64[{batch}] {d["label"]}, {score_type}[{batch}, {classes}] {score}) {{
            pixels = Cast<to = 1>({image})
            rows = ReduceMean<axes = [2], keepdims = 0>(pixels)
            seen = MatMul(rows, weight)
            numbers = Cast<to = 1>({words})
            read = ReduceMean<axes = [1], keepdims = 1>(numbers)
            sum = Add(seen, read)
            all = Softmax<axis = 1>(sum)
            {d["label"]} = ArgMax<axis = 1, keepdims = 0>(all)
            {score} = Cast<to = {10 if score_type == "float16" else 1}>(all)
        }}""")
    weight = np.random.default_rng(p["seed"]).normal(size=(height, classes)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "weight"))
    return model


def config_text(p: Params, faults: set[str], misspelled: tuple[str, str] = ("", "")) -> str:
    """The text of a `config.pbtxt` with these faults; without any, a right one."""
    d, agreed = details(p), p["agreed"]
    fixed, (height, width, classes) = d["fixed"], d["sizes"]
    sides = [width, height] if "order of dims" in faults else [height, width]
    # With the fault, what is right for the other kind of model.
    front = [] if fixed == ("batch" in faults) else [1 if fixed else -1]

    def kind(name: str, dtype: str) -> str:
        return f"TYPE_{_NEAR[dtype] if f'{name} type' in faults else _TYPES[dtype]}"

    def tensor(side: str, name: str, dtype: str, dims: list[int], more: str = "") -> str:
        return f'{side} {{\n  name: "{name}"\n  data_type: {dtype}\n  dims: {dims}\n{more}}}\n'

    whole = fixed and "batch" not in faults
    label = d["label"] + ("s" if "name of an output" in faults else "")
    text = f'name: "{p["folder"].rpartition("_")[0] if "name" in faults else p["folder"]}"\nbackend: "onnxruntime"\n'
    size = agreed.get("batch", 16)
    text += "" if whole else f"max_batch_size: {size}\n"
    words = [128 if "free words" in faults else -1]
    text += tensor("input", d["image"][0], kind("image", d["image"][1]), front + sides)
    text += tensor("input", d["words"][0], kind("words", d["words"][1]), front + words)
    text += tensor("output", label, "TYPE_INT64", [1], "" if whole else "  reshape { shape: [ ] }\n")
    text += tensor("output", d["score"][0], kind("score", d["score"][1]), [*front, classes])
    if not whole:
        wait = agreed.get("wait_ms", 5) * (1 if "wait" in faults else 1000)
        preferred = 2 * size if "preferred" in faults else size
        text += f"dynamic_batching {{\n  preferred_batch_size: [ {preferred} ]\n  max_queue_delay_microseconds: {wait}\n}}\n"
    on_gpu = agreed["on"].startswith("GPU") != ("place" in faults)
    gpu = agreed["on"][-1] if agreed["on"].startswith("GPU") else "0"
    count = agreed["sessions"] + ("sessions" in faults)
    text += f"instance_group {{ count: {count} kind: {f'KIND_GPU gpus: [ {gpu} ]' if on_gpu else 'KIND_CPU'} }}\n"
    versions = agreed["versions"]
    policy = f"specific {{ versions: [ {versions[0]} ] }}" if "versions" in faults else "latest { num_versions: 1 }"
    text += f"version_policy {{ {policy} }}\n"
    return text.replace(*misspelled) if misspelled[0] else text


def model_and_text(p: Params) -> dict[str, onnx.ModelProto | bytes]:
    d = details(p)
    return {"8.7.onnx": served_model(p), "8.7_config.pbtxt": config_text(p, d["faults"], d["misspelled"]).encode()}


def check_config(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"config"}, criteria):
        return criteria
    text = answer["config"]
    if not criteria.require(
        "config is a text",
        isinstance(text, str) and 0 < len(text) <= _LONGEST,
        f'Write {{"config": the whole text}}, of at most {_LONGEST:,} characters.',
    ):
        return criteria
    try:
        config = read_config(text)
    except MissingPackageError:
        raise
    except (CourseError, RecursionError) as error:
        criteria.require("Triton's parser reads it", False, f"It says: {error}")
        return criteria
    found = config_findings(config, session_for(served_model(p)))
    criteria.add(
        "its inputs, outputs and batch sizes fit the model",
        not found,
        lambda: f"{len(found)} {'thing does' if len(found) == 1 else 'things do'} not fit. The first one: {found[0]}.",
    )
    kept = _agreements(config, p)
    broken = [said for said in kept.values() if said]
    criteria.add(
        "it does what was agreed",
        not broken,
        lambda: f"{len(kept) - len(broken)} of {len(kept)} settings are as agreed. {broken[0]}",
    )
    return criteria


def _agreements(config: Any, p: Params) -> dict[str, str]:
    """What was agreed → what is wrong about it; empty where nothing is."""
    agreed = p["agreed"]
    newest = agreed["versions"][-1]
    served = _served(config.version_policy, agreed["versions"])
    said = {
        "name": f"name is {config.name!r}, the folder is {p['folder']!r}, and Triton refuses a name that differs."
        if config.name != p["folder"]
        else "",
        "backend": 'The backend is not onnxruntime: backend: "onnxruntime".'
        if config.backend != "onnxruntime" and config.platform != "onnxruntime_onnx"
        else "",
        "versions": f"version_policy would serve {served or 'no version'} of {agreed['versions']}, and not {newest} alone."
        if served != [newest]
        else "",
        "sessions": _sessions_cause(config, agreed),
    }
    if "batch" in agreed:
        wait = config.dynamic_batching.max_queue_delay_microseconds
        cause = "it counts microseconds" if wait == agreed["wait_ms"] else f"{agreed['wait_ms']} ms were agreed"
        said |= {
            "batch": f"max_batch_size is {config.max_batch_size}, agreed were {agreed['batch']}."
            if config.max_batch_size != agreed["batch"]
            else "",
            "wait": f"max_queue_delay_microseconds is {wait}, and {cause}." if wait != 1000 * agreed["wait_ms"] else "",
        }
    return said


def _served(policy: Any, versions: list[int]) -> list[int]:
    """The versions that a policy chooses among those in the folder; without a policy it is the newest one."""
    if policy.HasField("all"):
        return versions
    if policy.HasField("specific"):
        return [v for v in versions if v in policy.specific.versions]
    return versions[-max(1, min(policy.latest.num_versions, len(versions))) :]


def _sessions_cause(config: Any, agreed: Params) -> str:
    place, _, number = agreed["on"].partition(" ")
    wanted = [int(number)] if number else []
    kind = {"CPU": 2, "GPU": 1}[place]  # of ModelInstanceGroup.Kind
    groups = list(config.instance_group)
    if not groups or any(g.kind != kind or list(g.gpus) != wanted for g in groups):
        return f"instance_group must put all sessions on {agreed['on']}: kind: KIND_{place}" + (
            f" and gpus: [ {number} ]." if number else ", without gpus."
        )
    count = sum(max(1, g.count) for g in groups)
    return (
        ""
        if count == agreed["sessions"]
        else f"instance_group starts {count} sessions, agreed were {agreed['sessions']}."
    )
