"""The side bar with minutes and groups, and the path from page to page: changes of the pages that Jupyter Book wrote."""

from __future__ import annotations

import posixpath
import re
from functools import cache
from html import escape
from pathlib import Path

import sittings  # notebooks/sittings.py

CORE = re.compile(r'(<li class="toctree-l1[^"]*"><a class="[^"]*" href="[^"]*">)((\d\d) · [^<]+)(?=</a>)')
BELOW = re.compile(r'<li class="(toctree-l2[^"]*)"><a class="([^"]*)" href="([^"]*)">(\d\d) · ([^<]+)</a></li>')
CAPTION = '<span class="caption-text">Lessons</span>'
AREA = re.compile(r'<div class="prev-next-area">.*?</div>\s*(?=</footer>)', re.DOTALL)
EXERCISES = Path(__file__).resolve().parents[2] / "data" / "exercises"
MINUTES = ' <span class="nav-minutes">{} min</span>'


@cache
def core() -> list[str]:
    """The core lessons in order, such as "04_dynamic_axes"."""
    return [lesson["file"] for lesson in sittings.lessons()]


@cache
def titles() -> dict[str, str]:
    """Title of each lesson, deeper page and exercise, by its path below `notebooks/`, without ending."""
    found = {}
    for lesson in sittings.lessons():
        name, number = lesson["file"], lesson["file"][:2]
        found[name] = f"{number} · {lesson['title']}"
        found |= {f"deeper/{page['file']}": page["title"] for page in lesson.get("deeper", [])}
        if (EXERCISES / f"{name}.py").exists():
            found[f"exercises/{name}"] = f"{number} · Exercises"
    return found


def side_bar(page: str, here: str) -> str:
    """HTML of a page: lessons with their minutes, what lies below in groups, and the hours of all lessons.

    here: its path below `notebooks/`, without ending, if it lies there.
    """
    page = page.replace(CAPTION, CAPTION.replace("</span>", f" · {sittings.core_hours()}</span>"))
    by_number = {name[:2]: name for name in core()}
    page = CORE.sub(lambda m: m[1] + m[2] + MINUTES.format(sittings.minutes_of(by_number[m[3]])), page)
    group = ("", "")

    def below(m: re.Match[str]) -> str:
        nonlocal group
        kind = "Exercises" if m[5].startswith("Exercises") else "Deeper"
        head = "" if (m[4], kind) == group else f'<li class="toctree-l2 nav-group">{kind}</li>\n'
        group = (m[4], kind)
        text, time = m[5].partition(": ")[2].capitalize(), ""
        if kind == "Deeper":  # the current page's link is "#"
            name = here if m[3] == "#" else f"deeper/{posixpath.basename(m[3]).removesuffix('.html')}"
            text, time = m[5], MINUTES.format(sittings.minutes_of(name))
        return f'{head}<li class="{m[1]}"><a class="{m[2]}" href="{m[3]}">{text}{time}</a></li>'

    return BELOW.sub(below, page)


def path(page: str, name: str) -> str:
    """HTML of a page with previous and next along the core path. name: such as "notebooks/deeper/04_static_again.html"."""
    here = name.removeprefix("notebooks/").removesuffix(".html")
    if here not in titles():
        return page
    before, after = neighbours(here)
    links = [_link(here, target, side) for target, side in ((before, "left"), (after, "right")) if target]
    return AREA.sub('<div class="prev-next-area">\n' + "\n".join(links) + "\n</div>\n", page)


def neighbours(here: str) -> tuple[str, str]:
    """The pages before and after one; "" at the ends.

    A lesson stands between lessons. A deeper page comes from its lesson and goes on to the next deeper one, the last one to
    the exercises, where the lesson has some; these go on to the next lesson.
    """
    file = posixpath.basename(here)
    lesson = next(name for name in core() if name[:2] == file[:2])
    at = core().index(lesson)
    following = core()[at + 1] if at + 1 < len(core()) else ""
    if here == lesson:
        return core()[at - 1] if at else "", following
    if here.startswith("exercises/"):
        return lesson, following
    pages = [name for name in titles() if name.startswith(f"deeper/{lesson[:2]}_")]
    later = pages[pages.index(here) + 1 :]
    exercises = f"exercises/{lesson}"
    return lesson, (later or [exercises if exercises in titles() else following])[0]


def _link(here: str, target: str, side: str) -> str:
    href = posixpath.relpath(f"{target}.html", posixpath.dirname(here) or ".")
    word = {"left": "previous", "right": "next"}[side]
    if side == "left" and "/" in here:
        word = "back to the lesson"
    if side == "right" and "/" in here and "/" not in target:
        word = "next lesson"
    info = (
        f'<div class="prev-next-info"><p class="prev-next-subtitle">{word}</p>'
        f'<p class="prev-next-title">{escape(titles()[target])}</p></div>'
    )
    icon = f'<i class="fa-solid fa-angle-{side}"></i>'
    parts = f"{icon}{info}" if side == "left" else f"{info}{icon}"
    return f'<a class="{side}-{"prev" if side == "left" else "next"}" href="{href}" title="{word}">{parts}</a>'
