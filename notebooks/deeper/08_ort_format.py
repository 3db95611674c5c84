# %% [markdown]
# # 08 · A file for an app
#
# The app's store shows how many megabytes an app has, and people decide by that. You bring a model and a runtime, and both
# can be made smaller. There is a file format for it, with a choice that is easy to get wrong.
#
# You need the [core of lesson 08](../08_deployment.ipynb). Nothing on this page was run on a phone.
#
# After this page you will be able to
#
# - convert a model to the ORT format, in the style that fits the app,
# - prove which nodes the converted file really runs,
# - read the code that calls it, in Kotlin and in Swift.

# %%
import course_utils as cu

cu.setup()
home = cu.course_files("model", "work/08_ort_format")

# %% [markdown]
# An app shows one picture at a time, so the batch is fixed.

# %%
import onnx
from onnxruntime.tools.make_dynamic_shape_fixed import make_dim_param_fixed

fixed = onnx.load(home / "model.onnx")
make_dim_param_fixed(fixed.graph, "batch", 1)
mobile = home / "mobile"
mobile.mkdir(exist_ok=True)
onnx.save(fixed, mobile / "fashion.onnx")

# %% [markdown]
# ## Two styles
#
# The [ORT format](https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-models.html) is optimised beforehand
# and read without protobuf. There are two styles. *Fixed* optimises now. *Runtime* optimises a little now, and saves a
# plan for the rest. The processor of a phone is an ARM, so we say that, too. The tool is a program; without a style, it
# makes both.

# %%
import subprocess
import sys

tool = "onnxruntime.tools.convert_onnx_models_to_ort"
command = [sys.executable, "-m", tool, "--target_platform", "arm", mobile]
done = subprocess.run(command, capture_output=True, check=True)

# %% [markdown]
# What lies in the folder now?

# %%
{file.name: file.stat().st_size for file in sorted(mobile.iterdir())}

# %% [markdown]
# Four new files. The two configurations list the operators that the files need: with such a list one builds a runtime that
# contains nothing else.

# %%
from onnxruntime.tools.reduced_build_config_parser import parse_config

needed, _ = parse_config(mobile / "required_operators.config")
needed

# %% [markdown]
# `FusedConv` is there because fusion ([lesson 06](../06_fusion.ipynb)) has happened already. The file in the style Fixed is
# loaded like any other. Does it compute the same?

# %%
import onnxruntime as ort

cpu = {"providers": ["CPUExecutionProvider"]}
server = ort.InferenceSession(home / "model.onnx", **cpu)
phone = ort.InferenceSession(mobile / "fashion.ort", **cpu)

# %% [markdown]
# We compare 50 pictures.

# %%
import numpy as np

pixels = cu.fashion_mnist("test")[0][:50]
label, probability = server.run(["label", "probability"], {"pixels": pixels})
got = [phone.run(None, {"pixels": one[None]}) for one in pixels]

# %%
assert [int(found[0][0]) for found in got] == label.tolist()
there = np.concatenate([found[1] for found in got])
assert np.allclose(there, probability, atol=1e-5)

# %% [markdown]
# It does: the same labels, and probabilities up to rounding.
#
# ## Which nodes run?
#
# The style Runtime only saves a plan. Is it carried out? A [profile](../glossary.md#profile) tells which nodes really ran.


# %%
def ran(file, **config):
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(home / "profile")
    for key, value in config.items():
        options.add_session_config_entry(f"session.{key}", value)
    session = ort.InferenceSession(file, options, **cpu)
    session.run(None, {"pixels": pixels[:1]})
    events = pd.read_json(session.end_profiling())
    nodes = events[events["name"].str.endswith("_kernel_time")]
    return nodes["args"].str["op_name"].value_counts()


# %% [markdown]
# Here is the file in the style Fixed.

# %%
import pandas as pd

ran(mobile / "fashion.ort")

# %% [markdown]
# Now the plan, without and with the key that allows it:

# %%
key = "enable_saved_runtime_optimizations"
planned = mobile / "fashion.with_runtime_opt.ort"
rows = {"Fixed": ran(mobile / "fashion.ort"), "Runtime": ran(planned)}
rows["Runtime, with the key"] = ran(planned, **{key: "1"})

# %%
columns = ["Conv", "FusedConv", "Relu", "Add"]
table = pd.DataFrame(rows).fillna(0).astype(int).T[columns]
table

