# %% [markdown]
# # 03 · Branches and loops in the file
#
# You open a file and find an `If`, a `Scan` or a `Loop`. Its inputs do not explain what it computes: the work is done
# by graphs inside the node. Or you have to add such a node to a file whose PyTorch source is lost.
#
# You need the [core of lesson 03](../03_tracing_vs_scripting.ipynb).
#
# After this page you will be able to
#
# - read the graphs inside `If`, `Scan` and `Loop`,
# - write the body of a `Scan` by hand,
# - export a loop that ends on a condition with `while_loop`,
# - explain the errors of `torch.cond` and `while_loop`.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Inside an If
#
# The gate of lesson 03 again, with
# [`torch.cond`](https://docs.pytorch.org/docs/stable/cond.html):

# %%
import torch
from torch import nn


class Conditional(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x * 2, lambda x: x - 1, (x,))


positive, negative = torch.tensor([[1.0, 2.0]]), torch.tensor([[-1.0, -2.0]])
program = torch.onnx.export(
    Conditional().eval(), (positive,), "work/03_living_cond.onnx", verbose=False
)

# %% [markdown]
# The file as text:

# %%
import onnx

print(onnx.printer.to_text(onnx.load("work/03_living_cond.onnx").graph))

# %% [markdown]
# `If` has one input, the condition. The two graphs are [attributes](../glossary.md#attribute), `then_branch` and
# `else_branch`. They have no inputs of their own: both read `x` from the graph around them. Each gives one output, and
# the node gives that of the graph that ran.
#
# So the outputs of both sides must agree in shape and dtype. Here one side adds the rows up:


# %%
from functools import partial


class Uneven(nn.Module):
    def forward(self, x):
        return torch.cond(x.sum() > 0, lambda x: x.sum(0), lambda x: x - 1, (x,))


export = partial(torch.onnx.export, verbose=False)
wide, file = (torch.ones(3, 4),), "work/03_living_refused.onnx"
inputs = {"example": wide}
cu.try_export(export, Uneven(), wide, file, inputs)

# %% [markdown]
# Refused: the sizes are `[4]` and `[3, 4]`. A Python `if` is refused, too, and so is a scripted module, although it
# would know both sides:


# %%
class Gate(nn.Module):
    def forward(self, x):
        return x * 2 if x.sum() > 0 else x - 1


# %%
with cu.exporter_messages():
    modules = [Gate().eval(), torch.jit.script(Gate().eval())]
refused = [cu.try_export(export, m, wide, file, inputs) for m in modules]
refused

# %% [markdown]
# Use `torch.where`, or `torch.cond` where only one side may run.
#
# ## Inside a Scan
#
# The reader of lesson 03 carries a state `h` from row to row:

# %%
from torch._higher_order_ops.scan import scan


class Scanned(nn.Module):
    def forward(self, x):
        def step(h, row):
            h = torch.tanh(row + 0.5 * h)
            return h, h.clone()

        return scan(step, torch.zeros_like(x[0]), x)


five, nine = torch.randn(5, 3), torch.randn(9, 3)


# %%
free, scanned = ({0: torch.export.Dim.DYNAMIC},), "work/03_living_scan.onnx"
program = torch.onnx.export(
    Scanned().eval(), (five,), scanned, dynamic_shapes=free, verbose=False
)

# %% [markdown]
# Both results of `scan` are outputs now: the last state, and what each step kept.

# %%
print(onnx.printer.to_text(onnx.load(scanned).graph))

# %% [markdown]
# The body is a graph with inputs and outputs, and their order is all that connects them to the node:

# %% tags=["remove-input"]
cu.picture("scan_steps")

# %% [markdown]
# | in the file | first | then |
# |---|---|---|
# | inputs of [`Scan`](https://onnx.ai/onnx/operators/onnx__Scan.html) | first states | tensors that are read row by row |
# | inputs of the body | the state now | one row of each |
# | outputs of the body | the next state | one row to write |
# | outputs of `Scan` | last states | all rows written |
#
# `num_scan_inputs` says how many of the inputs are read row by row; all before them are states.
#
# ## A Scan by hand
#
# With that table we can write the same loop without PyTorch. The text form of ONNX needs the body as a graph in the
# attribute `body`:

# %%
text = """<ir_version: 10, opset_import: ["": 18]>
reader (float[length, 3] x, float[3] start)
=> (float[3] last, float[length, 3] all) {
  last, all = Scan <num_scan_inputs = 1,
    body = step (float[3] h, float[3] row) => (float[3] next, float[3] y) {
      half = Constant <value_float = 0.5> ()
      faded = Mul (h, half)
      sum = Add (row, faded)
      next = Tanh (sum)
      y = Identity (next)
    }> (start, x)
}"""

# %%
by_hand = onnx.parser.parse_model(text)
onnx.checker.check_model(by_hand, full_check=True)

