# %% [markdown]
# # 04 · Exercises: dynamic axes
#
# Six tasks. Each ends in a file in `work/` that `cu.check` looks at. The checks run your models with sizes that you
# have not seen.
#
# The names and numbers in the tasks are drawn from your id. Put your id between the quotes.

# %%
import course_utils as cu

cu.setup(student="guest")  # put your own id here

# %%
import json
from pathlib import Path

import numpy as np
import onnx
import torch

# %% [markdown]
# ## 4.1 Any batch
#
# An app has its pictures as flat rows: float32 `[batch, 784]`, 784 numbers from 0 to 255 for each picture, row by row
# from the top. Write a module that does the following:
#
# 1. divide by 255, subtract `mean`, divide by `std`;
# 2. give each row the shape 1×28×28;
# 3. give the pictures to `cu.fashion_resnet()`.
#
# Export it for any number of pictures. Input, output and the free dimension have the names drawn for you.

# %%
cu.params("4.1")

# %% [markdown]
# Save it as `work/4.1.onnx`, in one file (`external_data=False`).
#
# > **Hint** `dynamic_shapes` follows the arguments of `forward`, not the names in the file. In a `reshape`, -1 stands
# > for the size that is left over. Write `_ = torch.onnx.export(…, verbose=False)`: otherwise the notebook prints the
# > whole model.

# %%
# Task 4.1: write the module, and export it with a free batch
p = cu.params("4.1")


### BEGIN SOLUTION
class Flat(torch.nn.Module):
    def __init__(self, mean, std):
        super().__init__()
        self.net, self.mean, self.std = cu.fashion_resnet(), mean, std

    def forward(self, x):
        prepared = (x / 255 - self.mean) / self.std
        return self.net(prepared.reshape(-1, 1, 28, 28))


with cu.exporter_messages():
    torch.onnx.export(
        Flat(p["mean"], p["std"]).eval(),
        (torch.zeros(2, 784),),
        "work/4.1.onnx",
        input_names=[p["input"]],
        output_names=[p["output"]],
        dynamic_shapes=({0: p["name"]},),
        external_data=False,
        verbose=False,
    )
### END SOLUTION

# %%
cu.check("4.1", "work/4.1.onnx")

# %% [markdown] tags=["solution"]
# The preparation lies in the module, so the file holds it and every caller gets the same numbers. The `-1` in `reshape`
# leaves the batch free. A typical mistake is to write the example's batch there: the file then takes that size alone.
# To see it, run the file with another batch and compare with `cu.parity`. `x.reshape(x.shape[0], 1, 28, 28)` works as
# well.

# %% [markdown]
# ## 4.2 Any size
#
# Somebody gave the network other last layers: of each of the 64 maps, the mean and the maximum are mixed. At 28×28,
# where the maps are 7×7, it works. At other sizes it fails.

# %%
cu.params("4.2")


# %%
class Mixed(torch.nn.Module):
    def __init__(self, share):
        super().__init__()
        self.net, self.share = cu.fashion_resnet(), share

    def forward(self, x):
        maps = self.net.stage2(self.net.stage1(self.net.stem(x)))
        mean = torch.nn.functional.avg_pool2d(maps, 7)
        largest = torch.nn.functional.max_pool2d(maps, 7)
        mixed = self.share * mean + (1 - self.share) * largest
        return self.net.classifier(mixed.flatten(1))


# %% [markdown]
# Write a version that takes pictures of any height and width, in any batch: at every size, mean and maximum are taken
# over all of each map. Name the three free dimensions as drawn, the input `image`, the output `logits`. Save it as
# `work/4.2.onnx`.

# %%
# Task 4.2: change the class, and export it with three free dimensions
p = cu.params("4.2")


### BEGIN SOLUTION
class AnySize(Mixed):
    def forward(self, x):
        maps = self.net.stage2(self.net.stage1(self.net.stem(x)))
        mixed = self.share * maps.mean(dim=(2, 3)) + (1 - self.share) * maps.amax(
            dim=(2, 3)
        )
        return self.net.classifier(mixed)


with cu.exporter_messages():
    torch.onnx.export(
        AnySize(p["share"]).eval(),
        (torch.randn(2, 1, 28, 28),),
        "work/4.2.onnx",
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: p["batch"], 2: p["height"], 3: p["width"]},),
        external_data=False,
        verbose=False,
    )
### END SOLUTION

# %%
cu.check("4.2", "work/4.2.onnx")

# %% [markdown] tags=["solution"]
# A pooling window of 7 fits maps of 7×7 alone. A reduction over the dimensions 2 and 3 sees all of each map at every
# size, and at 28×28 gives the same numbers. A typical mistake is to name the dimensions and keep the window: larger
# pictures then give more windows, and the classifier refuses them. `adaptive_avg_pool2d` and `adaptive_max_pool2d` with
# size 1 are another road.

