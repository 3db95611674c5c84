"""Parts of the pages that report cards and the grader's feedback are made of: complete in themselves, for paper and phone."""

from __future__ import annotations

import functools
import html
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from string import Template

import yaml

from ..exercises import Criterion
from ..paths import data_path

FIRM_SPACE = "\N{NO-BREAK SPACE}"


@functools.cache
def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def document(title: str, body: str) -> str:
    """A whole page. title: of the window, any text. body: HTML, what stands in `<main>`."""
    return Template(_beside("page.html")).substitute(title=text(title), style=_beside("page.css"), body=body)


def text(value: object) -> str:
    """Escaped, and without what cannot be shown: an id, a hint or a file may hold anything, such as half a character."""
    found = str(value)
    if not found.isprintable():
        found = "".join(c if c.isprintable() or c == FIRM_SPACE else " " for c in found)
    return html.escape(found)


@functools.cache
def titles() -> dict[int, str]:
    """The lessons by number."""
    lessons = yaml.safe_load(data_path("lessons.yml").read_text(encoding="utf-8"))
    return {int(lesson["file"][:2]): lesson["title"] for lesson in lessons}


def title(number: int) -> str:
    """Number and title of a lesson, as HTML."""
    return f"{number:02} · {text(titles().get(number, f'Lesson {number}'))}"


def bar(share: Fraction) -> str:
    """A bar as wide as the page, filled from the left. share: 0 to 1."""
    width = f"{float(share) * 100:.1f}"
    return (
        '<svg class="bar" viewBox="0 0 100 4" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="4"/><rect class="share" width="{width}" height="4"/></svg>'
    )


def pairs(pairs: Mapping[str, str]) -> str:
    """Names and values, for a `<dl>`."""
    return "\n".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs.items())


def criterion(one: Criterion) -> str:
    """One criterion with its mark and its hint, for a `<ul class="criteria">`."""
    colour, mark, word = ("good", "✓", "met") if one.passed else ("bad", "✗", "not met")
    hint = f"<small>→ {text(one.hint)}</small>" if one.hint else ""
    kind = " (condition)" if one.condition else ""
    return (
        f'<li><span class="mark {colour}" role="img" aria-label="{word}">{mark}</span>{text(one.what)}{kind}{hint}</li>'
    )
