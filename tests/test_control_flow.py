"""The small models of lesson 03: the rewritten one computes what the one before computes."""

from __future__ import annotations

import pytest
import torch

from course_utils.lab.control_flow import Conditional, Gate, Mixer, Reader, Scanned, Stacked, Where


@pytest.mark.parametrize("rewritten", [Where, Conditional])
@pytest.mark.parametrize("x", [torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -3.0]), torch.zeros(2)])
def test_a_gate_without_a_python_if(rewritten, x):
    assert torch.equal(rewritten()(x), Gate()(x))


@pytest.mark.parametrize("length", [1, 5, 9])
def test_a_reader_without_a_python_loop(length):
    x = torch.randn(length, 3)
    torch.testing.assert_close(Scanned()(x), Reader()(x))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_mixer_without_a_list(parts):
    x, options = torch.randn(parts, 2, 3), {"scale": torch.tensor(2.0)}
    torch.testing.assert_close(Stacked()(options, x), Mixer()(options, list(x)))
