"""Write down what the trained network says of the test images, in `data/fashion_answers.safetensors`, so that no check runs it anew.

    python data/record_answers.py

`hardest`: uint16 [3000], the images whose two largest logits lie nearest to each other, the nearest first. Of each form of
the network in task 7.6, in the order of `FORMS`, float32 first: `classes`, uint8 [forms, 10000]; and of each 50 images beside the float32 form
`squares`, `sizes`, `largest`, float32 [forms, 200]: the mean of the squared and of the absolute differences of the logits,
and the largest difference. `shares`, float32 [10000]: the probability that the float32 form gives to its class.

`cut classes`, `cut squares`: the same of processors without VNNI, which cut off products of uint8 with int8 at 16 bits. So record on
such a processor: on others both are alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from build_dataset import write_sums
from safetensors.numpy import save_file

from course_utils import running
from course_utils.exercises.ch07.variants import BLOCK, FORMS, form
from course_utils.exercises.fashion_reference import HARDEST, pictures
from course_utils.lab.data import normalize
from course_utils.running import run, session_for

TARGET = Path(__file__).with_name("fashion_answers.safetensors")


def main() -> None:
    images = pictures("test")[0]
    blocks = [normalize(images[at : at + BLOCK]) for at in range(0, len(images), BLOCK)]
    usual, opset = list(range(10)), 17
    found, cut = {}, {}
    for name in FORMS:
        model = form(name, usual, opset)
        plain = running.ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        for logits, session in ((found, session_for(model)), (cut, plain)):
            logits[name] = np.stack([run(session, {"image": x})["logits"] for x in blocks])  # [blocks, BLOCK, 10]
    exact = found["float32"]
    off = np.stack([np.abs(found[name] - exact) for name in FORMS])
    best = np.sort(exact.reshape(-1, 10), 1)
    nearest = np.argsort(best[:, -1] - best[:, -2], kind="stable")[:HARDEST]
    powers = np.exp(exact.reshape(-1, 10).astype(np.float64) - best[:, -1:])
    record = {
        "shares": (1 / powers.sum(1)).astype(np.float32),
        "hardest": nearest.astype(np.uint16),
        "classes": np.stack([found[name].argmax(-1).ravel() for name in FORMS]).astype(np.uint8),
        "squares": (off**2).mean((2, 3)),
        "cut classes": np.stack([cut[name].argmax(-1).ravel() for name in FORMS]).astype(np.uint8),
        "cut squares": np.stack([((cut[name] - exact) ** 2).mean((1, 2)) for name in FORMS]),
        "sizes": off.mean((2, 3)),
        "largest": off.max((2, 3)),
    }
    save_file({name: np.ascontiguousarray(value) for name, value in record.items()}, TARGET)
    write_sums()


if __name__ == "__main__":
    main()
