"""What the first sitting of the capstone leaves, made anew where it is missing."""

from __future__ import annotations

import numpy as np

import course_utils as cu


def test_what_is_missing_is_made_and_what_is_there_stays(folder):
    home = cu.first_sitting()
    truth = np.load(home / "truth.npz")
    photos, scores = truth["photos"], truth["scores"]
    got = cu.run_in_batches(
        cu.strict_session(str(home / "scroll.onnx"), "CPUExecutionProvider"), {"pixels": photos[:200]}
    )["logits"]
    assert np.allclose(got, scores[:200], atol=1e-4)
    assert (scores.argmax(1) == truth["labels"]).mean() > 0.9
    (home / "scroll.onnx").write_bytes(b"mine")
    assert (cu.first_sitting() / "scroll.onnx").read_bytes() == b"mine"
