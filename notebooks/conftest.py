"""nbval runs the lessons. The exercises' student versions have gaps on purpose: tests/test_exercises.py runs those."""

import pytest

collect_ignore_glob = ["exercises/*", "work/*", "deeper/work/*", "*.py"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests run in random order. Notebooks do, too, but the cells of one keep theirs."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.random_order(disabled=True))
