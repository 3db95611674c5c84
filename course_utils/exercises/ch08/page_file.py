"""Task 8.6: a file that fits the code of a page: what it sends and reads, how much it may download, what its runtime loads."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import onnx
from onnx import TensorProto

from ...errors import CourseError
from ...lab.data import normalize
from ...running import run, session_for
from .. import Criteria, Criterion, Params
from ..examine import every_node, every_tensor, has_io, is_small, is_sound, left_notes, numpy_source
from ..fashion_reference import pictures, said_of
from ..trained_network import float_logits, network

_PICTURES = 100
_SHAPES = {"flat": [784], "square": [28, 28], "last": [28, 28, 1]}
_OPSET, _IR = 21, 10  # of what is handed out


def draw_page(rng: Random) -> Params:
    order = list(range(10))
    rng.shuffle(order)
    return {
        "order": order,
        "input": rng.choice(["grey", "pixels", "drawing"]),
        "shape": rng.choice(sorted(_SHAPES)),
        "ink": rng.choice(["black on white", "white on black"]),
        "label": rng.choice(["best", "label", "answer"]),
        "share": rng.choice(["share", "certainty", "score"]),
        "opset": rng.randint(15, 19),
        "ir": rng.choice([8, 9]),
        "most_bytes": rng.randrange(640_000, 700_000, 5_000),
        "user": rng.choice(["kim", "lea", "noor", "sam"]),
    }


def _exported(p: Params) -> onnx.ModelProto:
    """The trained network as an exporter leaves it, with notes about the machine it was made on."""
    model = network(p["order"])
    model.ir_version, model.opset_import[0].version = _IR, _OPSET
    source = f"/home/{p['user']}/projects/{p['input']}/net.py"
    for line, node in enumerate(model.graph.node, 40):
        node.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=f'File "{source}", line {line}, in forward')
    model.graph.initializer[0].doc_string = f"from {source[:-6]}weights.safetensors"
    model.graph.doc_string = f"traced in {source}"
    return model


def page_and_model(p: Params) -> dict[str, onnx.ModelProto | bytes]:
    tail = ", ".join(map(str, _SHAPES[p["shape"]]))
    code = f"""// The runtime in ./ort loads opset {p["opset"]} and IR version {p["ir"]}, older ones, and no newer ones.
import * as ort from "./ort/ort.wasm.min.mjs";

const names = ["T-shirt", "trouser", "pullover", "dress", "coat",
               "sandal", "shirt", "sneaker", "bag", "ankle boot"];
const session = await ort.InferenceSession.create("model.onnx");

