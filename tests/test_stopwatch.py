"""The stopwatch: who is called when, what it leaves behind, what it says. How long anything takes is never asserted."""

from __future__ import annotations

import gc
import subprocess
import sys
import time

import pytest
import torch

import course_utils as cu
from course_utils.lab import stopwatch


@pytest.fixture
def quiet_machine(monkeypatch):
    """As if nothing else ran: on a busy test machine the note below would be right, and not what a test is about."""
    monkeypatch.setattr(stopwatch._OtherPrograms, "share", lambda self: 0.0)


def test_candidates_take_turns_in_random_order():
    calls: list[str] = []

    def call(name):
        calls.append(name)
        time.sleep(0.002)  # longer than a sample must be: no groups

    result = cu.compare({n: lambda n=n: call(n) for n in "abc"}, rounds=12, warmup=2)
    assert calls[:9] == list("aaabbbccc"), "two warm-ups and one trial each"
    rounds = ["".join(calls[i : i + 3]) for i in range(9, len(calls), 3)]
    assert len(rounds) == 12
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len(set(rounds)) > 2, "the order changes from round to round"
    assert list(result.samples.columns) == ["a", "b", "c"]
    assert len(result.samples) == 12


def test_the_order_follows_the_seed():
    def order(seed):
        calls: list[str] = []

        def call(name):
            calls.append(name)
            time.sleep(0.001)

        cu.compare({n: lambda n=n: call(n) for n in "abc"}, rounds=8, warmup=0, seed=seed)
        return calls

    assert order(1) == order(1)
    assert order(1) != order(2)


def test_short_calls_are_timed_in_groups():
    counts = {"short": 0, "long": 0}

    def short():
        counts["short"] += 1

    def long():
        counts["long"] += 1
        time.sleep(0.002)

    cu.compare({"short": short, "long": long}, rounds=5, warmup=1)
    assert counts["long"] == 1 + 1 + 5
    assert counts["short"] > 100


def test_time_limit_still_gives_three_rounds():
    result = cu.compare({"slow": lambda: time.sleep(0.01)}, rounds=100, warmup=0, seconds=0)
    assert len(result.samples) == 3


@pytest.mark.parametrize("candidates", [{}, {"a": 1}, {"a": None}])
def test_nothing_to_call(candidates):
    with pytest.raises(cu.CourseError, match="expects a dict of name → function without arguments"):
        cu.compare(candidates)


@pytest.mark.parametrize("numbers", [{"rounds": 0}, {"warmup": -1}])
def test_impossible_numbers(numbers):
    with pytest.raises(cu.CourseError, match="it needs at least 1 and 0"):
        cu.compare({"a": int}, **numbers)


@pytest.mark.parametrize("after", [0, 5], ids=["in the warm-up", "while timed"])
def test_a_failing_candidate_is_named_and_all_is_put_back(after):
    calls = iter(range(1000))

    def breaks():
        time.sleep(0.001)
        if next(calls) >= after:
            raise ValueError("no such tensor")

    threads = torch.get_num_threads()
    with pytest.raises(cu.CourseError, match="The candidate 'second' failed: ValueError: no such tensor"):
        cu.compare({"first": lambda: time.sleep(0.001), "second": breaks}, warmup=2, threads=threads + 1)
    assert torch.get_num_threads() == threads
    assert gc.isenabled()


def test_threads_and_garbage_collection_while_timing():
    seen = set()
    before = torch.get_num_threads()
    cu.compare({"a": lambda: seen.add((torch.get_num_threads(), gc.isenabled()))}, rounds=3, threads=before + 1)
    assert seen == {(before + 1, False)}
    assert (torch.get_num_threads(), gc.isenabled()) == (before, True)