# %% [markdown]
# ## 4.3 Two inputs that share a length
#
# Write and export a network with two inputs:
#
# - `values`, float32 `[batch, length, 4]`,
# - `mask`, int64 `[batch, length]`: 1 for a step that counts, 0 for one that does not. At least one counts.
#
# Its output `result`, float32 `[batch, 4]`, is the mean of $\tanh(\mathrm{scale} \cdot v)$ over the steps that count,
# plus $\mathrm{shift}$. The names of batch and length, which both inputs share, and the two numbers are yours:

# %%
cu.params("4.3")

# %% [markdown]
# Save it as `work/4.3.onnx`. Take care of the example: a length of 2 or more (lesson 04 says why).

# %%
# Task 4.3: write the network and export it with linked dimensions
p = cu.params("4.3")


### BEGIN SOLUTION
class MaskedMean(torch.nn.Module):
    def __init__(self, scale, shift):
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, values, mask):
        weights = mask.unsqueeze(2).float()
        total = (torch.tanh(values * self.scale) * weights).sum(1)
        return total / weights.sum(1) + self.shift


with cu.exporter_messages():
    torch.onnx.export(
        MaskedMean(p["scale"], p["shift"]).eval(),
        (torch.randn(2, 7, 4), torch.ones(2, 7, dtype=torch.int64)),
        "work/4.3.onnx",
        input_names=["values", "mask"],
        output_names=["result"],
        dynamic_shapes=(
            {0: p["batch"], 1: p["length"]},
            {0: p["batch"], 1: p["length"]},
        ),
        external_data=False,
        verbose=False,
    )
### END SOLUTION

# %%
cu.check("4.3", "work/4.3.onnx")

# %% [markdown] tags=["solution"]
# A step with mask 0 adds nothing to the sum and nothing to the number of steps, so the quotient is the mean over the
# steps that count. The shared names say that both inputs have the same batch and length. A typical mistake is
# `mean(1)`: it divides by all steps, and a mask of ones does not show it. So compare with a mask that has zeros.

# %% [markdown]
# ## 4.4 Cure the over-specialised export
#
# This task belongs to [Against your wish](../deeper/04_against_your_wish.ipynb). This network works in PyTorch for any
# batch and for any length up to 48. Its export takes the sizes of the example only:


# %%
class Reader(torch.nn.Module):
    """x float32 [batch, length, 6] → y float32 [batch, 6]."""

    def __init__(self, seed, decay, start, length):
        super().__init__()
        table = np.random.default_rng(seed).normal(0, 1, (48, 6)).astype(np.float32)
        self.register_buffer("table", torch.from_numpy(table))
        self.decay, self.start = decay, start

    def forward(self, x):
        batch, length = int(x.shape[0]), int(x.shape[1])
        x = x + self.table[:length].reshape(1, length, 6)
        state = torch.full((batch, 6), self.start)
        for t in range(length):
            state = self.decay * state + x[:, t]
        return state


# %%
p = cu.params("4.4")
reader, example = Reader(**p).eval(), torch.randn(2, p["length"], 6)
free = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("length")},)
names = {"input_names": ["x"], "output_names": ["y"]}
with cu.exporter_messages():
    torch.onnx.export(
        reader,
        (example,),
        "work/4.4_first.onnx",
        **names,
        dynamic_shapes=free,
        external_data=False,
        verbose=False,
    )
cu.probe_sizes("work/4.4_first.onnx", example, reader)

# %% [markdown]
# Write a version whose file takes any batch (named `batch`) and any length up to 48 (named `length`), with the numbers
# of the old one. Save it as `work/4.4.onnx`; input `x`, output `y`.
#
# > **Hint** Each round of the loop multiplies everything before it by `decay`. How often has the start been multiplied
# > at the end? And the last step?


# %%
# Task 4.4: rewrite the network without sizes as Python numbers, and export it
### BEGIN SOLUTION
class Cured(Reader):
    def forward(self, x):
        x = x + self.table[: x.shape[1]]
        age = torch.arange(
            x.shape[1], -1, -1
        )  # of the start, of the first step, …, of the last one
        weights = (self.decay**age)[:, None]
        return (x * weights[1:]).sum(1) + self.start * weights[0]


with cu.exporter_messages():
    torch.onnx.export(
        Cured(**p).eval(),
        (example,),
        "work/4.4.onnx",
        **names,
        dynamic_shapes=({0: "batch", 1: "length"},),
        external_data=False,
        verbose=False,
    )
### END SOLUTION

