"""The capstone: one model of the student's own, from PyTorch to a server and a page.

All six tasks are about the same scroll (`quest.py`). Each artefact is judged by what it computes on hidden photographs.
"""

from __future__ import annotations

import dataclasses
import json
from random import Random
from typing import Any

import numpy as np
import onnx

from ...running import run, session_for
from .. import Criteria, Criterion, Params, Task, accuracy
from ..examine import every_node, left_notes
from ..trained_network import CONVS, has_uint8_activations, opened
from . import scroll as quest
from .camera import photographs
from .canvas import check_page, draw_page
from .export import check_diagnosis, check_export, is_scroll, outputs, practice, sick
from .server import check_server, handed_out

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
    scroll = Criteria()
    is_scroll(model, p, rng, scroll)
    for c in scroll:  # the work of 10.1: here it is where the work begins
        criteria.append(dataclasses.replace(c, condition=True))
    if not all(c.passed for c in criteria):
        return criteria
    opsets = {o.domain: o.version for o in model.opset_import}
    foreign = sorted({node.domain for node in every_node(model)} - {"", "ai.onnx"})
    if not criteria.require(
        "all operators are standard ones, in the graph itself",
        not foreign and not model.functions,
        f"It uses {', '.join(foreign) or 'functions'}: an optimised file for every machine is saved at the level "
        f"ORT_ENABLE_BASIC; the higher levels write operators of ONNX Runtime alone.",
    ):
        return criteria
    private = sorted(set(opsets) - {"", "ai.onnx"})
    criteria.add(
        "it imports the standard domain alone",
        not private,
        f"No node needs {', '.join(private)}, but opset_import names it, and a runtime that does not know the domain may "
        f"refuse the file: ONNX Runtime writes all domains that it knows into a file it saves. Take them out.",
    )
    opset = opsets.get("", opsets.get("ai.onnx", 99))
    criteria.add(
        f"the opset is at most {p['opset']}",
        opset <= p["opset"],
        f"It is {opset}: export with opset_version={p['opset']}.",
    )
    count = sum(1 for _ in every_node(model))
    criteria.add(
        f"it has at most {p['most_nodes']} nodes",
        count <= p["most_nodes"],
        f"It has {count}. cu.op_histogram shows which are many. One PyTorch call may have become a hundred nodes: "
        f"look for another way to say it. self.order as a list becomes several nodes, index_select one.",
    )
    _is_small(
        model,
        p,
        criteria,
        "It has {:,}. The exporter's notes (metadata_props and doc_string of each node) take room: clear them.",
    )
    notes = left_notes(model)
    criteria.add(
        "it carries no notes of the exporter",
        not notes,
        f"{notes[:1]} is one: a stack trace names files and folders of your machine. Nodes, values, weights and the graph "
        f"itself can hold metadata_props and a doc_string.",
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
        f"It is {facts['version']!r}." if "version" in facts else "It is missing: set_model_props, as for classes.",
    )
    return criteria


def _names(p: Params) -> list[str]:
    from ...lab.data import CLASS_NAMES

    return [CLASS_NAMES[i] for i in p["order"]]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# 10.4: int8 within a budget

_SHOWN = (240, 220, 480)  # photographs of test images of each group
_MOST_INT8_BYTES = 380_000  # QOperator needs at most 354,300, QDQ 369,000, and float 1,270,000


def _draw_budget(rng: Random) -> Params:
    return quest.draw(rng) | {"points": rng.choice([0.8, 1.0, 1.2]), "most_bytes": _MOST_INT8_BYTES}


def _check_budget(model: onnx.ModelProto, p: Params, rng: Random) -> list[Criterion]:
    criteria = Criteria()
    running = opened(model, CONVS, criteria, source="pixels", kind="uint8")
    if running is None:
        return criteria
    has_uint8_activations(model, running, criteria)
    _is_small(model, p, criteria, "It has {:,}: are all weights int8? Notes and value_info take room, too.")
    early = _quantized_before_the_network(model)
    criteria.require(
        "the preparation is left in float",
        not early,
        f"Before the first convolution there are {', '.join(early[:4])}. A repair and a decision need exact numbers. An "
        f"operator of the network may also stand before it, such as Add: nodes_to_exclude takes the names of the nodes.",
    )
    draw = np.random.default_rng(rng.getrandbits(64))
    drawn = [photographs(p, "test", n, draw, among=group) for group, n in zip(accuracy.groups(), _SHOWN, strict=True)]
    photos, labels = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
    got = _in_parts(model, photos)
    if isinstance(got, str) or got.shape != (len(photos), 10):
        said = got if isinstance(got, str) else f"It returns {list(got.shape)}."
        criteria.require(f"it takes {len(photos)} photographs", False, said)
        return criteria
    found = accuracy.loss(
        got.argmax(1) == labels,
        accuracy.weights([len(photos) for photos, _ in drawn]),
        lambda of: quest.answers(p, photos[of]).argmax(1) == labels[of],
        p["points"],
    )
    criteria.add(
        f"it loses at most {p['points']} points of accuracy ({len(photos)} photographs, hard ones drawn more often)",
        found.within,
        lambda: (
            f"It is right for {found.right:.2%}, Scroll for at least {found.reference:.2%}. {_loss(p, got, photos)}"
        ),
    )
    return criteria


def _in_parts(model: onnx.ModelProto, photos: np.ndarray) -> np.ndarray | str:
    """Scores, some photographs at a time: all at once takes much memory, and more time."""
    session, parts = session_for(model), []
    for at in range(0, len(photos), 50):
        got = outputs(session, photos[at : at + 50])
        if isinstance(got, str) or got.ndim != 2:
            return got
        parts.append(got)
    return np.concatenate(parts)


