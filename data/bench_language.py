"""How fast the decoder of chapter 11 is, with and without its cache, in 4 bits and in GenAI, for `data/bench.py`.

Needs the extra `llm` and the package of the weights.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before onnxruntime is imported

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

import course_utils as cu

LENGTHS = (16, 32, 64, 128, 256, 512)  # tokens of a text before the next one
WRITTEN = 24  # tokens that both loops write, after 64
Cache = list[np.ndarray]


def measure_language() -> dict[str, Any]:
    """Milliseconds for one more token at each length, how they grow, and ratios.

    steps: a row for each length, `tokens`, `without` and `with`, in ms. order: the exponent p of a fit of tokens to the power p.
    ratios: rows `what`, `ratio`. others: the largest share of the processors that other programs used meanwhile.
    """
    print("language models")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        tokenizer = cu.decoder_file(folder / "float.onnx")
        ids = tokenizer.encode(cu.story() + "\n\n" + cu.story()).ids
        steps, busy = _steps(_session(folder / "float.onnx"), ids)
        four_bits, more = _four_bits(folder, ids)
        size = {name: sum(part.stat().st_size for part in folder.glob(f"{name}.onnx*")) for name in ("float", "int4")}
        ratios = {
            f"without a cache ÷ with it, {LENGTHS[-1]} tokens": steps[-1]["without"] / steps[-1]["with"],
            f"float32 ÷ 4 bits, with a cache, {LENGTHS[-1]} tokens": four_bits,
            "float32 ÷ 4 bits, bytes of the file": size["float"] / size["int4"],
        }
        loops, most = _loops(folder)
        ratios[f"own loop ÷ GenAI, the same file, {WRITTEN} tokens"] = loops
    for what, ratio in ratios.items():
        print(f"  {what:56} {ratio:6.2f}", flush=True)
    return {
        "steps": steps,
        "order": {way: order(LENGTHS, [row[way] for row in steps]) for way in ("without", "with")},
        "ratios": [{"what": what, "ratio": round(ratio, 3)} for what, ratio in ratios.items()],
        "others": round(max(busy, more, most), 2),
    }


def order(sizes: Sequence[float], times: Sequence[float]) -> float:
    """The exponent p for which times grow as sizes to the power p, by least squares of the logarithms: 0 is no growth."""
    return round(float(np.polyfit(np.log(sizes), np.log(times), 1)[0]), 2)


def _session(file: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _empty(session: ort.InferenceSession) -> Cache:
    return [np.zeros((1, 3, 0, 64), np.float32)] * (len(session.get_outputs()) - 1)


def _run(session: ort.InferenceSession, ids: Sequence[int], cache: Cache) -> tuple[np.ndarray, Cache]:
    """The scores `[words]` after the last token, and the longer cache. An input beside ids and cache is a mask of ones."""
    names = [value.name for value in session.get_inputs()]
    feed: dict[str, Any] = dict(zip(names[-len(cache) :], cache, strict=True))
    feed[names[0]] = np.array([ids], np.int64)
    if len(names) > len(cache) + 1:
        feed[names[1]] = np.ones((1, cache[0].shape[2] + len(ids)), np.int64)
    logits, *longer = session.run(None, feed)
    return logits[0, -1], longer


def _steps(session: ort.InferenceSession, ids: Sequence[int]) -> tuple[list[dict[str, float]], float]:
    """The rows of `steps`, and what other programs used."""
    rows, others = [], [0.0]
    for tokens in LENGTHS:
        cache = _run(session, ids[: tokens - 1], _empty(session))[1]
        calls = {
            "without": partial(_run, session, ids[:tokens], _empty(session)),
            "with": partial(_run, session, ids[tokens - 1 : tokens], cache),
        }
        timed = cu.compare(calls, threads=1, rounds=12, seconds=25)
        rows.append({"tokens": tokens, **timed.table["median ms"].round(2).to_dict()})
        others.append(timed.others or 0.0)
        print(f"  {rows[-1]}", flush=True)
    return rows, max(others)


def _four_bits(folder: Path, ids: Sequence[int]) -> tuple[float, float]:
    """Time of a step with a cache in float32 ÷ in 4 bits, after the longest text; and what other programs used."""
    logging.disable(logging.INFO)  # the tool names each node
    tool = MatMulNBitsQuantizer(onnx.load(folder / "float.onnx"), bits=4, block_size=32, accuracy_level=4)
    tool.process()
    onnx.save(tool.model.model, folder / "int4.onnx")
    cu.give_back(tool)
    sessions = {"float": _session(folder / "float.onnx"), "4 bits": _session(folder / "int4.onnx")}
    cache = _run(sessions["4 bits"], ids[: LENGTHS[-1] - 1], _empty(sessions["4 bits"]))[1]
    last = ids[LENGTHS[-1] - 1 : LENGTHS[-1]]
    calls = {name: partial(_run, session, last, cache) for name, session in sessions.items()}
    timed = cu.compare(calls, threads=1, rounds=30, seconds=25)
    return timed.ratio("float", "4 bits"), timed.others or 0.0


def _loops(folder: Path) -> tuple[float, float]:
    """Time of a loop in Python ÷ time of GenAI's, on the file of GenAI's builder; and what other programs used."""
    tokenizer = cu.checkpoint(folder / "checkpoint")
    import onnxruntime_genai as og
    from onnxruntime_genai.models import builder

    how = "", str(folder / "checkpoint"), str(folder / "genai"), "int4", "cpu", str(folder)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        builder.create_model(*how, **builder.parse_extra_options(*how, ["hf_token=false"]))
    config = og.Config(str(folder / "genai"))
    config.overlay('{"model": {"decoder": {"session_options": {"intra_op_num_threads": 1}}}}')
    model, session = og.Model(config), _session(folder / "genai" / "model.onnx")
    ids = tokenizer.encode(cu.story()).ids[:64]

    def own() -> list[int]:
        fresh, cache, chosen = ids, _empty(session), []
        for _ in range(WRITTEN):
            scores, cache = _run(session, fresh, cache)
            fresh = [int(scores.argmax())]
            chosen += fresh
        return chosen

    def genai() -> list[int]:
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=len(ids) + WRITTEN)
        generator = og.Generator(model, parameters)
        generator.append_tokens(ids)
        while not generator.is_done():
            generator.generate_next_token()
        return [int(token) for token in generator.get_sequence(0)[len(ids) :]]

    assert own() == genai(), "the two loops write other tokens"
    calls: dict[str, Callable[[], object]] = {"own": own, "GenAI": genai}
    timed = cu.compare(calls, threads=1, rounds=8, seconds=40)
    return timed.ratio("own", "GenAI"), timed.others or 0.0
