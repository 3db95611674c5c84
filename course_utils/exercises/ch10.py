"""The capstone: one model of the student's own, from PyTorch to a server and a page.

All six tasks are about the same scroll (`quest.py`). Each artefact is judged by what it computes on hidden photographs.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from functools import lru_cache
from random import Random
from typing import Any

import numpy as np
import onnx

from ..errors import CourseError
from ..quantization import quantized_operators
from ..running import run, session_for
from . import Criteria, Criterion, Params, Task, quest
from .examine import has_io, is_sound, is_whole, numpy_source, wants_keys
from .hospital import inner_nodes
from .int8_network import CONVS, has_uint8_activations, opened

_PIXELS, _LOGITS = {"pixels": "uint8"}, {"logits": "float"}
_CLOSE = {"atol": 2e-3, "rtol": 1e-3}


def _outputs(model: onnx.ModelProto, photos: np.ndarray) -> np.ndarray | str:
    """The first output, or what went wrong, in one sentence."""
    try:
        return next(iter(run(session_for(model), {"pixels": photos}).values()))
    except CourseError as error:
        return str(error)
    except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
        return f"Running it failed: {str(error).strip().splitlines()[0]}"


def _same(got: np.ndarray | str, expected: np.ndarray) -> bool:
    return not isinstance(got, str) and got.shape == expected.shape and np.allclose(got, expected, **_CLOSE)


def _cause(p: Params, got: np.ndarray | str, photos: np.ndarray) -> str:
    """Which mistake gives these scores."""
    if isinstance(got, str):
        return got
    right = quest.answers(p, photos)
    if got.shape != right.shape:
        return f"The scores have shape {list(got.shape)}, expected {list(right.shape)}."
    for fault, sentence in quest.FAULTS.items():
        if quest.OF_ONE_OPERATOR.get(fault, p["operator"]) != p["operator"]:
            continue
        wrong = quest.answers(p, photos, fault)
        if not np.allclose(wrong, right, **_CLOSE) and np.allclose(got, wrong, **_CLOSE):
            return sentence
    delta = float(np.abs(got - right).max())
    return (
        f"The largest difference is {delta:.3g}. Compare the tensors on the way with those of Scroll, as in task 10.2."
    )


def _is_scroll(model: onnx.ModelProto, p: Params, rng: Random, criteria: Criteria) -> bool:
    """Add: it computes what the student's Scroll computes, whatever the light, and however many come together."""
    if not is_sound(model, criteria) or not has_io(model, _PIXELS, _LOGITS, criteria):
        return False
    theirs = {t.name for t in quest.built(p).graph.initializer} & {t.name for t in model.graph.initializer}
    if not criteria.add(
        "it is a model of your own",
        len(theirs) < 10,
        "It is the file of your colleague, mended: export your own module.",
    ):
        return False
    photos = quest.photographs(p, "test", 40, numpy_source(rng))[0]
    white = quest.edges(p, photos) > p["threshold"]
    whole, single = _outputs(model, photos), _outputs(model, photos[:1])
    if not criteria.add(
        "it takes 1 photograph, and 40",
        not isinstance(whole, str) and not isinstance(single, str),
        f"{whole if isinstance(whole, str) else single} The batch must be free, also in the steps before the network.",
    ):
        return False
    good = True
    for what, some in {"black": photos[~white], "white": photos[white]}.items():
        got = _outputs(model, some)
        good &= criteria.add(
            f"it agrees with Scroll on {what} paper", _same(got, quest.answers(p, some)), _cause(p, got, some)
        )
    right = quest.answers(p, photos)
    company = quest.FAULTS["one for all"] if good else _cause(p, whole, photos)
    good &= criteria.add("it agrees when both come together", _same(whole, right), company)
    blank = np.stack([np.full((28, 28), value, np.uint8) for value in (0, 255)])
    got = _outputs(model, blank)
    good &= criteria.add(
        "it agrees on a black and on a white photograph", _same(got, quest.answers(p, blank)), _cause(p, got, blank)
    )
    return good


# 10.1: export


def _practice(p: Params) -> Mapping[str, onnx.ModelProto | bytes]:
    draw = np.random.default_rng(p["seed"])
    files: dict[str, onnx.ModelProto | bytes] = {"scroll.py": quest.source(p)}
    for name, split, count in (("practice.npz", "test", 500), ("calibration.npz", "calibration", 300)):
        photos, labels = quest.photographs(p, split, count, draw)
        stream = io.BytesIO()
        np.savez(stream, photos=photos, labels=labels)
        files[name] = stream.getvalue()
    return files


