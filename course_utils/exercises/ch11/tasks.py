"""Exercises of lesson 11: a decoder's past, its mask, its loop, and its size, on the course's own small language model."""

from __future__ import annotations

from .. import Task
from .files import check_mask, check_past, draw_mask, draw_past, frozen_decoder, masked_decoder
from .four_bits import check_four_bits, draw_four_bits, files
from .greedy import check_greedy, draw_prompt, plain_decoder

TASKS = (
    Task(
        "11.1",
        "A cache of any length",
        "onnx",
        check_past,
        draw_past,
        lambda p: {"11.1.onnx": frozen_decoder(p)},
        points=2,
        hidden=("past", "everywhere"),
        hints=(
            "Which initializer holds a size of the exporter's example, and which nodes read it?",
            "The size of the past is the third one of past.key.0: Shape with start=2 and end=3, then Squeeze. Let the nodes read this in place of the number.",
        ),
    ),
    Task(
        "11.2",
        "One wrong mask",
        "onnx",
        check_mask,
        draw_mask,
        lambda p: {"11.2.onnx": masked_decoder(p)},
        points=2,
        hidden=("layer", "kind"),
        hints=(
            "In each layer, layers.N.share says how much each token takes from each other one. Make these outputs, and look at zeros above and on the diagonal.",
            "Compare the node that writes layers.N.seen among the layers: its operator and its inputs. One is unlike the others; make it like them.",
        ),
    ),
    Task(
        "11.3",
        "Token by token, exactly",
        "json",
        check_greedy,
        draw_prompt,
        lambda p: {"11.3.onnx": plain_decoder(p)},
        points=2,
        hints=(
            "The first step feeds the whole prompt and an empty past, each later one a single token and what the step before has returned.",
            "For no_repeat, set scores[prompt + chosen] to -inf before argmax. Twenty-four tokens, without the prompt.",
        ),
    ),
    Task(
        "11.4",
        "Four bits under two budgets",
        "onnx",
        check_four_bits,
        draw_four_bits,
        files,
        points=2,
        hidden=("seed", "kind", "layer"),
        hints=(
            "First the size: with the defaults the table of words stays float32. Then the perplexity: which product makes it rise? Give 4 bits to one product alone (nodes_to_include), and look.",
            "A block has one scale, and its widest weight decides it. Compare for each matrix the largest weight with the mean one: np.abs(w).max() / np.abs(w).mean().",
            'One matrix is far above the others. Put its node into nodes_to_exclude, take blocks of 64 or more, and op_types_to_quantize=("MatMul", "Gather").',
        ),
    ),
)
