# %% [markdown]
# # 03 · Exercises: tracing versus scripting
#
# Five tasks. Each ends in a file in `work/` that `cu.check` looks at. A check tells you what is right, and gives a hint
# for what is not. Try as often as you like: the best answer is kept.
#
# All numbers are drawn from your id, so they are your own. Put your id between the quotes.

# %%
import course_utils as cu

cu.setup(student="guest")  # put your own id here

# %%
import json
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn
from torch.export import Dim

# %% [markdown]
# ## 3.1 Both branches alive
#
# Your gate: if the mean of all of `x` is above the threshold, then `x * up`, else `x * down + shift`.

# %%
cu.params("3.1")


# %%
class Gate(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        p = self.p
        if x.mean() > p["threshold"]:
            return x * p["up"]
        return x * p["down"] + p["shift"]


# %% [markdown]
# Export it so that both branches live in the file `work/3.1.onnx`: input `x`, float32 `[batch, 4]` with any number of
# rows, and one output, float32. You may write the module anew. Prove to yourself that the file is right on both sides.
#
# > **Hint** `input_names=["x"], output_names=["y"]`, `dynamic_shapes=({0: Dim.DYNAMIC},)`, and `external_data=False`
# > for one file. The branches of `torch.cond` are functions; `p` may be used in them.

# %%
# Task 3.1: export the gate with both branches
p = cu.params("3.1")
### BEGIN SOLUTION


class LivingGate(Gate):
    def forward(self, x):
        p = self.p

        def upper(x):
            return x * p["up"]

        def lower(x):
            return x * p["down"] + p["shift"]

        return torch.cond(x.mean() > p["threshold"], upper, lower, (x,))


torch.onnx.export(
    LivingGate(p).eval(),
    (torch.randn(2, 4),),
    "work/3.1.onnx",
    input_names=["x"],
    output_names=["y"],
    dynamic_shapes=({0: Dim.DYNAMIC},),
    external_data=False,
    verbose=False,
)
for above in (1.0, -1.0):
    assert cu.parity(
        Gate(p), "work/3.1.onnx", torch.full((3, 4), p["threshold"] + above)
    ).within
### END SOLUTION

# %%
cu.check("3.1", "work/3.1.onnx")

# %% [markdown] tags=["solution"]
# `torch.cond` puts both branches into the file as an If node, and the comparison is computed at run time. A Python `if`
# is decided by the example, or the export fails. A typical mistake is to test one side only: use inputs whose mean lies
# on each side of the threshold. `torch.where` on both results is another road: it computes both branches and chooses
# afterwards.

# %% [markdown]
# ## 3.2 A loop of any length
#
# A state `h` begins with zeros. For each row of `x` it becomes `tanh(a * row + b * h + c)`. The result is the last
# state.

# %%
cu.params("3.2")


# %%
class Reader(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        p = self.p
        h = torch.zeros_like(x[0])
        for row in x:
            h = torch.tanh(p["a"] * row + p["b"] * h + p["c"])
        return h


# %% [markdown]
# Save it as `work/3.2.onnx`: input `x`, float32 `[length, 3]` with any number of rows from one on, and one output,
# float32 `[3]`. Any mechanism is fine, as long as the file is right.
#
# > **Hint** `from torch._higher_order_ops.scan import scan`, with `dynamic_shapes=({0: Dim.DYNAMIC},)`. Or a scripted
# > module, with numbers that the compiler can see.

# %%
# Task 3.2: export the loop for any length
p = cu.params("3.2")
### BEGIN SOLUTION
from torch._higher_order_ops.scan import scan


class LivingReader(Reader):
    def forward(self, x):
        p = self.p

        def step(h, row):
            h = torch.tanh(p["a"] * row + p["b"] * h + p["c"])
            return h, h.clone()

        return scan(step, torch.zeros_like(x[0]), x)[0]


torch.onnx.export(
    LivingReader(p).eval(),
    (torch.randn(5, 3),),
    "work/3.2.onnx",
    input_names=["x"],
    output_names=["y"],
    dynamic_shapes=({0: Dim.DYNAMIC},),
    external_data=False,
    verbose=False,
)
for length in (1, 4, 20):
    assert cu.parity(Reader(p), "work/3.2.onnx", torch.randn(length, 3)).within
### END SOLUTION

# %%
cu.check("3.2", "work/3.2.onnx")

# %% [markdown] tags=["solution"]
# `scan` keeps one step in the file and repeats it for as many rows as come. A Python loop is written out for the
# example's length, and later rows are ignored. A typical mistake is to test with that length alone: try one row and
# many. `scan` returns the last state and all steps, and the task wants the state. A scripted module with the loop is
# another road.

# %% [markdown]
# ## 3.3 An operator that nobody knows · deeper
#
# This task is about the deeper page [Unknown operators](../deeper/03_unknown_operators.ipynb).
#
# The operator `scroll::hump` computes `height / (1 + (x / width) ** power)`, in NumPy. Your power stands in the cell
# below; width and height are arguments of the operator.

# %%
cu.params("3.3")


# %%
power = float(cu.params("3.3")["power"])


@torch.library.custom_op("scroll::hump", mutates_args=())
def hump(x: torch.Tensor, width: float, height: float) -> torch.Tensor:
    return torch.from_numpy(
        np.float32(height) / (1 + np.power(x.numpy() / np.float32(width), power))
    )


@hump.register_fake
def _(x, width, height):
    return torch.empty_like(x)


class Humped(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        return hump(x, self.p["width"], self.p["height"]) + self.p["slope"] * x


# %% [markdown]
# Translate the operator with onnxscript, and export `Humped` as `work/3.3.onnx`: input `x`, float32 `[batch, 4]` with
# any number of rows, and one output. Only standard operators may be in the file, in its functions and branches, too.
#
# > **Hint** The operators are `op.Div`, `op.Pow`, `op.Add`, …; `op.Constant(value_float=width)` makes a tensor of a
# > number. The key in the `custom_translation_table` is `torch.ops.scroll.hump.default`.

# %%
# Task 3.3: translate the operator, export the model
from onnxscript import FLOAT
from onnxscript import opset18 as op

p = cu.params("3.3")
### BEGIN SOLUTION


def hump_in_onnx(x: FLOAT, width: float, height: float):
    ratio = op.Div(x, op.Constant(value_float=width))
    return op.Div(
        op.Constant(value_float=height), op.Add(op.Pow(ratio, power), 1.0)
    )


torch.onnx.export(
    Humped(p).eval(),
    (torch.randn(2, 4),),
    "work/3.3.onnx",
    input_names=["x"],
    output_names=["y"],
    dynamic_shapes=({0: Dim.DYNAMIC},),
    custom_translation_table={torch.ops.scroll.hump.default: hump_in_onnx},
    external_data=False,
    verbose=False,
)
assert cu.parity(Humped(p), "work/3.3.onnx", torch.randn(5, 4)).within
### END SOLUTION

# %%
cu.check("3.3", "work/3.3.onnx")

# %% [markdown] tags=["solution"]
# The table tells the exporter what to write in place of the operator: a small graph of Div, Pow and Add. The
# translation must repeat the formula in its order; the model around it, with the slope, is exported as usual. A typical
# mistake is to divide after the power: compare with `cu.parity` on random rows. A decomposition into operators of
# torch, written in the module, works too.

# %% [markdown]
# ## 3.4 Find the lie
#
# A colleague traced this program, with an example that nobody remembers. It has two decisions.

# %%
cu.params("3.4")


# %%
class Router(nn.Module):
    """x: float32 [4]"""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        p = self.p
        if x[0] > p["first"]:
            x = x * p["factor"]
        if x.max() > p["second"]:
            x = x - p["step"]
        return x


cu.node_table(cu.given("3.4"))[["op", "inputs", "outputs"]]

# %% [markdown]
# The file is right on one path of four. Find inputs on which it is wrong, and say which decision is to blame. Stay near
# the thresholds: on each of your inputs, `x[0]` is at most 0.05 away from `first`, and the largest number that the
# second decision sees is at most 0.05 away from `second`. Write `work/3.4.json`, a dict with three keys, each with a
# list of four numbers between -5 and 5:
#
# | key | on this input |
# |---|---|
# | `first` | only the first decision differs from the path in the file |
# | `second` | only the second decision differs |
# | `both` | both differ |
#
# > **Hint** The second decision looks at `x` after the first one. Compare with
# > `cu.parity(Router(p), cu.given("3.4"), x)`.

# %%
# Task 3.4: find three counterexamples
p = cu.params("3.4")
model = onnx.load(cu.given("3.4"))
### BEGIN SOLUTION
path = ["Mul" in cu.op_histogram(model), "Sub" in cu.op_histogram(model)]


def at_the_edges(first, second):
    """An input on which the two decisions say this."""
    x0 = p["first"] + (0.02 if first else -0.02)
    largest = p["second"] + (0.02 if second else -0.02)
    return [x0, largest / p["factor"] if first else largest, -4.0, -4.0]


answer = {
    "first": at_the_edges(not path[0], path[1]),
    "second": at_the_edges(path[0], not path[1]),
    "both": at_the_edges(not path[0], not path[1]),
}
for x in answer.values():
    assert not cu.parity(Router(p), model, torch.tensor(x)).within
with open("work/3.4.json", "w") as file:
    json.dump(answer, file)
### END SOLUTION

# %%
cu.check("3.4", "work/3.4.json")

# %% [markdown] tags=["solution"]
# A traced file has one path: a Mul says that the first decision was yes, a Sub that the second was. Near the thresholds
# a small change turns a decision. The second one sees `x` after the first, so the largest number is divided by `factor`
# where the first says yes. A typical mistake is to forget that, which turns the wrong decision. Searching random inputs
# near the thresholds works too.

# %% [markdown]
# ## 3.5 Somebody forgot eval() · deeper
#
# This task is about the deeper page [What a file forgets](../deeper/03_what_a_file_forgets.ipynb).
#
# This model was exported in training mode, and the PyTorch source is lost. Two of its nodes still behave as if it were
# learning.

# %%
cu.node_table(cu.given("3.5"))[["op", "inputs", "outputs", "attributes"]]

# %% [markdown]
# Heal the file, and save it as `work/3.5.onnx`. It must give the numbers of eval mode: the same in every run, and for
# each row the same whatever the other rows are.
#
# > **Hint** `help` is in the definitions: `print(onnx.defs.get_schema("Dropout", 18).doc)`, and the same for
# > `BatchNormalization`. In eval mode `BatchNormalization` has one output.

# %%
# Task 3.5: bring the model into eval mode
model = onnx.load(cu.given("3.5"))
### BEGIN SOLUTION
for node in model.graph.node:
    if node.op_type == "BatchNormalization":
        del node.attribute[:]  # training_mode is 0 by default
        del node.output[1:]
    if node.op_type == "Dropout":
        del node.input[2:]  # training_mode is false by default
onnx.checker.check_model(model, full_check=True)
onnx.save(model, "work/3.5.onnx")
### END SOLUTION

# %%
cu.check("3.5", "work/3.5.onnx")

# %% [markdown] tags=["solution"]
# BatchNormalization has its mode in an attribute, Dropout in its third input; without them both use the mode of
# inference. In training mode BatchNormalization takes the statistics of the batch, so a row depends on the others, and
# Dropout draws numbers, so runs differ. A typical mistake is to heal one of the two: run twice, and with one row alone.
# Writing false into both places, or removing the Dropout node, is another road.

# %% [markdown]
# ## Hand in
#
# This packs your answers into one file. It holds your answers and nothing else.

# %%
if Path("work/answers").exists():
    cu.submit()
