"""All that `make test` does, once everything is installed: lint, the book, the tests. `python tests/everything.py JOBS SEED`

The tests that need no book run while it is built; both leave a processor idle now and then. Those of the book run afterwards.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "jupyter-book" / "_build" / "build.log"
sys.path.insert(0, str(ROOT / "jupyter-book"))

import build  # noqa: E402 - jupyter-book/build.py


def run(*command: str) -> int:
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode


def main(jobs: int, seed: str) -> int:
    """Exit status 1 where something is wrong, after all that could still run."""
    if run("ruff", "check", ".") or run("ruff", "format", "--check", "."):
        return 1
    build.install_browser_packages()  # tests of both parts use them
    LOG.parent.mkdir(exist_ok=True)
    print(f"The book is being built while the first tests run. What it says: {LOG.relative_to(ROOT)}", flush=True)
    with LOG.open("wb") as log:
        book = subprocess.Popen(
            [sys.executable, "-u", "jupyter-book/build.py"], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            first = run("pytest", *order(max(1, jobs - 1), seed), "-m", "not book", "tests")
            print("Waiting for the book." if book.poll() is None else "The book is done.", flush=True)
            built = book.wait() == 0
        finally:
            book.terminate()
    if not built:
        print(LOG.read_text(encoding="utf-8", errors="replace")[-8000:])
        print("The book was not built, see above, so its tests did not run.")
        return 1
    files = [
        file for file in sorted((ROOT / "tests").glob("test_*.py")) if "pytest.mark.book" in file.read_text("utf-8")
    ]
    second = run("pytest", *order(jobs, seed), "-m", "book", "notebooks", *map(str, files))
    if first:
        print("Tests that need no book failed, too: their list stands above, before the tests of the book.")
    return 1 if first or second else 0


def order(jobs: int, seed: str) -> list[str]:
    return ["-n", str(jobs), f"--random-order-seed={seed}"]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2]))
