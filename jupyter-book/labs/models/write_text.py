"""Files of the lab *write text*: the course's small decoder with its cache, and its tokens.

`decoder.onnx`: ids and past.key.0, past.value.0, … → logits and present.key.0, …; weights stored in int8.
`tokenizer.json`: as the package tokenizers has saved it. `write_text.json`: sizes, and prompts to begin with.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

import onnx

from course_utils.lab.small_decoder import decoder_model, sizes, small_decoder_weights
from course_utils.paths import data_path

PROMPTS = ("The model", "You have", "A session")


def make(folder: Path) -> None:
    """Write the lab's files into `folder`."""
    onnx.save(decoder_model(small_decoder_weights(), sizes(), small=True), folder / "decoder.onnx")
    shutil.copy(data_path("small_decoder_tokenizer.json"), folder / "tokenizer.json")
    facts = {"sizes": vars(sizes()) | {"size": sizes().size}, "prompts": PROMPTS}
    (folder / "write_text.json").write_text(json.dumps(facts, separators=(",", ":")), encoding="utf-8")
