"""What the server counts, in the format of Prometheus."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)


class Metrics:
    """model: what is said of the model that answers."""

    def __init__(self, model: dict[str, str]) -> None:
        self.all = CollectorRegistry()
        kept = {"registry": self.all}
        Info("model", "the model that answers", **kept).info(model)
        ProcessCollector(**kept)  # memory and processor time, on Linux
        about = "answers by HTTP status"
        self.answers = Counter("answers", about, ["status"], **kept)
        about = "seconds from request to answer"
        self.seconds = Histogram("answer_seconds", about, **kept)
        about, sizes = "images in a batch", (1, 2, 4, 8, 16, 32, 64)
        self.batches = Histogram("batch_images", about, buckets=sizes, **kept)

    def text(self) -> bytes:
        return generate_latest(self.all)
