"""Drivers for the WebGPU plug-in. It computes through Vulkan, Metal or Direct3D, and only on Linux something may be missing."""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

_SOFTWARE = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
_DRIVER_FILES = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES")  # the first one wins, as it does in the Vulkan loader
_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Where a distribution's command is a script; otherwise the driver lies beside the program itself.
_FOLDERS = ("/usr/lib/chromium", "/usr/lib/chromium-browser", "/usr/lib64/chromium-browser")
_NAMES = {"vk_swiftshader_icd.json": "SwiftShader"}


@dataclass(frozen=True)
class Way:
    """What is set before a plug-in is registered. loader: the library that finds Vulkan drivers, where the system has none."""

    variables: tuple[tuple[str, str], ...] = ()
    loader: str = ""

    def prepare(self) -> None:
        os.environ.update(self.variables)
        if self.loader:
            ctypes.CDLL(self.loader, mode=ctypes.RTLD_GLOBAL)  # a later dlopen() of this name finds it loaded

    def environment(self) -> dict[str, str]:
        """The same, as variables for a program that knows nothing of this."""
        folders = [str(Path(self.loader).parent) if self.loader else "", os.environ.get("LD_LIBRARY_PATH", "")]
        found = os.pathsep.join(filter(None, folders))
        return {**dict(self.variables), **({"LD_LIBRARY_PATH": found} if found else {})}


def ways() -> list[Way]:
    """Ways to try WebGPU, the best first: a graphics card is better than a driver in software."""
    given = tuple((name, os.environ[name]) for name in (*_DRIVER_FILES, _SOFTWARE) if os.environ.get(name))
    allowed = tuple({**dict(given), _SOFTWARE: "1"}.items())
    if not sys.platform.startswith("linux"):
        return list(dict.fromkeys([Way(given), Way(allowed)]))
    folder = _chromium()
    system = ctypes.util.find_library("vulkan") is not None
    loader = "" if system or folder is None else str(folder / "libvulkan.so.1")
    found = [Way(given, loader)]
    if os.environ.get(_SOFTWARE, "1") != "1":  # the user wants none in software
        return found
    if not driver() and folder is not None:
        found.append(Way((("VK_ICD_FILENAMES", str(folder / "vk_swiftshader_icd.json")), (_SOFTWARE, "1")), loader))
    if driver() or system:
        found.append(Way(allowed, loader))
    return list(dict.fromkeys(found))


def _chromium() -> Path | None:
    """The folder in which Chromium or Chrome keeps its Vulkan driver in software."""
    found = filter(None, map(shutil.which, _BROWSERS))
    folders = [*map(Path, _FOLDERS), *(Path(path).resolve().parent for path in found)]
    return next(
        (f for f in folders if (f / "vk_swiftshader_icd.json").is_file() and (f / "libvulkan.so.1").exists()), None
    )


def in_software(way: Way) -> str:
    """The driver in software that computes in place of a graphics card; empty where it is a card, or not known."""
    name = driver(dict(way.variables))
    return name if name in _NAMES.values() else ""


def driver(variables: dict[str, str] | None = None) -> str:
    """The Vulkan driver that the environment names; empty where the system chooses one."""
    env = os.environ if variables is None else variables
    path = next((env[name] for name in _DRIVER_FILES if env.get(name)), "")
    return _NAMES.get(Path(path).name, path)
