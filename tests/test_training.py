"""The short training of the page on adapters."""

from __future__ import annotations

import copy

import torch

import course_utils as cu


def test_only_the_given_weights_learn_and_the_same_start_gives_the_same_end():
    start = torch.nn.Linear(784, 10)
    one, other = copy.deepcopy(start), copy.deepcopy(start)
    threads = torch.get_num_threads()
    for net in (one, other):
        cu.train_pictures(net, [net.weight], lambda pictures: -pictures)
    assert torch.get_num_threads() == threads
    assert torch.equal(one.bias, start.bias)
    assert torch.equal(one.weight, other.weight)
    pictures, labels = (array[8000:] for array in cu.fashion_mnist("test"))
    x = torch.tensor(cu.normalize(pictures)).flatten(1)
    right = [(one(view).argmax(1) == torch.tensor(labels)).double().mean().item() for view in (-x, x)]
    assert right[0] > 0.7 > right[1], "it has learned from changed pictures"
