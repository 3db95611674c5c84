# %% [markdown]
# # 08 · Phones
#
# An app shall classify what its camera sees. The report promises the speed of the phone's NPU for one line of code. Most
# that decides about it can be seen without a phone: which shapes and which operators the file has.
#
# You need the [core of lesson 08](../08_deployment.ipynb). Nothing on this page was run on a phone.
#
# After this page you will be able to
#
# - ask the usability checker about a model, and read its verdict,
# - say what a free batch, a missing operator and int8 cost on NNAPI and CoreML,
# - find out when the checker is wrong.

# %%
import course_utils as cu

cu.setup()
home = cu.course_files("model", "work/08_phones")

# %% [markdown]
# ## Will the accelerator take it?
#
# On Android the provider is NNAPI, on Apple's systems
# [CoreML](https://onnxruntime.ai/docs/execution-providers/CoreML-ExecutionProvider.html). Each supports a list of
# operators. The [usability checker](https://onnxruntime.ai/docs/tutorials/mobile/helpers/model-usability-checker.html)
# compares a model with these lists. A phone shows one picture at a time, so we fix the batch first.

# %%
import onnx
import onnxruntime as ort
from onnxruntime.tools.make_dynamic_shape_fixed import make_dim_param_fixed

fixed = onnx.load(home / "model.onnx")
make_dim_param_fixed(fixed.graph, "batch", 1)
onnx.save(fixed, home / "fixed.onnx")

# %% [markdown]
# The checker wants a model that was simplified (level *basic*) and has all shapes written into it:

# %%
from onnxruntime.tools.mobile_helpers import usability_checker as checker

model = cu.prepared_for_checker(home / "fixed.onnx")
found = checker.check_nnapi_partitions(model, True)
found.suitability().name, found.num_partitions

# %% [markdown]
# YES, in one piece. The verdict mostly counts pieces: YES means one piece with more than three quarters of the nodes. With
# two pieces it is MAYBE at best, with three it is NO, because between two pieces the data go to the CPU and back.
#
# Three more models. In the first, the label at the end is cut off: the app finds the largest probability itself.

# %%
ends = ["pixels"], ["probability"]
onnx.utils.extract_model(home / "fixed.onnx", home / "no_label.onnx", *ends)

# %% [markdown]
# The second is ours in int8, as in [lesson 07](../07_quantization.ipynb).

# %%
from onnxruntime.quantization import quant_pre_process, quantize_static

ready, int8 = home / "ready.onnx", home / "int8.onnx"
quant_pre_process(home / "fixed.onnx", ready, skip_symbolic_shape=True)
pictures = {"pixels": cu.fashion_mnist("calibration")[0][:200]}
data = cu.Calibration(ready, pictures, batch=1)
quantize_static(ready, int8, data, per_channel=True)

# %% [markdown]
# The third is unfriendly on purpose: every other operator is one that accelerators seldom have.

# %%
text = """<ir_version: 8, opset_import: ["": 17]>
    g (float[1, 16, 8, 8] x) => (float[1, 16, 8, 8] y) <int64 axis = {1}> {
        a = Relu(x)  b = Mod<fmod = 1>(a, x)  c = Sigmoid(b)
        d = CumSum(c, axis)  e = Tanh(d)  f = Sign(e)  y = Add(f, a)
    }"""
onnx.save(onnx.parser.parse_model(text), home / "unfriendly.onnx")

# %% [markdown]
# `cu.usability` asks the checker about each of them. CoreML has two kinds of models, an older and a newer one
# (*MLProgram*), with a list each.

# %%
import pandas as pd

files = "model", "fixed", "no_label", "int8", "unfriendly"
tables = {file: cu.usability(home / f"{file}.onnx") for file in files}
pd.concat(tables)

# %% [markdown]
# - With a **free batch** NNAPI takes no node. CoreML may take them, more slowly, and the checker counts that as a no. The server wants a free batch, so a phone gets a file of its
#   own.
# - **Fixed**, the model lacks `ArgMax` only, at the very end. **Without the label**, NNAPI and the newer kind of CoreML take
#   every node.
# - **int8** is fine for NNAPI. CoreML's list has no `QuantizeLinear`, so the graph is cut into many pieces.
# - The **unfriendly** model changes sides at every other node. Each change is a copy.

