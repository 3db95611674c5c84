# %% [markdown]
# # 04 · Exercises: dynamic axes
#
# Six tasks. Each ends in a file in `work/` that `cu.check` looks at. The checks run your models with sizes that you have
# not seen.
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
# Export `cu.fashion_resnet()` so that it takes any number of pictures. Input, output and the free dimension have the
# names drawn for you. Height and width stay 28.

# %%
cu.params("4.1")

# %% [markdown]
# Save it as `work/4.1.onnx`, in one file (`external_data=False`).
#
# > **Hint** `dynamic_shapes` follows the arguments of `forward`, not the names in the file.

# %%
# Task 4.1: export with a free batch
p = cu.params("4.1")
### BEGIN SOLUTION
with cu.exporter_messages():
    torch.onnx.export(
        cu.fashion_resnet(),
        (torch.randn(2, 1, 28, 28),),
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

# %% [markdown]
# ## 4.2 Any size
#
# Somebody rewrote the last layers of the network. At 28×28 it computes the same as before. At other sizes it fails, or
# looks at one corner of the picture only.


# %%
class Rewritten(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = cu.fashion_resnet()

    def forward(self, x):
        maps = self.net.stage2(self.net.stage1(self.net.stem(x)))  # 64 maps, 7×7 for a picture of 28×28
        pooled = torch.nn.functional.avg_pool2d(maps, 7)
        return self.net.classifier(pooled.flatten(1))


# %%
cu.params("4.2")

# %% [markdown]
# Write a version that takes pictures of any height and width, in any batch, and computes what `cu.fashion_resnet()`
# computes at that size. Name the three free dimensions as drawn, the input `image`, the output `logits`. Save it as
# `work/4.2.onnx`.

# %%
# Task 4.2: change the class, and export it with three free dimensions
p = cu.params("4.2")


### BEGIN SOLUTION
class AnySize(Rewritten):
    def forward(self, x):
        maps = self.net.stage2(self.net.stage1(self.net.stem(x)))
        return self.net.classifier(maps.mean(dim=(2, 3)))


with cu.exporter_messages():
    torch.onnx.export(
        AnySize().eval(),
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

# %% [markdown]
# ## 4.3 Two inputs that share a length
#
# Write and export a network with two inputs:
#
# - `values`, float32 `[batch, length, 4]`,
# - `mask`, int64 `[batch, length]`: 1 for a step that counts, 0 for one that does not. At least one counts.
#
# Its output `mean`, float32 `[batch, 4]`, is the mean of $\tanh(\mathrm{scale} \cdot v)$ over the steps that count, plus
# $\mathrm{shift}$. The names of batch and length, which both inputs share, and the two numbers are yours:

# %%
cu.params("4.3")

# %% [markdown]
# Save it as `work/4.3.onnx`. Take care of the example: a length of 2 or more (lesson 04 says why).

# %%
# Task 4.3: write the network and export it with linked dimensions
p = cu.params("4.3")


### BEGIN SOLUTION
class MaskedMean(torch.nn.Module):
    def forward(self, values, mask):
        weights = mask.unsqueeze(2).float()
        return (torch.tanh(values * p["scale"]) * weights).sum(1) / weights.sum(1) + p["shift"]


with cu.exporter_messages():
    torch.onnx.export(
        MaskedMean().eval(),
        (torch.randn(2, 7, 4), torch.ones(2, 7, dtype=torch.int64)),
        "work/4.3.onnx",
        input_names=["values", "mask"],
        output_names=["mean"],
        dynamic_shapes=({0: p["batch"], 1: p["length"]}, {0: p["batch"], 1: p["length"]}),
        external_data=False,
        verbose=False,
    )
### END SOLUTION

# %%
cu.check("4.3", "work/4.3.onnx")

# %% [markdown]
# ## 4.4 Cure the over-specialised export
#
# This network works in PyTorch for any batch and for any length up to 48. Its export does not: see for yourself.


# %%
class Reader(torch.nn.Module):
    """x float32 [batch, length, 6] → y float32 [batch, 6]."""

    def __init__(self, seed, decay, length):
        super().__init__()
        table = np.random.default_rng(seed).normal(0, 1, (48, 6)).astype(np.float32)
        self.register_buffer("table", torch.from_numpy(table))
        self.decay = decay

    def forward(self, x):
        batch, length = int(x.shape[0]), int(x.shape[1])
        x = x + self.table[:length].reshape(1, length, 6)
        state = torch.zeros(batch, 6)
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
        reader, (example,), "work/4.4_first.onnx", **names, dynamic_shapes=free, external_data=False, verbose=False
    )
cu.probe_sizes("work/4.4_first.onnx", example, reader)

# %% [markdown]
# Write a version whose file takes any batch (named `batch`) and any length up to 48 (named `length`), with the numbers of
# the old one. Save it as `work/4.4.onnx`; input `x`, output `y`.
#
# > **Hint** Each round of the loop multiplies everything before it by `decay`. How often has the first step been
# > multiplied at the end? And the last one?


# %%
# Task 4.4: rewrite the network without sizes as Python numbers, and export it
### BEGIN SOLUTION
class Cured(Reader):
    def forward(self, x):
        x = x + self.table[: x.shape[1]]
        age = torch.arange(x.shape[1] - 1, -1, -1)
        return (x * (self.decay**age)[:, None]).sum(1)


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

# %% [markdown]
# ## 4.5 Make it static again
#
# An accelerator takes known sizes only. Here is a model with free ones, and the sizes that your accelerator wants:

# %%
cu.show(cu.given("4.5"), height=380)

# %%
cu.tensor_table(cu.given("4.5"))

# %%
cu.params("4.5")

# %% [markdown]
# Put the numbers in place of the names, at the input, at the output, and in every tensor inside. Save the model as
# `work/4.5.onnx`. It must compute the same, and all tensors inside that have a shape now must have one then.

# %%
# Task 4.5: fix all dimensions and save the model as work/4.5.onnx
model = onnx.load(cu.given("4.5"))
p = cu.params("4.5")
### BEGIN SOLUTION
from onnxruntime.tools.onnx_model_utils import fix_output_shapes, make_dim_param_fixed

for name in ("batch", "length"):
    make_dim_param_fixed(model.graph, name, p[name])
fix_output_shapes(model)
del model.graph.value_info[:]
onnx.save(onnx.shape_inference.infer_shapes(model), "work/4.5.onnx")
### END SOLUTION

# %%
cu.check("4.5", "work/4.5.onnx")

# %% [markdown]
# ## 4.6 Four suspects
#
# Four files, exported by four people. All were meant to compute `factor * x.sum(axis=1)` for an `x` of shape
# `[batch, length, 3]`, and all were exported with the same example length. Which one can you trust?

# %%
cu.given("4.6")

# %%
cu.params("4.6")

# %% [markdown]
# Write `work/4.6.json`, a dict with the keys `a`, `b`, `c`, `d`. Each value is one of
#
# | value | other lengths than the example's |
# |---|---|
# | `"free"` | are taken, and the numbers are right |
# | `"frozen"` | are refused, and the file says so |
# | `"only"` | are refused, although the file says any |
# | `"wrong"` | are taken, but some give wrong numbers |
#
# > **Hint** `cu.probe_sizes` can compare with any PyTorch module, also with one that you write.

# %%
# Task 4.6: probe the four files and write the answer
paths, p = cu.given("4.6"), cu.params("4.6")


### BEGIN SOLUTION
class Meant(torch.nn.Module):
    def forward(self, x):
        return p["factor"] * x.sum(1)


kinds = {"free": "free", "wrong numbers, without an error": "wrong"}
answer = {}
for path in paths:
    probe = cu.probe_sizes(path, torch.randn(2, p["example"], 3), Meant())
    length = probe.iloc[1]
    refused = "frozen" if isinstance(length["the file says"], int) else "only"
    answer[path.stem[-1]] = kinds.get(length["verdict"], refused)
Path("work/4.6.json").write_text(json.dumps(answer))
### END SOLUTION

# %%
cu.check("4.6", "work/4.6.json")

# %% [markdown]
# ## Hand in
#
# `cu.submit()` packs all answers that were checked into one file. Give that file to your instructor, or keep it.

# %%
if Path("work/answers").exists():
    cu.submit()
