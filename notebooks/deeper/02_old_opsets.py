# %% [markdown]
# # 02 · Old opsets
#
# Your model will run on a device that was built years ago. Its software reads opset 9, and nobody will update it. Can
# your model be written there at all? Which operations came later?
#
# You need the [core of lesson 02](../02_opsets.ipynb).
#
# After this page you will be able to
#
# - find the lowest opset that has all operators and attributes which you need,
# - write a convolutional network in opset 7,
# - see why a file in an old opset can be wrong without an error.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Convolutional networks
#
# The report names three dates. The first one: opsets 7 to 9 cover the basic operators of convolutional networks. Each
# [opset](../glossary.md#opset) leaves its traces in the history. Here are the operators of our network and of its
# relatives, by the opset that brought them:

# %%
history = cu.operator_history()
first = history[history["event"] == "new"].set_index("operator")["opset"]
cnn = ["Conv", "ConvTranspose", "BatchNormalization", "Relu", "MaxPool", "Add"]
cnn += ["AveragePool", "GlobalAveragePool", "Concat", "Gemm", "Flatten"]
cnn += ["Dropout", "Softmax"]
first[cnn].reset_index().groupby("opset")["operator"].agg(", ".join).to_frame()

# %% [markdown]
# All of them are as old as ONNX itself. But an operator that exists must also be written. The older
# [exporter](../glossary.md#exporter), `dynamo=False`, still
# [writes such opsets](https://docs.pytorch.org/docs/stable/onnx_torchscript.html):

# %%
import onnx
import torch

model, image = cu.fashion_resnet(), torch.randn(2, 1, 28, 28)
seven, nine, eleven = ({"dynamo": False, "opset_version": n} for n in (7, 9, 11))

# %%
with cu.exporter_messages():
    torch.onnx.export(model, (image,), "work/02_old_7.onnx", **seven)
parity_7 = cu.parity(model, "work/02_old_7.onnx", image)
parity_7

# %% [markdown]
# The file gives PyTorch's numbers. The same in opset 9, and a look at both files:

# %%
with cu.exporter_messages():
    torch.onnx.export(model, (image,), "work/02_old_9.onnx", **nine)
parity_9 = cu.parity(model, "work/02_old_9.onnx", image)
[onnx.load(f"work/02_old_{n}.onnx").opset_import[0].version for n in (7, 9)]

# %% [markdown]
# Each file is in the opset that we asked for. So a convolutional network can go to a very old device.

# %% tags=["hide-input"]
cu.claim(
    "opset-history-cnn",
    {
        "every operator of our list exists in opset 7": (first[cnn] <= 7).all(),
        "our network, written in opset 7 and 9, gives PyTorch's numbers": (
            parity_7.within and parity_9.within
        )
        and [
            onnx.load(f"work/02_old_{n}.onnx").opset_import[0].version
            for n in (7, 9)
        ]
        == [7, 9],
        "none of the operators was new in opsets 7 to 9": not first[cnn]
        .between(7, 9)
        .any(),
        "but some were changed there": (
            history["operator"].isin(cnn) & history["opset"].between(7, 9)
        ).any(),
    },
)

# %% [markdown]
# ## 8-bit integers
#
# The second date: opset 10 brought 8-bit integers ([quantization](../glossary.md#quantization)). The names of the
# operators tell what they are for:

# %%
integer = first[first.index.str.contains("(?i)quantize|qlinear|integer")]
integer.reset_index().groupby("opset")["operator"].agg(", ".join).to_frame()


# %% [markdown]
# To be sure, we write a model that turns numbers into 8-bit integers and back. We say that it is in opset 10, and then
# that it is in opset 9.


# %%
def quantizer(opset):
    return onnx.parser.parse_model(f"""<ir_version: 5, opset_import: ["": {opset}]>
        g (float[4] x) => (float[4] y) <float s = {{0.5}}, int8 zero = {{0}}>
        {{ q = QuantizeLinear(x, s, zero)
           y = DequantizeLinear(q, s, zero) }}""")


onnx.checker.check_model(quantizer(10), full_check=True)
try:
    onnx.checker.check_model(quantizer(9), full_check=True)
except onnx.checker.ValidationError as error:
    complaint = str(error).strip().splitlines()[0]
print(complaint)

# %% [markdown]
# Opset 10 accepts the model, opset 9 does not know the operator. A quantized model needs at least opset 10.

# %% tags=["hide-input"]
cu.claim(
    "opset-history-int8",
    {
        "all operators for 8-bit integers came with opset 10 or later": integer.min()
        == 10,
        "opset 9 does not know QuantizeLinear": "No Op registered for QuantizeLinear"
        in complaint,
        "opset 10 does": onnx.checker.check_model(quantizer(10), full_check=True)
        is None,
    },
)

# %% [markdown]
# ## Audio and transformers
#
# The third date: opsets 13 to 17 brought operators for audio and transformers. What did each opset from 13 on bring?

# %% tags=["remove-input"]
cu.quiz("02_old_opsets", 1)

# %%
import pandas as pd

brought = {opset: ", ".join(first[first == opset].index) for opset in range(13, 25)}
pd.Series(brought, name="new operators").replace("", "nothing new").to_frame()

