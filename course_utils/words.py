"""Text of files that nobody vouches for, and lists, made fit to print."""

from __future__ import annotations

import html
from collections.abc import Iterable

_LONGEST_NAME = 80  # characters


def plain(text: str | bytes, longest: int | None = _LONGEST_NAME) -> str:
    """Text of a model, safe to print: no control characters, no marks that turn the direction of writing, not endless."""
    if isinstance(text, bytes):  # names that are not UTF-8 come as bytes
        text = text.decode("utf-8", "backslashreplace")
    if longest is not None and len(text) > longest:
        text = f"{text[: longest // 2]}…{text[-longest // 3 :]}"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def for_markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    escaped = html.escape(" ".join(text.split()), quote=False)
    return "".join(f"\\{letter}" if letter in "\\`*_[]|$~{}" else letter for letter in escaped)


def listed(items: Iterable[object], most: int = 4) -> str:
    """`a, b, c and 5 more`."""
    texts = [plain(item) if isinstance(item, str | bytes) else str(item) for item in items]
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
