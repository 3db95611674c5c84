"""What `torch.onnx.export` says, collected instead of printed."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

_TALKATIVE = ("torch.onnx", "onnxscript")  # the exporter, and the library it converts versions with


class _Listener(logging.Handler):
    def __init__(self, heard: list[str]) -> None:
        super().__init__()
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        _once(self.heard, record.getMessage())


@contextmanager
def exporter_messages() -> Iterator[list[str]]:
    """Collect what `torch.onnx.export` says, instead of letting it print. First used in lesson 02.

    Within the block, warnings and log records of torch's exporter and of its version converter go into the list that
    the block receives, each message once, in order, without the tracebacks: those name files of this machine. What a
    failing `torch.export` prints besides, such as whole graphs, is dropped: the exception says what matters.
    """
    import torch

    heard: list[str] = []
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    before = [(logger.handlers[:], logger.propagate) for logger in loggers]
    others = _handlers_of_torch()
    for logger in loggers:
        logger.handlers[:], logger.propagate = [_Listener(heard)], False
    for handler in others:
        handler.addFilter(_nothing)
    try:
        with (
            contextlib.redirect_stderr(io.StringIO()),
            # Before it raises, the old exporter prints the whole traced graph, whatever one asks.
            mock.patch.object(torch._C, "_jit_onnx_log", create=True),
            warnings.catch_warnings(record=True) as caught,
        ):
            warnings.simplefilter("always")
            yield heard
    finally:
        for handler in others:
            handler.removeFilter(_nothing)
        for logger, (handlers, propagate) in zip(loggers, before, strict=True):
            logger.handlers[:], logger.propagate = handlers, propagate
        for warning in caught:
            if "LeafSpec" not in str(warning.message):  # libraries talking about each other
                _once(heard, str(warning.message))


def _handlers_of_torch() -> set[logging.Handler]:
    """Handlers of all of torch's loggers but the exporter's own."""
    return {
        handler
        for name, logger in logging.root.manager.loggerDict.items()
        if name.partition(".")[0] == "torch" and not name.startswith(_TALKATIVE) and isinstance(logger, logging.Logger)
        for handler in logger.handlers
    }


def _nothing(record: logging.LogRecord) -> bool:
    return False


def _once(heard: list[str], message: str) -> None:
    message = " ".join(message.split())
    if message not in heard:
        heard.append(message)