# %% [markdown]
# Nearly all of them came with opset 17. A missing operator does not stop an export: an exporter can write `LayerNormalization`
# as a mean, a difference, a square root. That works in any opset and runs more slowly, unless the runtime
# [joins](../glossary.md#fusion) the pieces again.

# %% tags=["hide-input"]
cu.claim(
    "opset-history-audio",
    {
        "opset 13 brought no operator at all": not (first == 13).any(),
        "all operators for audio came with opset 17": (
            first[
                [
                    "DFT",
                    "STFT",
                    "HannWindow",
                    "HammingWindow",
                    "BlackmanWindow",
                    "MelWeightMatrix",
                ]
            ]
            == 17
        ).all(),
        "so did LayerNormalization, which many transformers use": first[
            "LayerNormalization"
        ]
        == 17,
        "other operators of transformers came later": (
            first[["Gelu", "Attention", "RMSNormalization"]] > 17
        ).all(),
    },
)

# %% [markdown]
# ## A file without an error can be wrong
#
# The report says that some kinds of interpolation cannot be exported to an old opset such as 9. The core shows that the
# older exporter refuses *bicubic* there. What about *bilinear*? It is the usual way to enlarge a picture.

# %%
bilinear = torch.nn.Upsample(scale_factor=2, mode="bilinear").eval()
with cu.exporter_messages():
    torch.onnx.export(bilinear, (image,), "work/02_bilinear_9.onnx", **nine)
onnx.checker.check_model("work/02_bilinear_9.onnx", full_check=True)

# %% [markdown]
# No error, and the checker accepts the file. We compare its numbers with PyTorch's.

# %% tags=["remove-input"]
cu.quiz("02_old_opsets", 2)

# %%
bilinear_9 = cu.parity(bilinear, "work/02_bilinear_9.onnx", image)
bilinear_9

# %% [markdown]
# The numbers are wrong. The operator of opset 9, `Upsample`, cannot say where the points of a picture lie. `Resize` of
# opset 11 can, with the attribute `coordinate_transformation_mode`. So we ask for 11:

# %%
with cu.exporter_messages():
    torch.onnx.export(bilinear, (image,), "work/02_bilinear_11.onnx", **eleven)
bilinear_11 = cu.parity(bilinear, "work/02_bilinear_11.onnx", image)
bilinear_11

# %% [markdown]
# That is right. Now all three kinds, with both exporters, in opset 9:

# %%
enlarged = {}
default = {"opset_version": 9, "external_data": False, "verbose": False}
for mode in ("nearest", "bilinear", "bicubic"):
    layer = torch.nn.Upsample(scale_factor=2, mode=mode).eval()
    for name, options in {"older": nine, "default": default}.items():
        file = f"work/02_{mode}_{name}.onnx"
        try:
            with cu.exporter_messages():
                torch.onnx.export(layer, (image,), file, **options)
            enlarged[mode, name] = file, cu.parity(layer, file, image).within
        except torch.onnx.errors.UnsupportedOperatorError:
            enlarged[mode, name] = None, False

# %%
rows = {
    case: (file and onnx.load(file).opset_import[0].version, right)
    for case, (file, right) in enlarged.items()
}
outcome = pd.DataFrame(rows, index=["opset written", "right"]).T
outcome

# %% [markdown]
# The older exporter gives three different answers: right, wrong, refused. The error is the harmless case. The default
# exporter writes all three in a newer opset, and right; but the old device will not load them.

# %% tags=["hide-input"]
cu.claim(
    "interpolation-in-old-opset",
    {
        "bicubic is refused by the older exporter": rows["bicubic", "older"][0]
        is None,
        "nearest is in opset 9, and right": rows["nearest", "older"] == (9, True),
        "bilinear is in opset 9, and its numbers are wrong": rows[
            "bilinear", "older"
        ]
        == (9, False)
        and not bilinear_9.within,
        "in opset 11, where an attribute says how the points lie, it is right": bilinear_11.within
        and onnx.load("work/02_bilinear_11.onnx").opset_import[0].version == 11
        and "coordinate_transformation_mode"
        in onnx.defs.get_schema("Resize", 11).attributes
        and "coordinate_transformation_mode"
        not in onnx.defs.get_schema("Upsample", 9).attributes,
        "the default exporter writes all three in a newer opset, and right": all(
            rows[mode, "default"][0] > 9 and rows[mode, "default"][1]
            for mode in ("nearest", "bilinear", "bicubic")
        ),
    },
)

# %% [markdown]
# ## Recap
#
# - The operators of convolutional networks are in every opset, 8-bit integers from 10 on, audio from 17 on.
# - `cu.operator_history()` says when an operator came. The opset of the newest operator is a lower limit. A model
#   can need a later one, for an attribute or a type: `Resize` came in 10, its setting for PyTorch's bilinear in 11.
# - For an opset below 18 use `dynamo=False`, unless the default exporter delivers it: read the opset from the file.
# - A file in an old opset needs a comparison of numbers. The checker cannot see that `Upsample` means something else.
#
# **Back:** [02 · Opsets](../02_opsets.ipynb). **Next:** [converting](02_converter.ipynb).
