"""For the tests of the labs: the scripts that make their files. No browser is needed."""

from __future__ import annotations

import sys
from types import ModuleType

from checkout import ROOT

LABS = ROOT / "jupyter-book" / "labs"
sys.path.append(str(LABS))
import site_labs  # noqa: E402 - jupyter-book/labs/site_labs.py


def maker(name: str) -> ModuleType:
    """The script that makes the files of a lab."""
    return site_labs.module(LABS / "models" / f"{name}.py")
