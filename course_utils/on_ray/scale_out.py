"""One model in several processes:  python -m on_ray.scale_out [address]

address: of a cluster; without one, this machine. It reads model.onnx,
pixels.npy and labels.npy, and writes scale_out.json.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

# No statistics are sent; a slow machine gets time; services keep their messages.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_raylet_start_wait_time_s": "120",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import ray

from . import fashion, scoring, service, serving

SMALL = {
    "address": "local",
    "num_cpus": 2,
    "object_store_memory": 80 * 2**20,
    "include_dashboard": False,
}


def main() -> None:
    for module in (fashion, service, scoring):  # the code travels along, too
        ray.cloudpickle.register_pickle_by_value(module)
    # The processes of a cluster run elsewhere: they do not inherit it.
    name = "ORT_DISABLE_TELEMETRY"
    far = {"runtime_env": {"env_vars": {name: os.environ[name]}}}
    where = {"address": sys.argv[1], **far} if len(sys.argv) > 1 else SMALL
    ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
    pixels, labels = np.load("pixels.npy"), np.load("labels.npy")
    found = {
        "serving": serving.serving(pixels[:120]),
        "scoring": scoring.scoring(pixels, labels),
    }
    ray.shutdown()
    Path("scale_out.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
