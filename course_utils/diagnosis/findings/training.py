"""Layers that were exported as they are in training."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto

from ..parts import Scope, attribute, is_op
from ..patient import Patient
from ..vocabulary import WARNING, Finding, code, finding, nodes

DROPOUT = code(
    "dropout-in-training",
    WARNING,
    "03_what_a_file_forgets",
    "Dropout is switched on",
    "Call model.eval() before the export, and export again.",
)
BATCHNORM = code(
    "batchnorm-in-training",
    WARNING,
    "03_what_a_file_forgets",
    "BatchNormalization is in training mode",
    "Call model.eval() before the export, and export again.",
)
STATISTICS = code(
    "batchnorm-without-statistics",
    WARNING,
    "03_what_a_file_forgets",
    "BatchNormalization has no running statistics",
    "model.eval() changes nothing here. Build the layer with track_running_stats=True, train it, call model.eval(), and export "
    "again. If results are meant to depend on the batch, leave it.",
)


def training(patient: Patient) -> Iterator[Finding]:
    dropout, norm, without = [], [], []
    for scope, index, node in patient.each_node():
        version = scope.version(node) or 1
        if is_op(node, "Dropout") and drops(patient, scope, node, version):
            dropout.append(scope.place(index))
        elif is_op(node, "BatchNormalization") and _from_the_data(patient, scope, node):
            without.append(scope.place(index))
        elif is_op(node, "BatchNormalization") and normalises_by_batch(node, version):
            norm.append(scope.place(index))
    if dropout:
        yield finding(
            DROPOUT,
            f"Values are set to zero at random, in {nodes(len(dropout))}: each run gives other numbers.",
            dropout,
        )
    if norm:
        text = f"Mean and variance come from the batch that is fed, in {nodes(len(norm))}: a result depends on its neighbours."
        yield finding(BATCHNORM, text, norm)
    if without:
        text = (
            f"Nodes before it compute mean and variance of the data that is fed, for {nodes(len(without))}: a result depends on "
            f"its neighbours in the batch. So a layer with track_running_stats=False is exported."
        )
        yield finding(STATISTICS, text, without)


def _from_the_data(patient: Patient, scope: Scope, node: NodeProto) -> bool:
    """Whether mean or variance are computed from what the node itself is fed."""
    if len(node.input) < 5 or any(patient.stored(scope, name) is not None for name in node.input[3:5]):
        return False
    data = _sources(patient, scope, node.input[0])
    return any(data & _sources(patient, scope, name) for name in node.input[3:5] if name in scope.producer)


def _sources(patient: Patient, scope: Scope, name: str) -> set[str]:
    """The tensors of one graph that the values of a tensor depend on, itself included; no weights, and not what only gives
    its shape."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if not name or name in found or name in scope.initializers or patient.stored(scope, name) is not None:
            continue
        found.add(name)
        if name in scope.producer and not is_op(scope.nodes[scope.producer[name]], "Shape", "Size"):
            waiting += scope.nodes[scope.producer[name]].input
    return found


def drops(patient: Patient, scope: Scope, node: NodeProto, version: int) -> bool:
    """Whether a Dropout sets values to zero at random."""
    if version < 7:  # is_test was an attribute, and 0 by default
        return not attribute(node, "is_test", 0) and attribute(node, "ratio", 0.5) > 0
    if version < 12 or len(node.input) < 3:  # 7 to 11 know no training; later ones do by their third input
        return False
    mode, ratio = patient.value(scope, node.input[2]), None
    if node.input[1]:
        ratio = patient.value(scope, node.input[1])
    switched_off = ratio is not None and not np.any(ratio)
    return mode is not None and bool(np.any(mode)) and not switched_off


def normalises_by_batch(node: NodeProto, version: int) -> bool:
    if version < 7:
        return not attribute(node, "is_test", 0)
    if version < 14:
        return len([o for o in node.output if o]) > 1
    return bool(attribute(node, "training_mode", 0))


CHECKS = (training,)
