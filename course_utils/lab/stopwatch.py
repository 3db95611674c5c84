"""An honest stopwatch: candidates take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import gc
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from ..errors import CourseError, require
from ..paths import BOOK_MODELS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SHORTEST_SAMPLE = 1e-3  # seconds; shorter calls are timed in groups, so that the clock's own cost does not count
TRIES_FOR_THE_BOOK = 3
BUSY = 0.2  # share of the processors; more than that in other programs' hands, and the numbers are worth little


@dataclass(frozen=True)
class Comparison:
    """samples: seconds per call, one row per round, one column per candidate.

    others: share of the processors (0 to 1) that other programs used meanwhile; None where the system does not tell.
    """

    samples: pd.DataFrame
    others: float | None = None

    @property
    def table(self) -> pd.DataFrame:
        """Per candidate: median, lower and upper quartile (milliseconds), and how many times as fast as the first."""
        ms = self.samples * 1e3
        table = ms.quantile([0.5, 0.25, 0.75]).T.set_axis(["median ms", "25 % ms", "75 % ms"], axis=1)
        table["× as fast"] = table["median ms"].iloc[0] / table["median ms"]
        return table

    def ratio(self, slow: str, fast: str) -> float:
        """Median time of `slow` ÷ median time of `fast`, both from this run. Raises CourseError for another name."""
        for name in (slow, fast):
            if name not in self.samples:
                raise CourseError(f"{name!r} was not timed; these were: {', '.join(map(repr, self.samples))}.")
        medians = self.samples.median()
        return float(medians[slow] / medians[fast])

    def plot(self, title: str | None = None) -> Axes:
        """Boxes from quartile to quartile, the median marked. The title states the finding unless one is given."""
        plt = require("matplotlib.pyplot")
        names = list(self.samples.columns)
        _, axes = plt.subplots(figsize=(7.2, 0.6 * len(names) + 1.3))
        axes.boxplot(
            self.samples[names[::-1]].to_numpy() * 1e3,
            orientation="horizontal",
            showfliers=False,
            tick_labels=names[::-1],
            patch_artist=True,
            boxprops={"facecolor": "#56B4E9"},
            medianprops={"color": "#D55E00", "linewidth": 2},
        )
        axes.set_xlim(left=0)
        axes.set_xlabel("milliseconds per call (box: quartiles)")
        axes.set_title(title or self._finding())
        return axes

    def _finding(self) -> str:
        medians = self.samples.median().sort_values()
        if len(medians) == 1:
            return f"{medians.index[0]}: {medians.iloc[0] * 1e3:.3g} ms per call"
        return f"{medians.index[0]} is {medians.iloc[-1] / medians.iloc[0]:.1f}× as fast as {medians.index[-1]}"

    def _repr_html_(self) -> str:
        return self.table.style.format("{:.3g}").set_table_attributes('class="dataframe"').to_html()

    def __repr__(self) -> str:
        return self.table.to_string(float_format="{:.3g}".format)


def compare(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int = 30,
    warmup: int = 3,
    threads: int | None = None,
    seconds: float = 20.0,
    seed: int = 0,
) -> Comparison:
    """Time callables against each other. First used in lesson 00.

    Each round calls every candidate once, in a new random order; a call shorter than a millisecond is timed in a group
    of calls. Before that every candidate runs `warmup` times. Garbage collection rests meanwhile.
    threads: torch's threads while measuring (restored afterwards). The threads of an ONNX Runtime session are fixed when
    it is created (`SessionOptions.intra_op_num_threads`): give both the same number.
    seconds: no new round starts after this time; at least three rounds are run, unless fewer were asked for.
    Prints a sentence when other programs kept the processor busy: such numbers are worth little. While the book is
    built, it measures again instead.
    Raises CourseError when there is nothing to call, or when a candidate fails (with its name).
    """
    import pandas as pd
    from tqdm.auto import tqdm

    if not candidates or not all(map(callable, candidates.values())):
        raise CourseError(
            'compare() expects a dict of name → function without arguments, such as {"torch": lambda: model(x)}.'
        )
    if rounds < 1 or warmup < 0:
        raise CourseError(f"compare() was given rounds={rounds}, warmup={warmup}: it needs at least 1 and 0.")
    names, order = list(candidates), random.Random(seed)
    runs: list[tuple[float | None, list[dict[str, float]]]] = []
    in_book = BOOK_MODELS in os.environ
    with _torch_threads(threads), _no_garbage_collection():
        # The warm-up runs with the same threads: starting them is a part of it.
        groups = {name: _group(name, call, warmup) for name, call in candidates.items()}
        # A reader of the book cannot time again: its build does, and keeps the run that was disturbed least.
        while len(runs) < (TRIES_FOR_THE_BOOK if in_book else 1) and (not runs or (runs[-1][0] or 0) > BUSY):
            others, deadline, rows = _OtherPrograms(), time.perf_counter() + seconds, []
            # A page of the book keeps an empty box for a bar that has gone, and nobody waits for a page.
            for done in tqdm(range(rounds), desc="timing", leave=False, disable=in_book):
                if done >= 3 and time.perf_counter() > deadline:
                    break
                order.shuffle(names)
                rows.append({name: _timed(name, candidates[name], groups[name]) for name in names})
            runs.append((others.share(), rows))
    share, rows = min(runs, key=lambda run: run[0] or 0)
    if share is not None and share > BUSY and not in_book:
        print(
            f"Other programs used {share:.0%} of the processor meanwhile: these numbers say little,\n"
            "and their ratio may be wrong, too. Close what you can and time again."
        )
    return Comparison(pd.DataFrame(rows)[list(candidates)], share)


def _group(name: str, call: Callable[[], object], warmup: int) -> int:
    """Warm one candidate up; how many calls make one sample."""
    if warmup:
        _timed(name, call, warmup)
    return max(1, int(SHORTEST_SAMPLE / max(_timed(name, call, 1), 1e-9)))


def _timed(name: str, call: Callable[[], object], times: int) -> float:
    try:
        start = time.perf_counter()
        for _ in range(times):
            call()
        return (time.perf_counter() - start) / times
    except Exception as error:
        raise CourseError(f"The candidate {name!r} failed: {type(error).__name__}: {error}") from error


class _OtherPrograms:
    """How busy the processors that this process may use were with anything else, since this object was made."""

    def __init__(self) -> None:
        self._before = self._read()

    def share(self) -> float | None:
        """0 to 1; None where the system does not tell, or too little time has passed for its clock of 10 ms."""
        after = self._read()
        if self._before is None or after is None:
            return None
        wall, busy, own = (b - a for a, b in zip(self._before, after, strict=True))
        return min(1.0, max(0.0, busy - own) / wall) if wall > 0.1 else None

    @staticmethod
    def _read() -> tuple[float, float, float] | None:
        """Seconds, summed over the processors: passed, spent working, spent working for this process."""
        try:
            usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
            all_of = [t for number, t in enumerate(psutil.cpu_times(percpu=True)) if number in usable]
            own = psutil.Process().cpu_times()
        except (psutil.Error, OSError, NotImplementedError):
            return None
        # Linux counts a guest's time as the user's, too.
        idle = sum(t.idle + getattr(t, "iowait", 0.0) for t in all_of)
        total = sum(sum(t) - getattr(t, "guest", 0.0) - getattr(t, "guest_nice", 0.0) for t in all_of)
        return total, total - idle, own.user + own.system


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    if threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
