# %% [markdown]
# # 03 · The older exporter
#
# A project that you maintain exports with `dynamo=False`, or compiles its model with `torch.jit.script` first. Can you
# trust its files, and what do you gain if you change to the default exporter?
#
# You need the [core of lesson 03](../03_tracing_vs_scripting.ipynb).
#
# After this page you will be able to
#
# - say when the numbers of the example matter,
# - read the `If` and the `Loop` that scripting writes,
# - recognise a file that holds one copy per step,
# - explain what `torch.jit.script` refuses, and why.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## The numbers of the example
#
# The default exporter never sees the numbers of your example. [Tracing](../glossary.md#tracing) does. Does it use them?


# %% [markdown]
# We trace a plain convolutional network and a model with an `if`, each with three examples: ones, zeros and
# not-a-number.

# %%
import onnx
import torch
from torch import nn


class Gate(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x - 1


def traced(module, example):
    with cu.exporter_messages():
        torch.onnx.export(module, (example,), "work/03_example.onnx", dynamo=False)
    return onnx.load("work/03_example.onnx").graph


layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()]
plain = nn.Sequential(*layers, nn.Linear(144, 3)).eval()


# %% tags=["remove-input"]
cu.quiz("03_older_exporter", 1)

# %%
values = (1.0, 0.0, float("nan"))
networks = [traced(plain, torch.full((2, 1, 8, 8), v)) for v in values]
gates = [traced(Gate().eval(), torch.full((3, 4), v)) for v in values]
[[node.op_type for node in graph.node] for graph in networks + gates]

# %% [markdown]
# The network is written three times in the same way. Of the gate there are two versions: ones wrote `Mul`, zeros and
# not-a-number wrote `Sub`. How many different graphs are there, compared byte by byte?

# %%
network_bytes = {g.SerializeToString(deterministic=True) for g in networks}
gate_bytes = {g.SerializeToString(deterministic=True) for g in gates}
len(network_bytes), len(gate_bytes)

# %% [markdown]
# One network, two gates. Only shape and dtype of the example matter, unless the model decides by numbers, or makes a number
# of Python from a tensor (`float(x.max())`): that number is written into the file.

# %% tags=["hide-input"]
cu.claim(
    "dummy-values-do-not-matter",
    {
        "three examples, one and the same graph for the plain network": len(
            network_bytes
        )
        == 1,
        "two graphs for the model with an if": len(gate_bytes) == 2,
    },
)

# %% [markdown]
# ## What scripting keeps
#
# [Scripting](../glossary.md#scripting) reads the source text. So it sees both sides of the `if`:

# %%
with cu.exporter_messages() as said:
    scripted = torch.jit.script(Gate().eval())
    torch.onnx.export(scripted, (torch.rand(3),), "work/03_if.onnx", dynamo=False)
said[0]

# %% [markdown]
# PyTorch says that `torch.jit.script` is deprecated. The file:

# %%
some = torch.rand(3)
both = [cu.parity(Gate(), "work/03_if.onnx", x).within for x in (some, -some)]
print(both, onnx.printer.to_text(onnx.load("work/03_if.onnx").graph))

# %% [markdown]
# It is right on both sides. The decision is the operator [`If`](https://onnx.ai/onnx/operators/onnx__If.html), with one
# graph for each side.
#
# Now a loop over the rows of a sequence. We ask both ways of the older exporter for a free length, with `dynamic_axes`.


# %%
class Reader(nn.Module):
    def forward(self, x):
        h = torch.zeros_like(x[0])
        for i in range(x.shape[0]):
            h = torch.tanh(x[i] + 0.5 * h)
        return h


five, nine = torch.randn(5, 3), torch.randn(9, 3)
free = {"input_names": ["x"], "dynamic_axes": {"x": {0: "length"}}}

# %% [markdown]
# Scripting first:

# %%
file = "work/03_older_loop.onnx"
with cu.exporter_messages():
    scripted_loop = torch.jit.script(Reader().eval())
    torch.onnx.export(scripted_loop, (five,), file, dynamo=False, **free)
right = [cu.parity(Reader(), file, x).within for x in (five, nine, nine[:2])]
right

# %% [markdown]
# Right for five rows, nine and two. Tracing with the same request:

# %%
rows, export = {"five rows": (five,), "nine rows": (nine,)}, torch.onnx.export
args = (Reader(), (five,), "work/03_older_unrolled.onnx", rows)
traced_loop = cu.try_export(export, *args, dynamo=False, **free)
traced_loop

