# %% [markdown]
# # 05 · Telemetry
#
# Your program runs in a hospital, and the firewall reports that it asks for a server of Microsoft. You did not write
# such a line. Since version 1.29 the official packages of ONNX Runtime send **telemetry**: events about the library and
# the machine ([what and how](https://github.com/microsoft/onnxruntime/blob/main/docs/Privacy.md)).
#
# You need the [core of lesson 05](../05_execution_providers.ipynb).
#
# After this page you will be able to
#
# - switch telemetry off, at the right place in a program,
# - see for yourself which names a program looks up and which files it writes,
# - say why a test in a build service does not see it.

# %% [markdown]
# ## Off, and is it really off?
#
# The course switches telemetry off. `import course_utils` sets a variable of the environment, and ONNX Runtime reads it
# once, when it is imported. So the course must be imported **first**:

# %%
import os

import course_utils as cu

cu.setup()
os.environ["ORT_DISABLE_TELEMETRY"]

# %% [markdown]
# Does it help? We need a model and a program that uses it. The program creates a session and then lives for 12 seconds,
# because the first event is sent some seconds after the import.

# %%
import onnx

model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    g (float[N] x) => (float[N] y) { y = Relu(x) }""")
onnx.save(model, "work/05_telemetry.onnx")

# %%
program = """
import time
import course_utils
import onnxruntime as ort
path = "work/05_telemetry.onnx"
session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
time.sleep(12)
"""

# %% [markdown]
# `cu.watch_lookups` runs it in a process of its own, without a network. There is only a name server, which writes down
# each name that it is asked for. This needs Linux; elsewhere the page uses the record of the next section.

# %%
watched = cu.watch_lookups(program)
record = cu.telemetry_record()
silent = "ORT_DISABLE_TELEMETRY=1 before the import"
here = watched.result() if watched else record["runs"][silent]
here

# %% [markdown]
# No look-up, and no file. With the variable set, the session is silent.
#
# ## What happens without the variable
#
# Such a program sends, so this page does not run it. It was recorded without a network: five programs, each of which
# lived for 40 seconds. On Linux, `python -m course_utils.lab.lookups` repeats the record, cut off in the same way.

# %%
record["date"], record["versions"], record["machine"]["system"]

# %% [markdown]
# What did each of the five programs do?

# %% tags=["remove-input"]
cu.quiz("05_telemetry", 1)

# %%
import pandas as pd

runs = pd.DataFrame(record["runs"]).T
runs["look-ups"] = runs["lookups"].map(len)
runs["names"] = [sorted({name for _, name in asked}) for asked in runs["lookups"]]
runs["device id"] = [any("deviceid" in f for f in files) for files in runs["files"]]
runs[["look-ups", "names", "device id"]]

# %% [markdown]
# The import alone starts it. It writes a random number, the *device id*, into the user's cache folder. Some seconds
# later it asks for the address of Microsoft's server. When was the first question?

# %%
first = {way: asked[0][0] for way, asked in runs["lookups"].items() if asked}
pd.Series(first, name="after s").to_frame()

# %% [markdown]
# Two of the five programs tried to switch it off **after** the import, and both were too late. A build service that
# sets `CI` sends nothing, so a test there never sees it.

# %%
loud = runs.loc["nothing is done"]
late = runs.drop(["nothing is done", silent, "CI=true"])
list(late.index)

# %% [markdown]
# In a program of your own, set `ORT_DISABLE_TELEMETRY=1` before Python starts, for example in the container's file, or
# in the first lines. If you want to send telemetry, set the variable to 0: the course leaves it as it is.

# %% tags=["hide-input"]
cu.claim(
    "model-runs-silently",
    {
        "switched off, a session asks for no name": here["lookups"] == [],
        "and writes no file into the user's folder": here["files"] == [],
        "recorded: by itself it asks for a server of Microsoft": loud["names"]
        == ["mobile.events.data.microsoft.com"],
        "and writes a device id": loud["device id"],
        "recorded: after the import nothing stops it": (late["look-ups"] > 0).all()
        and late["device id"].all(),
        "recorded: with CI=true nothing is sent": runs.loc["CI=true", "look-ups"]
        == 0,
    },
)

# %% [markdown]
# ## Recap
#
# - The official packages send telemetry, from version 1.29 on, unless they are told not to.
# - Set `ORT_DISABLE_TELEMETRY=1` before Python starts. After the import of ONNX Runtime it is too late.
# - Do not conclude from a silent test in a build service: `CI` switches it off there.
#
# **Back:** [05 · Execution providers](../05_execution_providers.ipynb). **Deeper:**
# [the life of a session, stage by stage](05_stages_and_options.ipynb).
