"""`fashion_resnet` and its parts as ONNX models, made from the stored weights: PyTorch takes seconds to load. And the pictures."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper
from safetensors.numpy import load_file

from ..lab.data import fashion_mnist, verified
from ..running import run, session_for

BLOCKS = ("stage1.0", "stage1.1", "stage2.0", "stage2.1", "stage2.2", "stage2.3")
STRIDED = ("stage1.0", "stage2.0")  # the blocks that halve height and width, and have a convolution beside them


@functools.cache
def stored_weights() -> Mapping[str, np.ndarray]:
    """The trained weights by their names in PyTorch, read once in a process. Do not write to them."""
    return load_file(verified("fashion_resnet.safetensors"))


@functools.cache
def pictures(part: Literal["test", "calibration"]) -> tuple[np.ndarray, np.ndarray]:
    """As `fashion_mnist`, unpacked once in a process: eight checks of a course need them. They cannot be written to."""
    images, labels = fashion_mnist(part)
    images.setflags(write=False)
    labels.setflags(write=False)
    return images, labels


HARDEST = 3000  # test images


@functools.cache
def recorded() -> Mapping[str, np.ndarray]:
    """What the network says of the test images, as `data/record_answers.py` wrote it down."""
    return load_file(verified("fashion_answers.safetensors"))


def said_of(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The class that the network gives each of these test images, int64, and its probability, float64; as recorded."""
    record = recorded()
    return record["classes"][0, numbers].astype(np.int64), record["shares"][numbers].astype(np.float64)


def blocks(names: Sequence[str], *, relu_first: bool = False, last_relu: bool = True) -> onnx.ModelProto:
    """Some residual blocks that follow each other: `x` float32 [N, C, H, W] → feature maps.

    relu_first, last_relu: what a cut in the wrong place adds or leaves out.
    """
    chain = _Chain()
    if relu_first:
        chain.add("Relu")
    for name in names:
        chain.block(name)
    if not last_relu:
        chain.nodes.pop()
    return chain.model()


def network() -> onnx.ModelProto:
    """The whole network: `x` float32 [N, 1, H, W] → logits float32 [N, 10]."""
    chain = _up_to_the_maps()
    chain.add("GlobalAveragePool")
    chain.add("Flatten")
    chain.add("Gemm", "classifier.weight", "classifier.bias", transB=1)
    return chain.model()


def maps() -> onnx.ModelProto:
    """The network without its last layers: `x` float32 [N, 1, H, W] → 64 maps float32 [N, 64, H / 4, W / 4], rounded up."""
    return _up_to_the_maps().model()


def computed(x: np.ndarray, *, up_to_maps: bool = False) -> np.ndarray:
    """What `network()` says of x, or `maps()`."""
    return next(iter(run(_session(up_to_maps), {"x": x}).values()))


@functools.cache
def _session(up_to_maps: bool) -> ort.InferenceSession:
    return session_for(maps() if up_to_maps else network())


def classify(pooled: np.ndarray) -> np.ndarray:
    """The last layer: one number for each of the 64 maps, float32 [N, 64] → logits [N, 10]."""
    return pooled @ stored_weights()["classifier.weight"].T + stored_weights()["classifier.bias"]


def _up_to_the_maps() -> _Chain:
    chain = _Chain()
    chain.conv("stem.0", "stem.1", pads=1, stride=1)
    chain.add("Relu")
    for name in BLOCKS:
        chain.block(name)
    return chain


class _Chain:
    """Nodes that read each other's results."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.current = "x"

    def add(self, op: str, *more: str, **attributes: Any) -> None:
        result = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [self.current, *more], [result], **attributes))
        self.current = result

    def conv(self, conv: str, norm: str, *, pads: int, stride: int) -> None:
        self.add("Conv", f"{conv}.weight", pads=[pads] * 4, strides=[stride] * 2)
        self.add("BatchNormalization", *(f"{norm}.{n}" for n in ("weight", "bias", "running_mean", "running_var")))

    def block(self, name: str) -> None:
        begin, stride = self.current, 2 if name in STRIDED else 1
        self.conv(f"{name}.conv1", f"{name}.bn1", pads=1, stride=stride)
        self.add("Relu")
        self.conv(f"{name}.conv2", f"{name}.bn2", pads=1, stride=1)
        end, self.current = self.current, begin
        if name in STRIDED:
            self.conv(f"{name}.shortcut.0", f"{name}.shortcut.1", pads=0, stride=2)
        self.add("Add", end)
        self.add("Relu")

    def model(self) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        end = self.nodes[-1].output[0]
        read = {name for node in self.nodes for name in node.input}
        stored = [numpy_helper.from_array(v, name) for name, v in stored_weights().items() if name in read]
        x, y = value("x", 1, ["n", "c", "h", "w"]), value(end, 1, None)
        graph = helper.make_graph(self.nodes, "reference", [x], [y], stored)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