# %% [markdown]
# The file declares any length and is wrong for nine rows. How many steps does each file hold?

# %%
steps = [cu.op_histogram(model) for model in (file, traced_loop.model)]
counts = [{op: int(found.get(op, 0)) for op in ("Tanh", "Loop")} for found in steps]
counts

# %% [markdown]
# Scripting wrote one [`Loop`](https://onnx.ai/onnx/operators/onnx__Loop.html) with one `Tanh` in its body. Tracing
# wrote five copies of the step.

# %% tags=["hide-input"]
cu.claim(
    "scripting-keeps-control-flow",
    {
        "the scripted if becomes If, right on both branches": all(both)
        and "If" in cu.op_histogram("work/03_if.onnx"),
        "the scripted loop becomes Loop, right for every length": all(right)
        and counts[0]["Loop"] == 1,
        "the traced loop becomes one copy per step": counts[1]
        == {"Tanh": 5, "Loop": 0},
        "PyTorch calls it deprecated": "torch.jit.script` is deprecated" in said[0],
    },
)

# %% [markdown]
# ## What scripting asks of your code
#
# `torch.jit.script` compiles a part of Python in which every value has one type, known beforehand. Here are four
# ordinary modules, and one with a type for everything:


# %%
class Untyped(nn.Module):
    def forward(self, parts):  # a list, but nothing says so
        return parts[0] + parts[1]


class Starred(nn.Module):
    def forward(self, *parts):
        return parts[0] + parts[1]


class Typed(nn.Module):
    def forward(self, parts: list[torch.Tensor]):
        return parts[0] + parts[1]


# %%
class Lambda(nn.Module):
    def forward(self, parts: list[torch.Tensor]):
        add = lambda v: v[0] + v[1]
        return add(parts)


class TwoTypes(nn.Module):
    def forward(self, parts: list[torch.Tensor]):
        scale = 2 if len(parts) == 2 else "none"
        return parts[0] * scale


takes_a_list = (Untyped, Lambda, TwoTypes, Typed)


# %% [markdown]
# Python runs all five:

# %%
a, b = torch.ones(2, 3), torch.full((2, 3), 2.0)
in_python = [Starred()(a, b), *(module()([a, b]) for module in takes_a_list)]
sums = [total.unique().tolist() for total in in_python]
sums

# %% [markdown]
# Each gives one plus two, and `TwoTypes` two times one. Which of them does the compiler take?

# %%
from course_utils.lab.exports import reason

compiled = {}
for module in (Starred, *takes_a_list):
    try:
        with cu.exporter_messages():
            torch.jit.script(module())([a, b])
        compiled[module.__name__] = "runs"
    except Exception as error:
        compiled[module.__name__] = reason(error)
compiled

# %% [markdown]
# Only `Typed` runs. A parameter without a type is taken for a tensor. `*parts` and `lambda` are not in the language,
# and a name keeps one type. The default exporter asks for none of this: Python itself runs the code.

# %% tags=["hide-input"]
cu.claim(
    "scripting-needs-typed-subset",
    {
        "a list without a type is taken for a tensor": "RuntimeError"
        in compiled["Untyped"],
        "*parts is refused": "NotSupportedError" in compiled["Starred"],
        "a lambda is refused": "UnsupportedNodeError" in compiled["Lambda"],
        "one name with two types is refused": "RuntimeError"
        in compiled["TwoTypes"],
        "with a type for everything it runs": compiled["Typed"] == "runs",
        "Python itself runs all of them": sums == [[3], [3], [3], [2], [3]],
    },
)

# %% [markdown]
# ## Recap
#
# - Only shape and dtype of the example matter, unless the model decides by numbers or takes one out of a tensor.
# - A traced file keeps one branch and one number of steps, also where `dynamic_axes` declares a free length.
# - A scripted file keeps both branches and the loop. Scripting wants a type for everything, and is deprecated.
# - Change to the default exporter, with `torch.where`, `torch.cond` or `scan`, unless the runtime needs an old opset
#   that it does not write, or you may not change the model. Then test every branch and every size.
#
# **Next:** task 3.4 of the [exercises](../exercises/03_tracing_vs_scripting.ipynb).
# **Deeper:** [The report's comparison, measured](03_comparison_measured.ipynb) counts which mechanism is right on which
# model.
