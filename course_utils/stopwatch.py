"""An honest stopwatch: candidates take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import CourseError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

SHORTEST_SAMPLE = 1e-3  # seconds; shorter calls are timed in groups, so that the clock's own cost does not count


@dataclass(frozen=True)
class Comparison:
    """samples: seconds per call, one row per round, one column per candidate."""

    samples: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """Per candidate: median, lower and upper quartile (milliseconds), and how many times faster than the first."""
        ms = self.samples * 1e3
        table = ms.quantile([0.5, 0.25, 0.75]).T.set_axis(["median ms", "25 % ms", "75 % ms"], axis=1)
        table["× faster"] = table["median ms"].iloc[0] / table["median ms"]
        return table

    def ratio(self, slow: str, fast: str) -> float:
        """Median time of `slow` ÷ median time of `fast`, both from this run."""
        medians = self.samples.median()
        return float(medians[slow] / medians[fast])

    def plot(self, title: str | None = None) -> Axes:
        """Boxes from quartile to quartile, the median marked. The title states the finding unless one is given."""
        import matplotlib.pyplot as plt

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
        return self.table.style.format("{:.3g}").to_html()

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
    seconds: no new round starts after this time; at least three rounds are run.
    Raises CourseError when there is nothing to call, or when a candidate fails (with its name).
    """
    import pandas as pd
    from tqdm.auto import tqdm

    if not candidates or not all(map(callable, candidates.values())):
        raise CourseError(
            'compare() expects a dict of name → function without arguments, such as {"torch": lambda: model(x)}.'
        )
    groups: dict[str, int] = {}
    for name, call in candidates.items():
        try:
            for _ in range(warmup):
                call()
            once = _timed(call, 1)
        except Exception as error:
            raise CourseError(f"The candidate {name!r} failed before it was timed: {error}") from error
        groups[name] = max(1, int(SHORTEST_SAMPLE / max(once, 1e-9)))
    names, order, rows = list(candidates), random.Random(seed), []
    deadline = time.perf_counter() + seconds
    with _torch_threads(threads), _no_garbage_collection():
        for done in tqdm(range(rounds), desc="timing", leave=False):
            if done >= 3 and time.perf_counter() > deadline:
                break
            order.shuffle(names)
            rows.append({name: _timed(candidates[name], groups[name]) for name in names})
    return Comparison(pd.DataFrame(rows)[list(candidates)])


def _timed(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


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
