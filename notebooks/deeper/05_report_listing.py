# %% [markdown]
# # 05 · The report's listing
#
# You copy eight lines from a report or a chat, and they stop with an error. The lines show how a session is used. The
# idea is right, three details are not. We run them, and repair one fault after the other.
#
# You need the [core of lesson 05](../05_execution_providers.ipynb).
#
# After this page you will be able to
#
# - tell from the message which part of such a listing is wrong,
# - say what `get_inputs` and `run` return,
# - write the pattern of every program that uses ONNX Runtime.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## As printed
#
# The report shows an [`InferenceSession`](https://onnxruntime.ai/docs/api/python/api_summary.html) in eight lines. Here
# they are:

# %%
printed = """
import onnxruntime as ort
import numpy as np
providers =
session = ort.InferenceSession("resnet_dynamic.onnx", providers=providers)
input_name = session.get_inputs().name
input_data = np.random.randn(1, 3, 224, 224).astype(np.float32)
outputs = session.run(None, {input_name: input_data})
print("result:", outputs.shape)
"""

# %% [markdown]
# They need a model that takes any number of colour pictures. A very small one is enough: it has one node, which takes
# the mean of each colour.

# %%
import onnx

tiny = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[N, 3, 224, 224] image) => (float[N, 3, 1, 1] mean) {
        mean = GlobalAveragePool(image) }""")
onnx.save(tiny, "work/05_dynamic.onnx")

# %% [markdown]
# The first question is whether Python can read the lines at all:

# %%
try:
    compile(printed, "the listing", "exec")
except SyntaxError as error:
    unreadable = error
unreadable.lineno, unreadable.msg

# %% [markdown]
# It cannot. Line 4 has lost the list of providers, so there is nothing after the `=`.
#
# ## Repair, and run
#
# `outcome` runs a version of the listing with our small model. It returns what the version prints, or the error that
# stops it.

# %%
import contextlib
import io


def outcome(code):
    shown = io.StringIO()
    try:
        with contextlib.redirect_stdout(shown):
            exec(code.replace("resnet_dynamic", "work/05_dynamic"), {})
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return shown.getvalue().strip()


# %% [markdown]
# The first repair puts a list of providers in:

# %%
cpu = 'providers = ["CPUExecutionProvider"]'
first = printed.replace("providers =\n", f"{cpu}\n")
outcome(first)

# %% [markdown]
# Now the model is loaded, and the next line fails. A model can have several inputs, so `get_inputs()` returns a
# **list**. We take its first entry:

# %% tags=["remove-input"]
cu.quiz("05_report_listing", 1)

# %%
second = first.replace("get_inputs().", "get_inputs()[0].")
outcome(second)

# %% [markdown]
# The model ran. The last line failed: `run` returns a list, too, with one array per output.

# %%
third = second.replace("outputs.shape", "outputs[0].shape")
outcome(third)

# %% [markdown]
# Three repairs, and it runs. The report's idea is the pattern of every program with ONNX Runtime: create the session
# **once**, then call `run` with a dict of arrays, and get a list of arrays.

# %% tags=["hide-input"]
cu.claim(
    "report-session-snippet",
    {
        "as printed it is not Python": outcome(printed).startswith("SyntaxError")
        and unreadable.lineno == 4,
        "get_inputs() returns a list, which has no name": "'list' object has no "
        "attribute 'name'" in outcome(first),
        "run() returns a list, which has no shape": "'list' object has no "
        "attribute 'shape'" in outcome(second),
        "with three repairs it runs": outcome(third) == "result: (1, 3, 1, 1)",
    },
)

# %% [markdown]
# ## Recap
#
# - `providers` must be a list. Name the providers that you want, and the CPU last.
# - `get_inputs()`, `get_outputs()` and `run()` return lists, also when there is only one entry.
# - Create a session once, and call `run` as often as you need.
#
# **Back:** [05 · Execution providers](../05_execution_providers.ipynb). **Deeper:**
# [data in and out](05_data_in_and_out.ipynb).
