"""What a contributor wants to know before a commit, in about a minute: `make check`.

Lint, types, the order of imports, the quick tests, and the notebooks whose source was changed since the last commit.
`make test` runs everything.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Each takes at most a few seconds on two cores (pytest --durations=0); together they touch every folder of the package.
QUICK = (
    "batching_widget", "checks", "claims", "doctor_names", "doctor_structure", "doctor_words", "glossary", "graph_checks",
    "lesson_shape", "parity", "solutions", "symptoms",
)  # fmt: skip


def tool(name: str) -> str:
    """The command of this environment, also where it is not activated."""
    beside = Path(sys.executable).with_name(f"{name}.exe" if os.name == "nt" else name)
    return str(beside) if beside.exists() else name


def changed_notebooks() -> list[str]:
    """The .ipynb files of lessons and deeper pages whose source differs from the last commit, or is new."""
    asked = ["git", "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", "notebooks"]
    listed = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    sources = {Path(entry[3:]).with_suffix(".py") for entry in listed.split("\0") if entry}
    pages = (s.with_suffix(".ipynb") for s in sorted(sources) if s.parent.name in ("notebooks", "deeper"))
    return [page.as_posix() for page in pages if (ROOT / page).is_file()]


def main() -> int:
    """Run all of it, side by side where that saves time. Exit status 1 where something is wrong."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    python = sys.executable
    subprocess.run([python, "notebooks/generate.py"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    tests = [f"tests/test_{name}.py" for name in QUICK]
    notebooks = changed_notebooks()
    # pytest on one core, all the others in turn on the second.
    pytest = [python, "-m", "pytest", "-q", "--random-order-seed=1", *tests, *notebooks]
    others = {
        "ruff check": [python, "-m", "ruff", "check", "."],
        "ruff format": [python, "-m", "ruff", "format", "--check", "."],
        "lint-imports": [tool("lint-imports")],
        "mypy": [python, "-m", "mypy"],
    }
    began = time.monotonic()
    print(
        f"pytest: {len(tests)} quick test files, {len(notebooks)} changed notebooks {' '.join(notebooks)}", flush=True
    )
    running = subprocess.Popen(pytest, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    failed = []
    for name, command in others.items():
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
        print(f"{'✗' if done.returncode else '✓'} {name}", flush=True)
        if done.returncode:
            failed.append(name)
            print(done.stdout + done.stderr, flush=True)
    said, _ = running.communicate()
    print(
        f"{'✗' if running.returncode else '✓'} pytest",
        said.strip().splitlines()[-1] if said.strip() else "",
        flush=True,
    )
    if running.returncode:
        failed.append("pytest")
        print(said)
    print(f"{time.monotonic() - began:.0f} s. " + (f"Not right: {', '.join(failed)}." if failed else "All is right."))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