// bytes: a Uint8Array, 784 numbers for each picture, row by row, as it is drawn: {p["ink"]}
export async function predict(bytes) {{
  const tensor = new ort.Tensor("uint8", bytes, [bytes.length / 784, {tail}]);
  const {{ {p["label"]}, {p["share"]} }} = await session.run({{ {p["input"]}: tensor }});
  // {p["label"]}: an Int32Array; {p["share"]}: a Float32Array with the probability of that label
  return Array.from({p["label"]}.data, (n, i) =>
    `${{names[n]}}: ${{Math.round(100 * {p["share"]}.data[i])}} %`);
}}
"""
    return {"8.6.onnx": _exported(p), "8.6_page.js": code.encode()}


def check_page_file(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    outputs = {p["label"]: "int32", p["share"]: "float"}
    if not is_sound(model, criteria) or not has_io(model, {p["input"]: "uint8"}, outputs, criteria):
        return criteria
    numbers = numpy_source(rng).choice(len(pictures("test")[0]), _PICTURES, replace=False)
    images = pictures("test")[0][numbers]
    drawn = _sent(p, images)
    what = f"it takes one picture and several, uint8 [n, {', '.join(map(str, drawn.shape[1:]))}], and gives n of each"
    try:
        session = session_for(model)
        one, several = (run(session, {p["input"]: part}) for part in (drawn[:1], drawn))
    except CourseError as error:
        criteria.require(what, False, str(error))
        return criteria
    shapes = [list(found[name].shape) for found in (one, several) for name in outputs]
    hint = f"For 1 and for {len(drawn)} pictures the outputs have the shapes {', '.join(map(str, shapes))}."
    if not criteria.require(what, shapes == [[1], [1], [len(drawn)], [len(drawn)]], hint):
        return criteria
    labels, shares = said_of(numbers)
    got = several[p["label"]]
    equal = int((got == labels).sum())

    def why() -> str:
        return f"{equal} of {len(labels)} labels are those of your model. {_cause(p, images, got)}"

    if not criteria.require("it is your model, and sees the pictures as in training", equal > len(labels) / 2, why):
        return criteria
    off = float(np.abs(several[p["share"]] - shares).max())
    what = f"99 % of {_PICTURES} labels are those of your model, and the probabilities agree to 0.05"
    right = equal >= 0.99 * len(labels) and off <= 0.05  # nan is not
    criteria.add(
        what, right, lambda: f"{equal} are, and they differ by up to {off:.3f}. {_share_cause(several, p, labels)}"
    )
    _is_light(model, p, criteria)
    return criteria


def _sent(p: Params, images: np.ndarray) -> np.ndarray:
    """Test images as the page sends them."""
    sent = 255 - images if p["ink"] == "black on white" else images
    return sent.reshape(-1, *_SHAPES[p["shape"]])


def _classes(x: np.ndarray) -> np.ndarray:
    """What the handed-out model says of its own input."""
    return float_logits(x).argmax(1)


def _cause(p: Params, images: np.ndarray, got: np.ndarray) -> str:
    order, right = np.array(p["order"]), normalize(images)
    position = np.argsort(order)[_classes(right)]
    black = p["ink"] == "black on white"
    scaled = images[:, None].astype(np.float32) / 255
    slips = {
        "These are positions of the logits: position i belongs to class order[i], and the page looks names up by class.": (
            position
        ),
        "The classes are looked up the wrong way round: the table of Gather is order itself.": np.argsort(order)[
            position
        ],
        "The pictures are seen as a negative: the page sends black ink on white paper, and training had white on black."
        if black
        else "The pictures are turned into a negative, and the page sends them as training had them.": _classes(
            normalize(255 - images)
        ),
        "Mean and deviation are missing: (x / 255 - 0.286) / 0.353.": _classes(scaled),
        "The division by 255 is missing: (x / 255 - 0.286) / 0.353.": _classes((scaled * 255 - 0.286) / 0.353),
        "Rows and columns are swapped.": _classes(right.swapaxes(2, 3).copy()),
    }
    found = max(slips, key=lambda said: (got == slips[said]).mean())
    return (
        found
        if (got == slips[found]).mean() > 0.9
        else "Compare with NumPy: (x / 255 - 0.286) / 0.353, then your model."
    )


def _share_cause(found: dict[str, np.ndarray], p: Params, labels: np.ndarray) -> str:
    share = found[p["share"]]
    if (share > 1.001).any() or (share < 0).any():
        return "Probabilities lie between 0 and 1: a Softmax over the ten classes is missing, or per cent were written."
    if (found[p["label"]] == labels).mean() >= 0.99:
        return f"{p['share']} is the largest value of the Softmax."
    return "Weights lost too much on the way: float16 keeps the labels."


def _is_light(model: onnx.ModelProto, p: Params, criteria: Criteria) -> None:
    large = [t for t in every_tensor(model) if t.data_type == TensorProto.FLOAT and math.prod(t.dims) > 1000]
    cause = (
        f"{len(large)} tensors are float32, the largest is {max(large, key=lambda t: math.prod(t.dims)).name}: store them "
        f"in float16, with a Cast behind each."
        if large
        else "Look for notes, or for weights that are stored twice."
    )
    is_small(model, p["most_bytes"], criteria, cause)
    versions = {o.domain or "ai.onnx": o.version for o in model.opset_import}
    foreign = sorted({n.domain for n in every_node(model)} - {"", "ai.onnx"} | (set(versions) - {"ai.onnx"}))
    said = f"It has IR version {model.ir_version} and the opsets {versions}. "
    newest = versions.get("ai.onnx", 0)
    if foreign:
        said += f"The page's runtime knows the standard domain, and not {', '.join(foreign)}."
    elif newest > p["opset"]:
        said += (
            "onnx.version_converter.convert_version writes an older opset; the number alone does not change operators."
        )
    else:
        said += "model.ir_version can be set, where no newer field is used."
    criteria.add(
        f"the page's runtime loads it: opset {p['opset']} and IR version {p['ir']} at most, standard operators",
        not foreign and newest <= p["opset"] and model.ir_version <= p["ir"],
        said,
    )
    notes = left_notes(model) + [f"{m.key} of the model" for m in model.metadata_props]
    criteria.add(
        "it carries no notes, which anybody who opens the page could read",
        not notes,
        f"{notes[:1]} is one. Nodes, weights and the graph itself can hold metadata_props and a doc_string.",
    )
