"""Where ONNX Runtime's WebGPU plug-in puts the nodes of a model, and which tensors are copied in one run.

No plug-in is needed for it: TAKES and LEFT were recorded with onnxruntime-ep-webgpu 0.4.0 beside onnxruntime 1.31.1,
operator by operator, with float32 inputs at opset 20. Where the plug-in works, `tests/test_placed.py` compares them, and
the copies, with the real one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import onnx

WEBGPU, CPU = "WebGpuExecutionProvider", "CPUExecutionProvider"

_TAKEN = """Abs Acos Acosh Add And Asin Asinh Atan Atanh Ceil Clip Concat Cos Cosh CumSum Div Elu Equal Erf Exp Expand Flatten
Floor Gather Gelu Gemm Greater GreaterOrEqual HardSigmoid HardSwish Identity LeakyRelu Less LessOrEqual Log LpNormalization
MatMul Max Min Mul Neg Not PRelu Pad Pow Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Sigmoid Sin Sinh Slice Softmax Softplus Split Sqrt Squeeze Sub Tan
Tanh ThresholdedRelu Tile Transpose Trilu Unsqueeze Where"""
_LEFT = "Celu Dropout Hardmax IsInf IsNaN LogSoftmax Mean Mod Or Round Selu Shrink Sign Softsign Sum Xor"
TAKES, LEFT = frozenset(_TAKEN.split()), frozenset(_LEFT.split())


def provider_of(node: onnx.NodeProto) -> str:
    """Its operator must be in TAKES or LEFT, and what it computes with float32."""
    return WEBGPU if node.op_type in TAKES else CPU


def makers(model: onnx.ModelProto) -> dict[str, str]:
    """Name of each tensor that a node makes → the provider of this node."""
    return {name: provider_of(node) for node in model.graph.node for name in node.output if name}


def readers(model: onnx.ModelProto) -> dict[str, set[str]]:
    """Name of each tensor that a node reads → the providers of those nodes."""
    found: dict[str, set[str]] = {}
    for node in model.graph.node:
        for name in filter(None, node.input):
            found.setdefault(name, set()).add(provider_of(node))
    return found


class Copies(NamedTuple):
    """Names of the tensors that one run copies inside of the graph, each once, in the order in which they are made."""

    to_host: list[str]
    from_host: list[str]

    @property
    def number(self) -> int:
        return len(self.to_host) + len(self.from_host)


def copies(model: onnx.ModelProto) -> Copies:
    """The tensors for which ONNX Runtime inserts a MemcpyToHost or a MemcpyFromHost.

    A tensor is copied once, however many nodes read it there. Initializers are brought when the session is created. An
    input of the graph needs a node only if both providers read it; otherwise the session brings it where it is read.
    """
    made_on, read_on = makers(model), readers(model)
    stored = {tensor.name for tensor in model.graph.initializer}
    shared = [v.name for v in model.graph.input if v.name not in stored and read_on.get(v.name, set()) == {WEBGPU, CPU}]
    return Copies(
        [name for name, provider in made_on.items() if provider == WEBGPU and CPU in read_on.get(name, ())],
        shared + [name for name, provider in made_on.items() if provider == CPU and WEBGPU in read_on.get(name, ())],
    )


def islands(model: onnx.ModelProto) -> int:
    """Groups of nodes on the CPU: nodes of which one reads what the other one makes are in the same group."""
    group: dict[str, int] = {}  # tensor → group
    number = 0
    for node in model.graph.node:
        if provider_of(node) != CPU:
            continue
        near = {group[name] for name in node.input if name in group}
        number += 1
        group = {name: number if of in near else of for name, of in group.items()}
        group |= dict.fromkeys(filter(None, node.output), number)
    return len(set(group.values()))


def record(model: onnx.ModelProto) -> dict[str, Any]:
    """The placement and the run in the form of `cu.ep_record`: recorded and ran. Nodes have names of their own.

    recorded: [provider, [node]]. ran: [provider, operator], a copy right after its tensor was made.
    """
    nodes = model.graph.node
    recorded = [[p, [node.name]] for p in (WEBGPU, CPU) for node in nodes if provider_of(node) == p]
    to_host, from_host = map(set, copies(model))
    ran = [[WEBGPU, "MemcpyFromHost"] for v in model.graph.input if v.name in from_host]
    for node in nodes:
        ran.append([provider_of(node), node.op_type])
        ran += [[WEBGPU, "MemcpyToHost"] for name in node.output if name in to_host]
        ran += [[WEBGPU, "MemcpyFromHost"] for name in node.output if name in from_host]
    return {"provider": WEBGPU, "recorded": recorded, "ran": ran}