# %%
new, verdicts = "CoreML MLProgram", pd.concat(tables)
assert (verdicts.loc["model", "pieces"] == 0).all()
for target in ("NNAPI", new):
    assert verdicts.loc[("no_label", target), "lacks"] == ""
    assert verdicts.loc[("fixed", target), "lacks"] in ("ArgMax", "")
    assert verdicts.loc[("fixed", target), "verdict"] == "YES"

# %% [markdown]
# Is NNAPI here at all?

# %%
name = "NnapiExecutionProvider"
known, available = ort.get_all_providers(), ort.get_available_providers()
{"ONNX Runtime knows it": name in known, "it is here": name in available}

# %% [markdown]
# It comes in the packages for Android only. There, `addNnapi()` is a request, not a result. And Google marked NNAPI as
# [deprecated](https://developer.android.com/ndk/guides/neuralnetworks/migration-guide) in Android 15. Instead there are, as
# far as documentation goes (*none of it was run here*):
#
# | way | what it is |
# |---|---|
# | XNNPACK provider | fast routines for the CPU of the phone; `addXnnpack()`, in the Android package |
# | QNN provider | the NPU of Qualcomm's chips; mostly for quantized models |
# | WebGPU provider | the graphics processor |
# | LiteRT | Google's own runtime; it reads `.tflite`, not ONNX |
#
# Start with the CPU: for a small model it is often enough, and it is the same on every phone.
#
# And CoreML's list: how much smaller is it than ONNX?

# %%
import re
from pathlib import Path

path = Path(checker.__file__).with_name("coreml_supported_mlprogram_ops.md")
text = path.read_text()
listed = set(re.findall(r"^\|ai\.onnx:(\w+)\|", text, re.MULTILINE))

# %% [markdown]
# Now ONNX's own operators, and both beside each other:

# %%
schemas = onnx.defs.get_all_schemas()
current = {s.name for s in schemas if not s.domain and not s.deprecated}
{"ONNX": len(current), "CoreML": len(listed & current), "unknown": listed - current}

# %% [markdown]
# The checker looks a name up in the list, letter by letter. The last entry shows names that ONNX does not know. Where a list
# has such a misspelling, the checker says that the operator is missing. In the versions of this course that happened to
# our `ArgMax`. So a "no" is a hint, and the device has the last word.

# %%
operators = {node.op_type for node in model.graph.node}
assert verdicts.loc[("fixed", new), "lacks"] == ", ".join(operators - listed)
operators - listed

# %% tags=["hide-input"]
cu.claim(
    "android-nnapi-flag",
    {
        "the provider exists": name in known,
        "but only in the packages for Android": name not in available,
        "a model with a free batch gives it no node": verdicts.loc[
            ("model", "NNAPI"), "pieces"
        ]
        == 0,
        "the same model with a fixed batch suits it": verdicts.loc[
            ("fixed", "NNAPI"), "verdict"
        ]
        == "YES",
        "so does the int8 model": verdicts.loc[("int8", "NNAPI"), "verdict"]
        == "YES",
        "an unfriendly model does not": verdicts.loc[
            ("unfriendly", "NNAPI"), "verdict"
        ]
        == "NO",
    },
)

# %% tags=["hide-input"]
cu.claim(
    "coreml-limited-ops",
    {
        "CoreML lists less than half of ONNX": len(listed & current)
        < len(current) / 2,
        "our model in float32 fits": verdicts.loc[("fixed", new), "verdict"]
        == "YES",
        "in one piece": verdicts.loc[("fixed", new), "pieces"] == 1,
        "in int8 it is cut into many pieces": verdicts.loc[("int8", new), "pieces"]
        > 10,
        "because QuantizeLinear is missing": "QuantizeLinear"
        in verdicts.loc[("int8", new), "lacks"],
        "the rest stays with the CPU": verdicts.loc[("unfriendly", new), "nodes"]
        != "7/7",
    },
)

# %% [markdown]
# ## Recap
#
# - Give a phone a file with fixed shapes. Look at the number of pieces: one is good, three are too many.
# - Use the CPU unless the accelerator takes one large piece **and** the device is measurably faster with it.
# - The checker compares spellings. The device decides.
#
# **Now you:** task 8.3 of the [exercises](../exercises/08_deployment.ipynb). **Next:**
# [A file for an app](08_ort_format.ipynb).