def test_garbage_collection_stays_off_for_those_who_switched_it_off():
    gc.disable()
    try:
        cu.compare({"a": int}, rounds=1)
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.fixture(scope="module")
def comparison():
    import pandas as pd

    samples = pd.DataFrame({"PyTorch": [0.004, 0.006, 0.005], "ONNX Runtime": [0.001, 0.003, 0.002]})
    return stopwatch.Comparison(samples, others=0.0)


def test_table_and_ratio_agree(comparison):
    table = comparison.table
    assert table.loc["PyTorch", "median ms"] == pytest.approx(5)
    assert table.loc["ONNX Runtime", ["25 % ms", "75 % ms"]].tolist() == pytest.approx([1.5, 2.5])
    assert table.loc["PyTorch", "× as fast"] == 1
    assert table.loc["ONNX Runtime", "× as fast"] == pytest.approx(comparison.ratio("PyTorch", "ONNX Runtime"))
    assert comparison.ratio("PyTorch", "ONNX Runtime") == pytest.approx(2.5)
    assert "ONNX Runtime" in repr(comparison)
    assert "<table" in comparison._repr_html_()
    with pytest.raises(cu.CourseError, match="'TensorFlow' was not timed; these were: 'PyTorch', 'ONNX Runtime'"):
        comparison.ratio("TensorFlow", "PyTorch")


def test_plot_has_units_and_states_the_finding(comparison):
    import matplotlib.pyplot as plt

    axes = comparison.plot()
    assert "milliseconds" in axes.get_xlabel()
    assert axes.get_title() == "ONNX Runtime is 2.5× as fast as PyTorch"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["ONNX Runtime", "PyTorch"], "first one on top"
    assert axes.get_xlim()[0] == 0
    assert comparison.plot("my own").get_title() == "my own"
    plt.close("all")


def test_a_busy_machine_is_told(capsys):
    """Other processes that take all processors: the numbers are worth little, and a sentence says so."""
    spin = [sys.executable, "-c", "print(1, flush=True)\nwhile True: pass"]
    others = [subprocess.Popen(spin, stdout=subprocess.PIPE) for _ in range(cpus())]
    try:
        for other in others:
            other.stdout.readline()  # it has begun
        result = cu.compare({"a": lambda: time.sleep(0.01)}, rounds=60, warmup=0)
    finally:
        for other in others:
            other.kill()
            other.communicate()
    if result.others is None:
        pytest.skip("this system does not tell how busy its processors are")
    assert result.others > 0.5
    assert f"Other programs used {result.others:.0%} of the processor meanwhile" in capsys.readouterr().out


def test_a_quiet_machine_needs_no_word(quiet_machine, capsys):
    result = cu.compare({"a": int}, rounds=2)
    assert result.others == 0
    assert "Other programs" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("shares", "kept"), [([0.9, 0.05], 0.05), ([0.9, 0.4, 0.6], 0.4), ([0.1], 0.1), ([None], None)]
)
def test_the_book_measures_again_and_says_nothing(shares, kept, monkeypatch, tmp_path, capsys):
    """A page cannot be told to close other programs. The run that was disturbed least stays."""
    monkeypatch.setenv("COURSE_BOOK_MODELS", str(tmp_path))
    readings = iter(shares)
    monkeypatch.setattr(stopwatch._OtherPrograms, "share", lambda self: next(readings))
    result = cu.compare({"a": int}, rounds=2)
    assert result.others == kept
    assert len(result.samples) == 2
    assert next(readings, "no more") == "no more"
    assert capsys.readouterr().out == ""


def test_own_work_is_not_called_other_programs():
    """A candidate that keeps one processor busy itself, on an otherwise idle machine, is not to be blamed on others."""
    watch = stopwatch._OtherPrograms
    before, after = (100.0, 40.0, 10.0), (104.0, 43.0, 12.5)  # 4 s of processor time passed, 3 busy, 2.5 of them ours
    readings = iter([before, after])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch, "_read", staticmethod(lambda: next(readings)))
        assert watch().share() == pytest.approx(0.5 / 4)


def cpus() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