# %%
cu.check("4.4", "work/4.4.onnx")

# %% [markdown] tags=["solution"]
# `int(x.shape[1])` and `range` fix the length while the program is exported. Written as a sum, the loop needs no round:
# each step has a power of `decay`, and the start has the highest one. `torch.arange` makes the exponents from the free
# length. A typical mistake is an exponent that is wrong by one, or weights in reverse order; a comparison at lengths 1
# and 2 shows both.

# %% [markdown]
# ## 4.5 Make it static again
#
# This task belongs to [Static again](../deeper/04_static_again.ipynb). An accelerator takes known sizes only. Here is a
# model with free ones, and the sizes that your accelerator wants:

# %%
cu.show(cu.given("4.5"), height=380)

# %%
cu.tensor_table(cu.given("4.5"))

# %%
cu.params("4.5")

# %% [markdown]
# Put the numbers in place of the names, at the input, at the output, and in every tensor inside. One tensor inside has
# a formula for a size. Save the model as `work/4.5.onnx`. It must compute the same. Every inner tensor that has a shape
# in the given file must have a shape of numbers in yours.

# %%
# Task 4.5: fix all dimensions and save the model as work/4.5.onnx
model = onnx.load(cu.given("4.5"))
p = cu.params("4.5")
### BEGIN SOLUTION
from onnxruntime.tools.onnx_model_utils import (
    fix_output_shapes,
    make_dim_param_fixed,
)

for name in ("batch", "length"):
    make_dim_param_fixed(model.graph, name, p[name])
fix_output_shapes(model)
del model.graph.value_info[:]
onnx.save(onnx.shape_inference.infer_shapes(model), "work/4.5.onnx")
### END SOLUTION

# %%
cu.check("4.5", "work/4.5.onnx")

# %% [markdown] tags=["solution"]
# With numbers at the input, shape inference can compute every other size, also the one with the formula. Old entries in
# `value_info` would stay, so they are deleted first. A typical mistake is to replace the names alone: the formula is
# another string and stays free. `cu.tensor_table` shows each tensor that still has a name. Another road is to write
# each number by hand.

# %% [markdown]
# ## 4.6 Four suspects
#
# Four files, exported by four people. All were meant to compute `factor * x.sum(axis=1)` for an `x` of shape
# `[batch, length, 3]`, and all were tried out with the same example length. Which one can you trust, and up to which
# length?

# %%
cu.given("4.6")

# %%
cu.params("4.6")

# %% [markdown]
# Write `work/4.6.json`, a dict with the keys `a`, `b`, `c`, `d`. Each value is a list of a word and a number, such as
# `["only", 20]`. The word says what the file does at other lengths than the example's, up to 64:
#
# | word | other lengths |
# |---|---|
# | `"free"` | are taken, and the numbers are right |
# | `"frozen"` | are refused, and the file says so |
# | `"only"` | are refused from some length on, although the file says any |
# | `"wrong"` | are taken, but from some length on the numbers are wrong |
#
# The number is the greatest length, up to 64, at which the file gives the right numbers. The check says how many of the
# four are right, not which.
#
# > **Hint** `cu.probe_sizes(path, example, module, sizes=range(1, 65))` tries these sizes, and compares with any
# > PyTorch module, also with one that you write.

# %%
# Task 4.6: probe the four files and write the answer
paths, p = cu.given("4.6"), cu.params("4.6")


### BEGIN SOLUTION
class Meant(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x.sum(1)


example, meant = torch.randn(2, p["example"], 3), Meant(p["factor"])
answer = {}
for path in paths:
    probe = cu.probe_sizes(path, example, meant, sizes=range(1, 65))
    length = probe.iloc[1]
    if isinstance(length["the file says"], int):
        word = "frozen"
    else:
        word = (
            "only"
            if length["refused"]
            else "wrong"
            if length["wrong numbers"]
            else "free"
        )
    answer[path.stem[-1]] = [word, int(length["works"].split(", ")[-1])]
Path("work/4.6.json").write_text(json.dumps(answer))
### END SOLUTION

# %%
cu.check("4.6", "work/4.6.json")

# %% [markdown] tags=["solution"]
# A declared shape is a promise, and only a run tests it. `frozen` shows in the declaration; `only` and `wrong` declare
# a free length and break at run time, one with an error and one without. A typical mistake is to accept a file because
# it runs: wrong numbers appear only in a comparison with PyTorch. Trying one or two lengths can miss the limit, so all
# sizes are probed.

# %% [markdown]
# ## Hand in
#
# `cu.submit()` packs all answers that were checked into one file. Give that file to your instructor, or keep it.

# %%
if Path("work/answers").exists():
    cu.submit()
