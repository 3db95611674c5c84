"""Exercises of lesson 08: processing inside the graph, a mobile variant, a server's settings and answers, a page's file, a config.pbtxt."""

from __future__ import annotations

from .. import Task
from .page_file import check_page_file, draw_page, page_and_model
from .phone_variant import check_mobile, draw_mobile, for_the_server
from .server_limits import bodies, check_requests, check_settings, draw_limits, draw_requests
from .triton_text import check_config, draw_triton, model_and_text
from .whole_graphs import check_answer, check_preparation, draw_answer, draw_preparation, scoring_net, small_net

TASKS = (
    Task(
        "8.1",
        "Put the preparation into the graph",
        "onnx",
        check_preparation,
        draw_preparation,
        lambda p: {"8.1.onnx": small_net(p)},
        points=1,
        hints=(
            "Write the preparation in NumPy first, in the order in which the task describes the training. Which operator does each line become?",
            "Cast comes first. Put the channels in the order RGB before mean and deviation, and move them to dimension 1 with Transpose.",
            'Parse a model with Cast, Gather, Div, Sub, Div and Transpose, then compose.merge_models with io_map=[(your output, "x")].',
        ),
    ),
    Task(
        "8.2",
        "Answer with ids and probabilities",
        "onnx",
        check_answer,
        draw_answer,
        lambda p: {"8.2.onnx": scoring_net(p)},
        points=2,
        hints=(
            "In which order do temperature, softmax and choice come, and over which classes does the softmax go?",
            "Div, then Softmax over axis 1, then TopK. Its second output holds positions, and a table turns them into ids.",
            'Gather(ids, position) looks up the ids; ids and k are int64 initializers. Join with io_map=[("y", your input)].',
        ),
    ),
    Task(
        "8.3",
        "Make a variant for a phone",
        "onnx",
        check_mobile,
        draw_mobile,
        lambda p: {"8.3.onnx": for_the_server(p)},
        points=3,
        hints=(
            "The checker says two things against the model: operators that are lacking, and a free dimension. Which nodes belong to the first?",
            "Write the formula with operators of your accelerator's list, one node for each, and its constants as initializers.",
            "Replace both activation nodes, give each new tensor a name of its own, call make_dim_param_fixed, and compare the outputs before verdict.",
        ),
    ),
    Task(
        "8.4",
        "Settings within limits",
        "json",
        check_settings,
        draw_limits,
        points=2,
        hints=(
            "A longer wait fills batches. What does that do to busy, and what to p99?",
            "Keep largest_batch well above one, go through wait_ms in a loop, and print both numbers next to your two limits.",
            "Of all waits that satisfy both limits, take one in the middle, not the first or the last.",
        ),
    ),
    Task(
        "8.5",
        "What does the server answer?",
        "json",
        check_requests,
        draw_requests,
        bodies,
        points=2,
        hints=(
            "The table is a list of questions, and the first one answered with yes decides. Write one function that asks them in this order.",
            "Read a body with np.load(io.BytesIO(body)) or json.loads inside try; a ValueError there has a status of its own.",
            "Look at the limits: which of `more than`, `from … to` and `as many as` includes the limit itself? A body that can be read may still have a wrong dtype.",
        ),
    ),
    Task(
        "8.6",
        "Make the file fit the page",
        "onnx",
        check_page_file,
        draw_page,
        page_and_model,
        points=4,
        hints=(
            "Read the code first, and write down name, dtype and shape of what it sends and of what it reads. Which colour has a pixel of 255?",
            "Convert the version before you join, because all parts need the same one. Two small models do the rest: bytes to `image`, and `logits` to class and probability.",
            "Store each large weight in float16 under a new name, and put a Cast with the old name as its output before the first node. Clear metadata_props and doc_string of nodes, weights and graph.",
        ),
    ),
    Task(
        "8.7",
        "Mend a config.pbtxt",
        "json",
        check_config,
        draw_triton,
        model_and_text,
        points=2,
        hints=(
            "Mend what the parser refuses first, then one line of cu.triton_findings after the other. It sees the model, and not what was agreed.",
            "Is the model's first dimension free? Only then max_batch_size may be above 0, and dims leave the batch out. Otherwise dims are the whole shape, and nothing is collected.",
            "Go through the list of agreements: name is that of the folder, waiting is in microseconds, version_policy picks the newest, and instance_group says where and how many.",
        ),
    ),
)
