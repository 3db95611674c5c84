"""All limits of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Settings:
    model: str = "model.onnx"
    name: str = "fashion_resnet"
    sha256: str = ""  # of the model's file; "" allows any
    host: str = "127.0.0.1"  # this machine only
    port: int = 0  # 0: the system gives a free one
    threads: int = 1  # of one run of the model
    largest_batch: int = 16  # images
    wait_ms: float = 2  # from its arrival on, a request waits so long for others
    queue: int = 256  # how many requests may wait
    run_s: float = 30  # a run of the model that takes longer will never end
    most_images: int = 16  # in one request
    most_bytes: int = 64 * 1024  # in one body
    body_s: float = 5  # a body that is not here by then is given up
