"""Open the course in JupyterLab; called by `make lab`.

Where a browser can be opened, it opens by itself. Elsewhere (a server, a container) JupyterLab prints its address with
the token, to be opened by hand or through a tunnel. The token is never switched off.
"""

from __future__ import annotations

import os
import subprocess
import sys
import webbrowser
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIRST = "00_start_here.ipynb"
# The maintainers' files beside the notebooks; they would only confuse.
HIDDEN = [
    "[0-9][0-9]_*.py",
    "assignments",
    "generate.py",
    "sittings.py",
    "open_lab.py",
    "ruff.toml",
    "conftest.py",
    "__pycache__",
]


def main() -> None:
    if not (HERE / FIRST).exists():
        sys.exit(f"notebooks/{FIRST} is missing: run  make notebooks  first.")
    options = [
        f"--ServerApp.root_dir={HERE}",
        f"--LabApp.default_url=/lab/tree/{FIRST}",
        f"--ContentsManager.hide_globs={HIDDEN}",
    ]
    if not _has_browser():
        print(
            "No browser can be opened here. Open the address that JupyterLab prints below, with its token.",
            flush=True,
        )
        options.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.append(
            "--allow-root"
        )  # containers run as root; JupyterLab listens on this machine only
    os.environ.setdefault(
        "ORT_DISABLE_TELEMETRY", "1"
    )  # for every notebook, a student's own ones, too
    command = [sys.executable, "-m", "jupyterlab", *options, *sys.argv[1:]]
    if os.name == "nt":  # execv would split arguments at their spaces there
        sys.exit(subprocess.call(command))
    os.execv(command[0], command)


def _has_browser() -> bool:
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        return False
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


if __name__ == "__main__":
    main()
