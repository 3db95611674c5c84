"""A plug-in's library and the devices that it offers."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import onnxruntime as ort

CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class PluginLibrary:
    """What an installed plug-in brings. options: those that every session on it needs."""

    module: str
    provider: str
    library: str
    package: str
    options: dict[str, str] = field(default_factory=dict)

    def register(self) -> None:
        """Load the library into this process, under the name of its provider. Ends the program where that cannot be done."""
        try:
            ort.register_execution_provider_library(self.provider, self.library)
        except Exception as error:  # ONNX Runtime's own classes derive from Exception alone
            raise SystemExit(f"{self.package} cannot be registered ({error}). Nothing was measured.") from None


def plugin_library(module: str, options: dict[str, str]) -> PluginLibrary:
    """The library of a plug-in package, by the module that it installs, such as `onnxruntime_ep_webgpu`.

    Raises ImportError, or AttributeError where the module is no plug-in.
    """
    found = importlib.import_module(module)
    name = metadata.packages_distributions().get(module, [module])[0]
    package = f"{name} {metadata.version(name)}"
    return PluginLibrary(module, found.get_ep_name(), found.get_library_path(), package, options)


def devices_of(provider: str) -> list[Any]:
    """The entries of `onnxruntime.get_ep_devices()` that belong to a provider."""
    entries = getattr(ort, "get_ep_devices", list)()  # a reader's package may be older than that
    return [device for device in entries if device.ep_name == provider]


def described(provider: str) -> list[dict[str, str]]:
    """Kind and vendor of each device that a provider offers on this machine."""
    return [
        {"type": device.device.type.name, "vendor": device.device.vendor or device.ep_vendor}
        for device in devices_of(provider)
    ]
