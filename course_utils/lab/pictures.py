"""The drawings of the lessons, from `data/pictures/`: SVG that follows light and dark."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

from ..errors import CourseError
from ..paths import data_path

# Ink is the text colour of the page, so a drawing is readable on a light and on a dark ground. Five colours that people
# with colour blindness tell apart (Okabe and Ito); fills are thin, and let the ground through.
_COLOURS = {"blue": "#0072B2", "orange": "#E69F00", "green": "#009E73", "red": "#D55E00", "pink": "#CC79A7"}
_STYLE = """
.drawing{max-width:100%;overflow-x:auto}
.drawing svg{display:block;width:100%;min-width:34rem;max-width:56rem;height:auto;margin:.5em auto;
font-family:system-ui,sans-serif;font-size:14px;color:var(--pst-color-text-base,var(--jp-ui-font-color1,inherit))}
.drawing text{fill:currentColor}
.drawing .small{font-size:12px}.drawing .strong{font-weight:600}.drawing .middle{text-anchor:middle}.drawing .end{text-anchor:end}
.drawing .code{font-family:ui-monospace,monospace;font-size:13px}
.drawing .box{fill:none;stroke:currentColor;stroke-width:1.5}
.drawing .line{fill:none;stroke:currentColor;stroke-width:1.5}.drawing .dashed{stroke-dasharray:5 4}
.drawing .head{fill:currentColor;stroke:none}
""" + "".join(
    f".drawing .{name}{{fill:{colour};fill-opacity:.16;stroke:{colour};stroke-width:1.5}}"
    f".drawing .{name}-line{{fill:none;stroke:{colour};stroke-width:2.5}}.drawing .{name}-head{{fill:{colour};stroke:none}}"
    for name, colour in _COLOURS.items()
)


@dataclass(frozen=True)
class Picture:
    """What `picture()` shows. text: what the drawing says, in words."""

    svg: str
    text: str

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return f'<div class="drawing" tabindex="0"><style>{_STYLE}</style>{self.svg}</div>'


def picture(name: str) -> Picture:
    """Show a drawing. First used in lesson 00.

    name: of a file in `data/pictures/`, without ending. Raises CourseError when there is no such drawing.
    """
    path = data_path(f"pictures/{name}.svg")
    if not path.exists():
        have = ", ".join(sorted(file.stem for file in path.parent.glob("*.svg")))
        raise CourseError(f"There is no drawing {name!r}. There are: {have}.")
    svg = path.read_text(encoding="utf-8")
    words = re.search(r"<desc>(.*?)</desc>", svg, re.DOTALL)
    assert words is not None  # each drawing of the course says in words what it shows
    return Picture(svg, html.unescape(words[1].strip()))
