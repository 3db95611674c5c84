"""Long data is left in the file, wherever in a model a tensor may stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from doctor_models import linear, named_function
from onnx import helper, numpy_helper

from course_utils.diagnosis.file.reading import read

LONG = numpy_helper.from_array(np.ones((512, 512), np.float32), "long")
CONSTANT = helper.make_node("Constant", [], ["unread"], value=LONG)


def held(place: str) -> onnx.ModelProto:
    model = named_function("Mine")
    function, graph = model.functions[0], model.graph
    if place == "initializer":
        graph.initializer.append(LONG)
    elif place == "node":
        graph.node.append(CONSTANT)
    elif place == "node of a function":
        function.node.append(CONSTANT)
    elif place == "default of a function":
        function.attribute_proto.append(helper.make_attribute("value", LONG))
    elif place == "branch":
        branch = helper.make_graph([CONSTANT], "b", [], [helper.make_tensor_value_info("unread", 1, [512, 512])])
        graph.initializer.append(numpy_helper.from_array(np.array(True), "go"))
        graph.node.append(helper.make_node("If", ["go"], ["either"], then_branch=branch, else_branch=branch))
    elif place == "sparse":
        at = numpy_helper.from_array(np.arange(2**18), "at")
        graph.sparse_initializer.append(
            helper.make_sparse_tensor(numpy_helper.from_array(np.ones(2**18, np.float32), "long"), at, [2**19])
        )
    return model


@pytest.mark.parametrize(
    "place", ["initializer", "node", "node of a function", "default of a function", "branch", "sparse"]
)
def test_it_is_not_read(place, folder):
    onnx.save(held(place), "m.onnx")
    assert Path("m.onnx").stat().st_size > 2**20
    assert read("m.onnx").model.ByteSize() < 2000


def test_a_short_one_is(folder):
    model = linear()
    onnx.save(model, "m.onnx")
    assert read("m.onnx").model == model
