"""What several test files share: a folder of one's own, a fresh interpreter, an exported reference model."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Before any test file imports onnxruntime: course_utils switches its telemetry off.
import course_utils  # noqa: F401

# Tests run side by side, and torch's threads wait for each other by spinning: one each is much faster than all for all.
os.environ.setdefault("OMP_NUM_THREADS", "1")


# The files that take longest on one processor (`--durations=0`). They start first: one that started last would run
# alone.
LONGEST = (
    "test_pages", "test_exercises", "test_every_exercise", "test_hub", "test_assignments", "test_ep_record", "test_exercise_10",
    "test_deployment", "test_colab", "test_language_models", "test_providers", "test_lab_build_graph", "test_lab_write_text",
    "test_lab_doctor", "test_missing_package", "test_capstone_page", "test_walls", "test_reading", "test_stopwatch",
)  # fmt: skip


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """After the random order was drawn: the longest files first, all others as they are."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Put back what `cu.setup()` changes for a whole process: the next test in it may count on something else."""
    import matplotlib
    import torch

    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    with matplotlib.rc_context(), warnings.catch_warnings():
        yield
    torch.set_num_threads(threads)
    torch.random.set_rng_state(state)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, and the current one: the course writes into `work/` beside the notebook."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run code in a fresh interpreter, as a student's first cell would; fails with its output unless `ok=False`."""

    def run(
        code: str, *, cwd: Path, ok: bool = True, env: dict[str, str] | None = None, **more: object
    ) -> subprocess.CompletedProcess[str]:
        # MPLBACKEND: no window, whatever the machine that runs the tests has.
        variables = {**os.environ, "MPLBACKEND": "agg", "PYTHONIOENCODING": "utf-8", **(env or {})}
        command = [sys.executable, "-c", textwrap.dedent(code)]
        done = subprocess.run(
            command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=180, check=False, **more
        )
        assert not ok or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def fashion_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fashion_resnet` as lesson 00 exports it: weights inside, any batch. Do not write to it: copy it first."""
    import torch

    import course_utils as cu

    path = tmp_path_factory.mktemp("export") / "fashion_resnet.onnx"
    torch.onnx.export(
        cu.fashion_resnet(),
        (torch.randn(2, 1, 28, 28),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    return path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of `server/` and the model that takes bytes. To change a file in it, copy it first."""
    import course_utils as cu

    folder = tmp_path_factory.mktemp("serving")
    cu.course_files("server", folder / "server")
    return cu.course_files("model", folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window."""
    import browser as driver

    with driver.launched() as it:
        yield it


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A page of its own in that browser."""
    import browser as driver

    with driver.tab(browser) as page:
        yield page


@pytest.fixture
def nobody_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """No student yet, as in a fresh kernel."""
    from course_utils import classroom, student

    monkeypatch.setattr(student, "_current", [])
    monkeypatch.setattr(classroom, "_current", [])
    for name in ("COURSE_CLASS", "COURSE_STUDENT", "JUPYTERHUB_USER", "COURSE_STRICT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks run here, without the guarded process: it does not know the tasks that a test makes up."""
    from course_utils.handin import assessing, guarded

    monkeypatch.setattr(guarded, "examine", assessing.assessed)
