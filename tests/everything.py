"""All that `make test` does, once everything is installed: lint, the book, the tests. `python tests/everything.py JOBS SEED`

The tests that need no book run while it is built, and those of the book as soon as it is there: each of them leaves a
processor idle now and then.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "jupyter-book" / "_build"
sys.path.insert(0, str(ROOT / "jupyter-book"))

import build  # noqa: E402 - jupyter-book/build.py


def started(*command: str, into: Path | None = None) -> subprocess.Popen[bytes]:
    """Python with these arguments. into: a file for what it prints, in place of the terminal."""
    if not into:
        return subprocess.Popen([sys.executable, *command], cwd=ROOT)
    with into.open("wb") as log:
        return subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)


def main(jobs: int, seed: str) -> int:
    """Exit status 1 where something is wrong, after all that could still run."""
    if started("-m", "ruff", "check", ".").wait() or started("-m", "ruff", "format", "--check", ".").wait():
        return 1
    build.install_browser_packages()  # tests of both parts use them
    BUILD.mkdir(exist_ok=True)
    said, tested = BUILD / "build.log", BUILD / "tests.log"
    print(f"The book is being built while the first tests run. What it says: {said.relative_to(ROOT)}", flush=True)
    running = [
        book := started("-u", "jupyter-book/build.py", into=said),
        first := started("-m", "pytest", *order(jobs, seed), "-m", "not book", "tests"),
    ]
    try:
        if book.wait() == 0:
            files = [
                path
                for path in sorted((ROOT / "tests").glob("test_*.py"))
                if "pytest.mark.book" in path.read_text("utf-8")
            ]
            which = ["-m", "book", "notebooks", *map(str, files)]
            running.append(second := started("-m", "pytest", *order(jobs, seed), *which, into=tested))
            failed = [first.wait(), second.wait()]
            print(f"\nThe tests of the book:\n{tested.read_text(encoding='utf-8', errors='replace')}")
        else:
            failed = [first.wait(), 1]
            print(said.read_text(encoding="utf-8", errors="replace")[-8000:])
            print("The book was not built, see above, so its tests did not run.")
    finally:
        for process in running:
            process.terminate()
    if failed[0]:
        print("Tests that need no book failed, too: their list stands above, before the tests of the book.")
    return int(any(failed))


def order(jobs: int, seed: str) -> list[str]:
    """Two runs of pytest share the processors, and the book the first one's."""
    return ["-n", str(max(1, jobs - 1)), f"--random-order-seed={seed}"]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
