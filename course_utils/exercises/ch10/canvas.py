"""Task 10.6: the scroll behind a page's canvas, with transparency, grey and resize in the graph."""

from __future__ import annotations

from functools import lru_cache, partial
from random import Random

import numpy as np
import onnx
import onnxruntime as ort

from ...errors import CourseError
from ...lab.quantization import quantized_operators
from ...running import run, session_for
from .. import Criteria, Criterion, Params, accuracy
from ..examine import has_io, is_sound, numpy_source
from . import scroll as quest
from .camera import photographs

_GREYS = {"Rec. 601": (0.299, 0.587, 0.114), "Rec. 709": (0.2126, 0.7152, 0.0722)}
_PAGE_IN, _PAGE_OUT = {"rgba": "uint8"}, {"label": "int64", "probability": "float"}


def draw_page(rng: Random) -> Params:
    return quest.draw(rng) | {"grey": rng.choice(sorted(_GREYS)), "behind": rng.choice(["black", "white"])}


def _grey(rgba: np.ndarray, p: Params, fault: str = "") -> np.ndarray:
    """float32 [height, width]; with a fault, what comes out when something was forgotten."""
    colour: np.ndarray = rgba[..., :3].astype(np.float32)
    alpha = rgba[..., 3:].astype(np.float32) / 255
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


_BEFORE_RESIZE = tuple(fault for fault in _PAGE_FAULTS if fault not in ("nearest", "antialias"))


def _resized(grey: np.ndarray, fault: str = "") -> np.ndarray:
    """float32 [28, 28], as ONNX's Resize gives it with mode linear and its default attributes."""
    if grey.shape == (28, 28):
        return grey
    how = {"nearest": 'mode = "nearest"', "antialias": 'mode = "linear", antialias = 1'}.get(fault, 'mode = "linear"')
    return run(_resize(how), {"x": grey[None, None]})["y"][0, 0]


@lru_cache
def _resize(how: str) -> ort.InferenceSession:
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 18]>
        resize (float[1, 1, h, w] x) => (float[1, 1, 28, 28] y) <int64[4] sizes = {{1, 1, 28, 28}}> {{
            y = Resize<{how}>(x, , , sizes)
        }}""")
    return session_for(model)


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


_CLOSE = 0.008  # of a probability: rounding that turns one pixel changes less, a Floor in place of Round more
_TRIED = 12  # photographs of images between two classes
_SIZES = ((28, 28), (112, 112), (90, 160), (211, 64))


def _canvases(p: Params, draw: np.random.Generator) -> list[np.ndarray]:
    """One of each size, and none near the edge of the decision, so that rounding cannot turn it.

    The one of 28 × 28 pixels, where Resize does nothing, is that of many in which each mistake shows: the network wavers
    between two classes there, so that the small ones do, too, such as numbers that are cut off in place of rounded.
    """
    for _ in range(20):  # few draws show too little
        photos = photographs(p, "test", _TRIED + 20, draw, among=accuracy.groups()[0])[0]
        shows = [_canvas(p, photo, *_SIZES[0], draw) for photo in photos[:_TRIED]]
        first, change = _most_telling(p, shows)
        if change > 1.2 * _CLOSE:
            break
    found = [first]
    for photo in photos[_TRIED:]:
        rgba = _canvas(p, photo, *_SIZES[len(found)], draw)
        if abs(quest.edges(p, _pixels(rgba, p))[0] - p["threshold"]) > 0.03:
            found.append(rgba)
        if len(found) == len(_SIZES):
            break
    return found


def _most_telling(p: Params, canvases: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """The canvas on which the least of the small mistakes changes a probability most, and by how much."""
    small = {fault: np.concatenate([_pixels(rgba, p, fault) for rgba in canvases]) for fault in ("", *_BEFORE_RESIZE)}
    chances = {fault: _softmax(quest.answers(p, pixels)) for fault, pixels in small.items()}
    change = np.min([np.abs(chances[fault] - chances[""]).max(1) for fault in _BEFORE_RESIZE], axis=0)
    safe = np.abs(quest.edges(p, small[""]) - p["threshold"]) > 0.03
    best = int(np.where(safe, change, 0).argmax())
    return canvases[best], float(change[best] * safe[best])


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def check_page(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    if not is_sound(model, criteria) or not has_io(model, _PAGE_IN, _PAGE_OUT, criteria):
        return criteria
    if not criteria.require(
        "the scroll in it is in float",
        not quantized_operators(model),
        "An int8 scroll is in it, and its answers are only nearly those of Scroll: take work/10.3.onnx.",
    ):
        return criteria
    try:
        session = session_for(model)
    except CourseError as error:
        criteria.require("ONNX Runtime loads the model", False, str(error))
        return criteria
    for rgba in _canvases(p, numpy_source(rng)):
        what = f"a canvas of {rgba.shape[0]} × {rgba.shape[1]} pixels"
        try:
            got = run(session, {"rgba": rgba})
        except CourseError as error:
            criteria.add(what, False, f"{error} Height and width must be free.")
            continue
        label, probability = got["label"], got["probability"]
        if label.shape != (1,) or probability.shape != (1, 10):
            shapes = f"The shapes are {list(label.shape)} and {list(probability.shape)}, expected [1] and [1, 10]."
            criteria.add(what, False, shapes)
            continue
        right = _softmax(_page_scores(rgba, p))
        same = np.allclose(probability[0], right, atol=_CLOSE) and label[0] == probability[0].argmax()
        criteria.add(what, same, partial(_page_cause, rgba, p, label, probability[0]))
    return criteria


def _page_cause(rgba: np.ndarray, p: Params, label: np.ndarray, probability: np.ndarray) -> str:
    if np.allclose(probability, _softmax(_page_scores(rgba, p)), atol=_CLOSE):
        return "The probabilities are right, and label is not the position of the largest one."
    if np.allclose(probability, _page_scores(rgba, p), atol=0.1):
        return "These are scores, not probabilities: a softmax is missing."
    for fault, sentence in _PAGE_FAULTS.items():
        if np.allclose(probability, _softmax(_page_scores(rgba, p, fault)), atol=1e-3):
            return sentence
    return "Compare the 28 × 28 bytes that go into your scroll with NumPy's: transparency, grey, resize, round."