def _check_export(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    _is_scroll(model, p, rng, criteria)
    return criteria


# 10.2: diagnosis

_FAULTY = (
    "activation",
    "always as it is",
    "always negative",
    "far rank",
    "one for all",
    "order",
    "other edge",
    "padding",
)


def _fault(p: Params) -> str:
    return _FAULTY[p["seed"] % len(_FAULTY)]  # not in the parameters, which the student sees


def _tensors(p: Params, fault: str, photos: np.ndarray) -> dict[str, np.ndarray]:
    """Node name → its first output, in the order of the graph."""
    model = quest.built(p, fault)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=node.output[0]) for node in model.graph.node)
    session = session_for(model)
    return {
        node.name: value
        for node, value in zip(model.graph.node, run(session, {"pixels": photos}).values(), strict=True)
    }


def _first_wrong(p: Params, photos: np.ndarray) -> str:
    right, wrong = (_tensors(p, fault, photos) for fault in ("", _fault(p)))
    return next(
        name for name, value in wrong.items() if not _same(value.astype(np.float32), right[name].astype(np.float32))
    )


@lru_cache(maxsize=16)
def _spoiled(key: str) -> tuple[str, np.ndarray, np.ndarray]:
    """The first wrong node; the scores of all practice photographs, of Scroll and of the file with the fault."""
    p = json.loads(key)
    photos = np.load(io.BytesIO(_practice(p)["practice.npz"]))["photos"]  # type: ignore[arg-type]
    return _first_wrong(p, photos[:64]), quest.answers(p, photos), quest.answers(p, photos, _fault(p))


