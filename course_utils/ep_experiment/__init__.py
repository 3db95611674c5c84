"""Where nodes run and how long it takes: the experiment of lesson 05, a program for any interpreter.

    python course_utils/ep_experiment                                            the CPU provider
    python course_utils/ep_experiment --provider CUDAExecutionProvider --out data/ep_records/cuda.json
    python course_utils/ep_experiment --plugin onnxruntime_ep_webgpu

It needs NumPy, onnx and some package of ONNX Runtime, not the course. It asks this runtime for the given provider in
several ways, right and wrong, and writes down for each what was said, which providers the session names, where every
node was placed and where it ran. It compiles two models where the provider can, and times the provider against the CPU
provider. The result is JSON. `make providers` runs it for every provider of this machine, each in a process of its own.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reads it when it is imported