def _loss(p: Params, got: np.ndarray, photos: np.ndarray) -> str:
    # As many as it takes to tell one fault from another, and easy ones: each is a run of the whole network.
    some = slice(-300, None)
    for fault in ("always as it is", "always negative", "one for all", "no order", "order", "not repaired"):
        if (got[some].argmax(1) == quest.answers(p, photos[some], fault).argmax(1)).mean() > 0.97:
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


# What 10.3 and 10.4 look at


def _is_small(model: onnx.ModelProto, p: Params, criteria: Criteria, hint: str) -> bool:
    """Add: the file has at most p["most_bytes"] bytes. hint: with a place for the bytes that it has."""
    size = model.ByteSize()
    what = f"the file has at most {p['most_bytes']:,} bytes"
    return criteria.require(what, size <= p["most_bytes"], hint.format(size))


# What the report card says about an artefact that passed

_MEASURED = 2000


def _measured(model: onnx.ModelProto, p: Params) -> dict[str, str]:
    photos, labels = photographs(p, "test", _MEASURED, np.random.default_rng(p["seed"]))
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
    nodes = sum(1 for _ in every_node(model))
    return {"nodes": str(nodes), "opset": opset, "size": f"{len(model.SerializeToString()) / 1000:,.0f} kB"}


def _sick_file(p: Params) -> dict[str, onnx.ModelProto]:
    return {"10.2.onnx": sick(p)}


TASKS = (
    Task(
        "10.1",
        "Export",
        "onnx",
        check_export,
        quest.draw,
        practice,
        points=4,
        hints=(
            "Ask of each line of forward: does it take the whole batch at once, and does ONNX have its operator? Lesson 10 removes the same three obstacles.",
            "Dimension 0 of one photograph is dimension 1 of the batch. Make the negative of all photographs, take the mean of each one's edge with keepdim=True, and let torch.where choose.",
            "After a sort the k-th smallest is at place k - 1; searchsorted is the sum of light[..., None] > self.curve over the last dimension. Export with a dynamic batch, and compare with cu.parity on both kinds of paper.",
        ),
        measure=_measured,
    ),
    Task(
        "10.2",
        "Diagnose",
        "json",
        check_diagnosis,
        quest.draw,
        _sick_file,
        same_as="10.1",
        points=2,
        hints=(
            "Count the answers first. The node that you look for has right inputs and a wrong output, so look at the tensors between the nodes.",
            "Append ValueInfoProto outputs, run the file, and compare each tensor with the same step of scroll.py, from the top. Compare shapes, too: each photograph has a decision of its own.",
            "If all is right up to image, cut out the network from image to scores with onnx.utils.extract_model, and read first_divergent_node of cu.parity(scroll.network, file, x). If that agrees, only the last node is left.",
        ),
    ),
    Task(
        "10.3",
        "Make it ready to ship",
        "onnx",
        _check_shipping,
        _draw_shipping,
        same_as="10.1",
        points=6,
        hints=(
            "Export anew for your opset, then look at cu.op_histogram: which call of your module became many nodes? The deeper page Ship it shows the rest.",
            "Let ONNX Runtime save the file at ORT_ENABLE_BASIC: higher levels write operators of its own. Then take the domains that no node uses out of opset_import.",
            "Clear metadata_props and doc_string of the graph and of each node, input, output, initializer and value_info. Then call onnx.helper.set_model_props once with both entries; the names follow scroll.order.",
        ),
        measure=_measured,
    ),
    Task(
        "10.4",
        "Quantize within a budget",
        "onnx",
        _check_budget,
        _draw_budget,
        same_as="10.1",
        points=1,
        hints=(
            "Three choices decide about the file: its format, the types, and which nodes take part. Which operators before the first convolution are quantized?",
            "quantize_static with cu.Calibration, QuantFormat.QOperator, activations QUInt8, weights QInt8 and per_channel=True gives a small file that runs in int8.",
            "Take the names of all nodes before the first Conv of work/10.3.onnx, and give them as nodes_to_exclude. Then count how many practice photographs each of the two files gets right.",
        ),
        measure=_measured,
    ),
    Task(
        "10.5",
        "Serve",
        "json",
        check_server,
        quest.draw,
        handed_out,
        same_as="10.1",
        points=2,
        hints=(
            "Go through the table in its order: what must the server know about a request to decide each line? Ship it and lesson 08 have a server to begin with.",
            "Count the bytes while the body arrives, then look at the Content-Type, then np.load with allow_pickle=False inside a try, then dtype and shape. No request may give a 500.",
            "Serve work/10.4.onnx from a script that you start with subprocess.Popen. Let it bind port 0 and print the port, answer with argmax(1).tolist(), and end it in a finally.",
        ),
    ),
    Task(
        "10.6",
        "Fit it into a page",
        "onnx",
        check_page,
        draw_page,
        same_as="10.1",
        points=4,
        hints=(
            "Write three graphs: from rgba to 28 × 28 bytes, the scroll, and from scores to label and probability. Test the first one alone against NumPy.",
            "Split on axis 2 into colour and alpha. After the weighted sum come Unsqueeze, Resize with no attribute but mode, Squeeze, Round and Cast.",
            "Give all graphs the opset and ir_version of work/10.3.onnx, and the scroll a prefix without renaming its input and output. Then merge_models twice: small to pixels, and logits to scores.",
        ),
        measure=_file_facts,
    ),
)