def _check_diagnosis(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not wants_keys(answer, {"node", "different"}, criteria):
        return criteria
    names = [node.name for node in quest.built(p, _fault(p)).graph.node]
    said, (node, right, wrong) = answer["node"], _spoiled(json.dumps(p))
    known = criteria.add(
        "node is the name of a node",
        isinstance(said, str) and said in names,
        f"There is no node {str(said)[:60]!r} in the file: cu.node_table shows their names.",
    )
    if known:
        early = names.index(said) < names.index(node)
        criteria.add(
            "it is the first that is wrong",
            said == node,
            "What this node computes is what Scroll computes: the fault comes later."
            if early
            else "It is wrong because something before it is wrong: look further up.",
        )
    number, count = answer["different"], int((right.argmax(1) != wrong.argmax(1)).sum())
    hint = f"Compare argmax of both on all {len(right)} photographs of practice.npz, in one batch."
    if number == int((~np.isclose(right, wrong, **_CLOSE).all(1)).sum()):
        hint = "So many have other scores. Count those whose answer, the largest score, is another."
    criteria.add("the number of answers that differ", is_whole(number) and number == count, hint)
    return criteria


# 10.3: ready to ship

# Room for several ways to write it, and not for torch.bucketize, which becomes more than a hundred nodes.
_MOST_NODES = {"kthvalue": 80, "median": 100, "searchsorted": 80}
_MOST_BYTES = 1_300_000


def _draw_shipping(rng: Random) -> Params:
    p = quest.draw(rng)
    version = f"{rng.randint(1, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 9)}"
    return p | {
        "opset": rng.choice([18, 19, 20]),
        "most_nodes": _MOST_NODES[p["operator"]],
        "most_bytes": _MOST_BYTES,
        "version": version,
    }


def _check_shipping(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not _is_scroll(model, p, rng, criteria):
        return criteria
    opsets = {o.domain: o.version for o in model.opset_import}
    foreign = sorted({node.domain for node in _all_nodes(model) if node.domain not in ("", "ai.onnx")})
    criteria.add(
        "all operators are standard ones, in the graph itself",
        not foreign and not model.functions,
        f"It uses {', '.join(foreign) or 'functions'}: an optimised file for every machine is saved at the level "
        f"ORT_ENABLE_BASIC; the higher levels write operators of ONNX Runtime alone.",
    )
    opset = opsets.get("", opsets.get("ai.onnx", 99))
    criteria.add(
        f"the opset is at most {p['opset']}",
        opset <= p["opset"],
        f"It is {opset}: export with opset_version={p['opset']}.",
    )
    count = len(_all_nodes(model))
    criteria.add(
        f"it has at most {p['most_nodes']} nodes",
        count <= p["most_nodes"],
        f"It has {count}. cu.op_histogram shows which are many. One PyTorch call may have become a hundred nodes: "
        f"look for another way to say it. self.order as a list becomes several nodes, index_select one.",
    )
    size = len(model.SerializeToString())
    criteria.add(
        f"the file has at most {p['most_bytes']:,} bytes",
        size <= p["most_bytes"],
        f"It has {size:,}. The exporter's notes (metadata_props and doc_string of each node) take room: clear them.",
    )
    notes = _notes(model)
    criteria.add(
        "it carries no notes of the exporter",
        not notes,
        f"{notes[:1]} is one: a stack trace names files and folders of your machine.",
    )
    facts = {entry.key: entry.value for entry in model.metadata_props}
    names = _names(p)
    said = _json(facts.get("classes", ""))
    criteria.add(
        "metadata_props: classes is a JSON list of ten names in the order of the scores",
        said == names,
        "It is missing: onnx.helper.set_model_props(model, {…}) writes it. It replaces what was there, so give all at once."
        if "classes" not in facts
        else "These names are in the order of Fashion-MNIST: score i belongs to class self.order[i]."
        if said == [names[i] for i in np.argsort(p["order"])]
        else "The names are those of cu.CLASS_NAMES, as json.dumps writes them.",
    )
    criteria.add(
        f"metadata_props: version is {p['version']}",
        facts.get("version") == p["version"],
        f"It is {facts.get('version', 'missing')!r}.",
    )
    return criteria


def _names(p: Params) -> list[str]:
    from ..data import CLASS_NAMES

    return [CLASS_NAMES[i] for i in p["order"]]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _all_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [*model.graph.node, *inner_nodes(model)]


def _notes(model: onnx.ModelProto) -> list[str]:
    """Keys of notes that an exporter left at nodes and values."""
    found = [entry.key for node in _all_nodes(model) for entry in node.metadata_props]
    found += [f"the doc_string of {node.name}" for node in _all_nodes(model) if node.doc_string]
    return found + [entry.key for value in model.graph.value_info for entry in value.metadata_props]


# 10.4: int8 within a budget

_SHOWN = 1500  # photographs
_MOST_INT8_BYTES = 358_000  # QOperator needs at most 354,300, and QDQ 369,000


def _draw_budget(rng: Random) -> Params:
    return quest.draw(rng) | {"points": rng.choice([0.8, 1.0, 1.2]), "most_bytes": _MOST_INT8_BYTES}


def _check_budget(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    running = opened(model, CONVS, criteria, source="pixels", kind="uint8")
    if running is None:
        return criteria
    has_uint8_activations(model, running, criteria)
    size = len(model.SerializeToString())
    criteria.add(
        f"the file has at most {p['most_bytes']:,} bytes",
        size <= p["most_bytes"],
        f"It has {size:,}: the format QOperator is smaller than QDQ, and notes and value_info take room.",
    )
    early = _quantized_before_the_network(model)
    criteria.add(
        "the preparation is left in float",
        not early,
        f"Before the first convolution there are {', '.join(early[:4])}. A repair and a decision need exact numbers. An "
        f"operator of the network may also stand before it, such as Add: nodes_to_exclude takes the names of the nodes.",
    )
    photos, labels = quest.photographs(p, "test", _SHOWN, numpy_source(rng))
    got = _outputs(model, photos)
    if isinstance(got, str) or got.shape != (len(photos), 10):
        criteria.add(
            f"it takes {_SHOWN} photographs", False, got if isinstance(got, str) else f"It returns {list(got.shape)}."
        )
        return criteria
    before, after = ((scores.argmax(1) == labels).mean() * 100 for scores in (quest.answers(p, photos), got))
    criteria.add(
        f"it loses at most {p['points']} points of accuracy",
        before - after <= p["points"],
        f"It is right for {after:.2f} %, Scroll for {before:.2f} %. {_loss(p, got, photos)}",
    )
    return criteria


def _loss(p: Params, got: np.ndarray, photos: np.ndarray) -> str:
    for fault in ("always as it is", "always negative", "one for all", "no order", "order", "not repaired"):
        if (got.argmax(1) == quest.answers(p, photos, fault).argmax(1)).mean() > 0.97:
            return quest.FAULTS[fault]
    return "Was it calibrated with photographs of calibration.npz, on black and on white paper?"


def _quantized_before_the_network(model: onnx.ModelProto) -> list[str]:
    """Quantized operators on the way from the pixels to the first convolution."""
    found: list[str] = []
    for node in model.graph.node:
        if node.op_type in ("Conv", "QLinearConv", "ConvInteger"):
            break
        if node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear"):
            found.append(node.op_type)
    return found if len(found) > 1 else []  # the input of the first convolution is quantized in any case


# 10.5: what the server says

_REQUESTS = "ABCDEFGHIJKL"
_MOST = {"photographs": 8, "bytes": 16_384}
_CONTRACT = {
    413: "the body has more than 16,384 bytes",
    415: "the Content-Type is not application/x-npy",
    400: "the body is not an .npy file that can be read without pickle",
    422: "the array is not uint8 with the shape [n, 28, 28], n from 1 to 8",
    200: "nothing is wrong with it",
}


def _npy(array: np.ndarray, **how: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, **how)
    return stream.getvalue()


def _requests(p: Params) -> Mapping[str, tuple[str, bytes, int, list[int]]]:
    """Letter → Content-Type, body, the right status, the right labels. The photographs are clear cases."""
    return _written_requests(json.dumps(p))


@lru_cache(maxsize=4)
def _written_requests(key: str) -> Mapping[str, tuple[str, bytes, int, list[int]]]:
    p = json.loads(key)
    draw = np.random.default_rng(p["seed"] + 5)
    photos = quest.photographs(p, "test", 200, draw)[0]
    scores = np.sort(quest.answers(p, photos), 1)
    photos = photos[scores[:, -1] - scores[:, -2] > 4]  # int8 does not turn these
    labels = quest.answers(p, photos).argmax(1)
    white = quest.edges(p, photos) > p["threshold"]
    on_white, on_black = np.flatnonzero(white), np.flatnonzero(~white)

    def fine(chosen: np.ndarray) -> tuple[str, bytes, int, list[int]]:
        return kind, _npy(photos[chosen]), 200, labels[chosen].tolist()

    kind = "application/x-npy"
    one, many = photos[:1], int(draw.integers(9, 15))
    cases = [
        fine(on_white[:1]),
        fine(on_black[:1]),
        fine(np.concatenate([on_white[1:4], on_black[1:4]])[draw.permutation(6)]),
        fine(np.concatenate([on_black[4:8], on_white[4:8]])),
        (kind, _npy(photos[:many]), 422, []),
        (kind, _npy(photos[:30]), 413, []),
        ("image/png", _npy(one), 415, []),
        (kind, b"\x89PNG\r\n\x1a\n" + draw.bytes(200), 400, []),
        (kind, _npy(np.array([{"pixels": one.tolist()}], dtype=object), allow_pickle=True), 400, []),
        (kind, _npy((one / 255).astype(np.float32)), 422, []),
        (kind, _npy(np.zeros((1, 32, 32), np.uint8)), 422, []),
        (kind, _npy(photos[:0]), 422, []),
    ]
    order = draw.permutation(len(cases))
    return {letter: cases[i] for letter, i in zip(_REQUESTS, order, strict=True)}


def _handed_out(p: Params) -> Mapping[str, bytes]:
    requests = {
        letter: {"content_type": kind, "body": base64.b64encode(body).decode()}
        for letter, (kind, body, _, _) in _requests(p).items()
    }
    return {"requests.json": json.dumps(requests, indent=1).encode()}


def _check_server(answer: Any, p: Params, rng: Random) -> list[Criterion]:
    criteria, right = Criteria(), _requests(p)
    if not wants_keys(answer, set(right), criteria):
        return criteria
    odd = [key for key, got in answer.items() if not isinstance(got, dict) or not is_whole(got.get("status"))]
    if not criteria.add(
        "each request has a status",
        not odd,
        f"Write a dict such as {{'status': 200, 'label': [3]}}; of {odd[:1]} it is {str(answer[odd[0]])[:60] if odd else ''}.",
    ):
        return criteria
    for letter, (_, _, status, labels) in right.items():
        got = answer[letter]
        if got["status"] == 500:
            hint = "500 is a crash inside your server: nothing that a client sends may do that."
        elif got["status"] == 200:
            hint = f"Your server answered, but {_CONTRACT[status]}: that is {status}."
        else:
            hint = f"Your server says {got['status']}, but {_CONTRACT[status]}: that is {status}."
        if criteria.add(f"request {letter} is answered as agreed", got["status"] == status, hint) and status == 200:
            said = got.get("label")
            criteria.add(f"request {letter} gets the right labels", said == labels, _label_cause(said, labels, p))
    return criteria


def _label_cause(said: Any, labels: list[int], p: Params) -> str:
    if not isinstance(said, list) or len(said) != len(labels) or not all(map(is_whole, said)):
        return f"Write a list with one whole number for each of the {len(labels)} photographs."
    if said == [p["order"][i] for i in labels]:
        return "These are the classes of Fashion-MNIST: the label is the position of the largest score."
    wrong = sum(a != b for a, b in zip(said, labels, strict=True))
    return f"{wrong} of {len(labels)} are wrong: does the server run the model that passed task 10.4?"


# 10.6: a model for a page

_GREYS = {"Rec. 601": (0.299, 0.587, 0.114), "Rec. 709": (0.2126, 0.7152, 0.0722)}
_PAGE_IN, _PAGE_OUT = {"rgba": "uint8"}, {"label": "int64", "probability": "float"}


def _draw_page(rng: Random) -> Params:
    return quest.draw(rng) | {"grey": rng.choice(sorted(_GREYS)), "behind": rng.choice(["black", "white"])}


def _grey(rgba: np.ndarray, p: Params, fault: str = "") -> np.ndarray:
    """float32 [height, width]; with a fault, what comes out when something was forgotten."""
    colour, alpha = rgba[..., :3].astype(np.float32), rgba[..., 3:].astype(np.float32) / 255
    if fault != "alpha":
        behind = 255.0 if (p["behind"] == "white") != (fault == "behind") else 0.0
        colour = colour * alpha + behind * (1 - alpha)
    weights = _GREYS[p["grey"]]
    if fault == "weights":
        weights = next(w for name, w in _GREYS.items() if name != p["grey"])
    if fault == "mean":
        weights = (1 / 3, 1 / 3, 1 / 3)
    if fault == "bgr":
        weights = weights[::-1]
    return (colour * np.array(weights, np.float32)).sum(-1, dtype=np.float32)


_PAGE_FAULTS = {
    "alpha": "Transparency is ignored: colour × alpha + behind × (1 - alpha), with alpha from 0 to 1.",
    "behind": "Behind what is transparent there is the wrong colour.",
    "weights": "The weights of the colours are those of the other standard.",
    "mean": "The three colours count alike: use the weights.",
    "bgr": "The weights are in the wrong order: red comes first.",
    "nearest": "It is resized with mode nearest: the task says linear.",
    "antialias": "It is resized with antialias=1, as in the lesson: here all attributes but mode are the default.",
    "cut off": "Round is missing: Cast alone cuts off what is behind the point.",
}


def _resized(grey: np.ndarray, fault: str = "") -> np.ndarray:
    """float32 [28, 28], as ONNX's Resize gives it with mode linear and its default attributes."""
    how = {"nearest": 'mode = "nearest"', "antialias": 'mode = "linear", antialias = 1'}.get(fault, 'mode = "linear"')
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 18]>
        resize (float[1, 1, h, w] x) => (float[1, 1, 28, 28] y) <int64[4] sizes = {{1, 1, 28, 28}}> {{
            y = Resize<{how}>(x, , , sizes)
        }}""")
    return run(session_for(model), {"x": grey[None, None]})["y"][0, 0]


def _pixels(rgba: np.ndarray, p: Params, fault: str = "") -> np.ndarray:
    """What goes into the scroll, uint8 [1, 28, 28]."""
    small = _resized(_grey(rgba, p, fault), fault)
    return (small if fault == "cut off" else np.rint(small)).clip(0, 255).astype(np.uint8)[None]


def _page_scores(rgba: np.ndarray, p: Params, fault: str = "") -> np.ndarray:
    return quest.answers(p, _pixels(rgba, p, fault))[0]


def _canvas(p: Params, photo: np.ndarray, height: int, width: int, draw: np.random.Generator) -> np.ndarray:
    """A photograph as a page has it: RGBA uint8 [height, width, 4], tinted, partly transparent."""
    rows, columns = (np.arange(n) * 28 // n for n in (height, width))
    grey = photo[rows][:, columns].astype(np.float32)[..., None]
    tint = draw.uniform(0.5, 1, 3).astype(np.float32)
    alpha = np.where(draw.random((height, width, 1)) < 0.3, draw.integers(60, 256, (height, width, 1)), 255)
    return np.concatenate([np.rint(grey * tint), alpha], -1).astype(np.uint8)


_SIZES = ((28, 28), (112, 112), (90, 160), (211, 64))


def _canvases(p: Params, draw: np.random.Generator) -> list[np.ndarray]:
    """One of each size, and none near the edge of the decision, so that rounding cannot turn it."""
    found: list[np.ndarray] = []
    for photo in quest.photographs(p, "test", 60, draw)[0]:
        rgba = _canvas(p, photo, *_SIZES[len(found)], draw)
        if abs(quest.edges(p, _pixels(rgba, p))[0] - p["threshold"]) > 0.03:
            found.append(rgba)
        if len(found) == len(_SIZES):
            break
    return found


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def _check_page(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, _PAGE_IN, _PAGE_OUT, criteria):
        return criteria
    criteria.add(
        "the scroll in it is in float",
        not quantized_operators(model),
        "An int8 scroll is in it, and its answers are only nearly those of Scroll: take work/10.3.onnx.",
    )
    try:
        session = session_for(model)
    except CourseError as error:
        criteria.add("ONNX Runtime loads the model", False, str(error))
        return criteria
    for rgba in _canvases(p, numpy_source(rng)):
        what = f"a canvas of {rgba.shape[0]} × {rgba.shape[1]} pixels"
        try:
            got = run(session, {"rgba": rgba})
        except CourseError as error:
            criteria.add(what, False, f"{error} Height and width must be free.")
            continue
        label, probability = got["label"], got["probability"]
        if not criteria.add(
            f"{what}: the shapes are [1] and [1, 10]",
            label.shape == (1,) and probability.shape == (1, 10),
            f"They are {list(label.shape)} and {list(probability.shape)}.",
        ):
            continue
        right = _softmax(_page_scores(rgba, p))
        same = np.allclose(probability[0], right, atol=0.02) and label[0] == probability[0].argmax()
        cause = "" if same else _page_cause(rgba, p, label, probability[0])
        criteria.add(what, same, cause)
    return criteria


def _page_cause(rgba: np.ndarray, p: Params, label: np.ndarray, probability: np.ndarray) -> str:
    if np.allclose(probability, _softmax(_page_scores(rgba, p)), atol=0.02):
        return "The probabilities are right, and label is not the position of the largest one."
    if np.allclose(probability, _page_scores(rgba, p), atol=0.1):
        return "These are scores, not probabilities: a softmax is missing."
    for fault, sentence in _PAGE_FAULTS.items():
        if np.allclose(probability, _softmax(_page_scores(rgba, p, fault)), atol=1e-3):
            return sentence
    return "Compare the 28 × 28 bytes that go into your scroll with NumPy's: transparency, grey, resize, round."


# What the report card says about an artefact that passed

_MEASURED = 2000


def _measured(model: onnx.ModelProto, p: Params) -> dict[str, str]:
    photos, labels = quest.photographs(p, "test", _MEASURED, np.random.default_rng(p["seed"]))
    session, parts = session_for(model), np.split(photos, range(100, len(photos), 100))
    scores = np.concatenate([run(session, {"pixels": part})["logits"] for part in parts])
    right = {"this file": scores, "Scroll": quest.answers(p, photos)}
    facts = {
        f"right of {len(photos):,} photographs, {name}": f"{(values.argmax(1) == labels).mean():.2%}"
        for name, values in right.items()
    }
    same = (right["this file"].argmax(1) == right["Scroll"].argmax(1)).mean()
    difference = np.abs(right["this file"] - right["Scroll"]).max()
    return (
        facts
        | {"same answers": f"{same:.2%}", "largest difference of a score": f"{difference:.1e}"}
        | _file_facts(model)
    )


def _file_facts(model: onnx.ModelProto, p: Params | None = None) -> dict[str, str]:
    opset = next((str(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")), "none")
    nodes = len(_all_nodes(model))
    return {"nodes": str(nodes), "opset": opset, "size": f"{len(model.SerializeToString()) / 1000:,.0f} kB"}


TASKS = (
    Task("10.1", "Export", "onnx", _check_export, quest.draw, _practice, measure=_measured),
    Task("10.2", "Diagnose", "json", _check_diagnosis, quest.draw,
         lambda p: {"10.2.onnx": quest.built(p, _fault(p))}, same_as="10.1"),
    Task("10.3", "Make it ready to ship", "onnx", _check_shipping, _draw_shipping, same_as="10.1", measure=_measured),
    Task("10.4", "Quantize within a budget", "onnx", _check_budget, _draw_budget, same_as="10.1", measure=_measured),
    Task("10.5", "Serve", "json", _check_server, quest.draw, _handed_out, same_as="10.1"),
    Task("10.6", "Fit it into a page", "onnx", _check_page, _draw_page, same_as="10.1", measure=_file_facts),
)  # fmt: skip