# %% [markdown]
# `y` is an `Identity` of `next`: the body must give two outputs with two names. In PyTorch, that is the `clone`. Does
# it compute the same?

# %%
import numpy as np
import onnxruntime as ort

session = ort.InferenceSession(by_hand.SerializeToString())
start = np.zeros(3, np.float32)
last, rows = session.run(None, {"x": nine.numpy(), "start": start})
[np.allclose(a, b, atol=1e-6) for a, b in zip((last, rows), Scanned()(nine))]

# %% [markdown]
# Both outputs agree with PyTorch. A file whose loop is broken can be mended in this way, and a loop that was written
# out can be replaced.
#
# ## A loop that ends on a condition: while_loop
#
# `scan` makes one step per row. How many steps does it take to halve `x` until it is small? That depends on the
# numbers. `while_loop` takes a condition, a body, and the first state, as a tuple.

# %%
from torch._higher_order_ops.while_loop import while_loop


class Halved(nn.Module):
    def forward(self, x):
        return while_loop(lambda x: x.abs().sum() > 1, lambda x: (x / 2,), (x,))[0]


halved = "work/03_living_halved.onnx"
torch.onnx.export(Halved().eval(), (five,), halved, verbose=False)
[cu.parity(Halved(), halved, x).within for x in (five, five * 100, five * 0)]

# %% [markdown]
# Right for few steps, for many, and for none. In the file it is a
# [`Loop`](https://onnx.ai/onnx/operators/onnx__Loop.html):

# %%
print(onnx.printer.to_text(onnx.load(halved).graph))

# %% [markdown]
# The inputs of `Loop` are the largest number of steps, the condition, and the states. Here the first is empty: there is
# no limit. The body reads the number of the step, the condition and the states. It gives the next condition and the
# next states.
#
# `while_loop` can count, too. This body looks up one row per step:


# %%
class Counted(nn.Module):
    def __init__(self, row):
        super().__init__()
        self.row = row

    def forward(self, x):
        def body(i, h):
            return i + 1, torch.tanh(self.row(x, i) + 0.5 * h)

        start = (torch.zeros((), dtype=torch.int64), torch.zeros_like(x[0]))
        return while_loop(lambda i, h: i < x.shape[0], body, start)[1]


by_number = Counted(lambda x, i: x[i])
by_tensor = Counted(lambda x, i: x.index_select(0, i.reshape(1))[0])


# %% [markdown]
# How does the body take a row? We try `x[i]` and `index_select`, and feed nine rows and two.

# %%
args = (five,), "work/03_living_counted.onnx", {"nine": (nine,), "two": (nine[:2],)}
any_length = partial(export, dynamic_shapes=free)
counted = [cu.try_export(any_length, m, *args) for m in (by_number, by_tensor)]
counted

# %% [markdown]
# `x[i]` is refused, because it would turn the tensor `i` into a Python number. `index_select` keeps it a tensor, and
# the file is right for every length. Which operators have the three files, and is each right?

# %%
names = ("cond", "scan", "counted")
written = [
    set(cu.op_histogram(f"work/03_living_{name}.onnx").index) for name in names
]
cond = [
    cu.parity(Gate(), "work/03_living_cond.onnx", x).within
    for x in (positive, negative)
]
scans = [cu.parity(Scanned(), scanned, x).within for x in (five, nine)]
[{"If", "Scan", "Loop"} & found for found in written], cond, scans

# %% tags=["hide-input"]
cu.claim(
    "dynamo-export-is-the-future",
    {
        "torch.onnx.dynamo_export does not exist": not hasattr(
            torch.onnx, "dynamo_export"
        ),
        "it is the default of torch.onnx.export": torch.onnx.export.__kwdefaults__[
            "dynamo"
        ]
        is True,
        "it does not read a Python if over data": refused[0].verdict == "refuses",
        "it exports torch.cond as If": all(cond) and "If" in written[0],
        "it exports scan and while_loop": all(scans)
        and "Scan" in written[1]
        and counted[1].verdict == "right"
        and "Loop" in written[2],
        "it does not take a scripted module": refused[1].verdict == "refuses",
    },
)

# %% [markdown]
# ## Recap
#
# - The graphs of `If` read from the graph around them. The bodies of `Scan` and `Loop` also have inputs, and their order
#   connects them: states first, then rows.
# - Both sides of `torch.cond` give the same shape and dtype.
# - Use `scan` for the rows of a tensor, unless the number of steps depends on the data; then use `while_loop`.
# - Inside a body, a tensor stays a tensor: `index_select` in place of `x[i]`.
# - The report's `torch.onnx.dynamo_export` is gone. What it did is the default of `torch.onnx.export`.
#
# **Next:** tasks 3.1 and 3.2 of the [exercises](../exercises/03_tracing_vs_scripting.ipynb).
# **Deeper:** [Unknown operators](03_unknown_operators.ipynb).
