"""nbval runs the lessons. The exercises' student versions have gaps on purpose: tests/test_exercises.py runs those.

A lesson that the book's build ran, exactly as it is now, is not run a second time, unless it is asked for by its name or
with COURSE_ALL_NOTEBOOKS=1.
"""

import os
import sys
from pathlib import Path

import pytest

NOTEBOOKS = Path(__file__).resolve().parent
sys.path.insert(0, str(NOTEBOOKS.parent / "jupyter-book"))
import execution

collect_ignore_glob = [
    "exercises/*",
    "work/*",
    "*.py",
    "deeper/*.py",
    "deeper/work/*",
]


def pytest_ignore_collect(
    collection_path: Path, config: pytest.Config
) -> bool | None:
    if collection_path.suffix != ".ipynb" or os.environ.get("COURSE_ALL_NOTEBOOKS"):
        return None
    asked = {
        (Path(config.invocation_params.dir) / arg.partition("::")[0]).resolve()
        for arg in config.args
    }
    name = collection_path.relative_to(NOTEBOOKS).with_suffix("").as_posix()
    has_run = execution.kept(name, collection_path.read_bytes()).exists()
    return True if has_run and collection_path not in asked else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests run in random order. Notebooks do, too, but the cells of one keep theirs. They wait for the book's build."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.random_order(disabled=True))
            item.add_marker(pytest.mark.book)