# %% [markdown]
# Newer versions of ONNX Runtime carry out a saved
# [plan](https://onnxruntime.ai/docs/performance/model-optimizations/ort-format-model-runtime-optimization.html) only when
# they are told to, with `session.enable_saved_runtime_optimizations = 1`, because a plan from a stranger could change the
# graph. Set it for files of your own. Even then fewer convolutions are fused: the sums (`Add`) of the shortcuts stay nodes.

# %%
from pathlib import Path

import onnxruntime.tools

tools = Path(onnxruntime.tools.__file__).parent
fixed_ones, by_default, with_key = table["FusedConv"]
needs_key = key in (tools / "convert_onnx_models_to_ort.py").read_text()
assert 0 < with_key < fixed_ones and by_default == (0 if needs_key else with_key)

# %% [markdown]
# And who else knows `FusedConv`, which was made for the CPU?

# %%
assert "FusedConv" in needed["com.microsoft"][1]
lists = tools / "mobile_helpers"
knows = {
    f.stem: "FusedConv" in f.read_text() for f in lists.glob("*_supported_*ops.md")
}
assert not knows["nnapi_supported_ops"]
knows

# %% [markdown]
# NNAPI does not, so `fashion.ort` is for the CPU. An accelerator gets `fashion.onnx`, or the file in the style Runtime, as
# the converter's help text advises.
#
# ## Two apps, not run here
#
# With the processing in the file, little is left for the app. In **Kotlin**, on the CPU, with `fashion.ort` in `assets`:
#
# ```kotlin
# // build.gradle.kts:
# // implementation("com.microsoft.onnxruntime:onnxruntime-android:<version>")
# import ai.onnxruntime.OnnxJavaType
# import ai.onnxruntime.OnnxTensor
# import ai.onnxruntime.OrtEnvironment
# import ai.onnxruntime.OrtSession
# import android.content.Context
# import java.nio.ByteBuffer
#
# class Fashion(context: Context) : AutoCloseable {
#     private val environment = OrtEnvironment.getEnvironment()
#     private val session: OrtSession
#
#     init {
#         val model = context.assets.open("fashion.ort").use { it.readBytes() }
#         val options = OrtSession.SessionOptions()
#         options.setIntraOpNumThreads(2)
#         session = environment.createSession(model, options) // once, not for every picture
#     }
#
#     /** pixels: 784 bytes, row by row. */
#     fun label(pixels: ByteArray): Long {
#         val bytes = ByteBuffer.wrap(pixels)
#         val shape = longArrayOf(1, 28, 28)
#         OnnxTensor.createTensor(environment, bytes, shape, OnnxJavaType.UINT8).use {
#             session.run(mapOf("pixels" to it)).use { results ->
#                 return (results.get("label").get().value as LongArray)[0]
#             }
#         }
#     }
#
#     override fun close() = session.close()
# }
# ```
#
# In **Swift**, on CoreML, with `fashion.onnx` in the bundle:
#
# ```swift
# import Foundation
# import OnnxRuntimeBindings
#
# final class Fashion {
#     private let environment: ORTEnv
#     private let session: ORTSession
#
#     init() throws {
#         let options = try ORTSessionOptions()
#         let coreML = ORTCoreMLExecutionProviderOptions()
#         coreML.createMLProgram = true // the newer kind, with the longer list
#         coreML.onlyAllowStaticInputShapes = true
#         try options.appendCoreMLExecutionProvider(with: coreML)
#         let model = Bundle.main.path(forResource: "fashion", ofType: "onnx")!
#         environment = try ORTEnv(loggingLevel: .warning)
#         session = try ORTSession(env: environment, modelPath: model,
#                                  sessionOptions: options)
#     }
#
#     /// pixels: 784 bytes, row by row.
#     func label(pixels: Data) throws -> Int64 {
#         let input = try ORTValue(tensorData: NSMutableData(data: pixels),
#                                  elementType: .uInt8, shape: [1, 28, 28])
#         let results = try session.run(withInputs: ["pixels": input],
#                                       outputNames: ["label"], runOptions: nil)
#         let bytes = try results["label"]!.tensorData() as Data
#         return bytes.withUnsafeBytes { $0.load(as: Int64.self) }
#     }
# }
# ```
#
# Neither app knows a mean or a deviation.

# %% [markdown]
# ## Recap
#
# - Use the style Fixed for the CPU. Give an accelerator the ONNX file or the style Runtime.
# - A saved plan is carried out only with its key. Look at a profile: it shows which nodes ran.
# - With the processing in the file, the app hands over bytes and reads a label.
#
# **Next:** [09 · Troubleshooting](../09_troubleshooting.ipynb). **Back:** [08 · Deployment](../08_deployment.ipynb).
