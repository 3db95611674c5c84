"""What the doctor says, as text, as HTML and as JSON."""

from __future__ import annotations

import html
import json
import os
import shutil
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..paths import BOOK_MODELS
from .vocabulary import ERROR, NOTE, SEVERITIES, WARNING, Code, Finding, plain

_MARKS = {ERROR: "✗", WARNING: "!", NOTE: "·"}
_COLOURS = {ERROR: "#D55E00", WARNING: "#E69F00", NOTE: "#0072B2"}
_WELL = "#009E73"


@dataclass(frozen=True)
class Report:
    """What `doctor()` found. file: its name. facts: what kind of model it is.

    not_checked: what was left out, and why. unfinished: the part of it in which the examination itself failed, for example
    as a tool is not installed; then a report without findings is no clean bill.
    """

    file: str
    facts: dict[str, str]
    findings: tuple[Finding, ...]
    not_checked: tuple[str, ...] = ()
    seconds: float = 0.0
    unfinished: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.severity == ERROR)

    @property
    def codes(self) -> list[str]:
        """The codes of the findings, the worst first."""
        return [f.code.id for f in self.findings]

    def headline(self) -> str:
        counts = {s: sum(f.severity == s for f in self.findings) for s in SEVERITIES}
        parts = [f"{n} {s}{'s' * (n > 1)}" for s, n in counts.items() if n]
        found = ", ".join(parts) or "nothing found"
        return f"{plain(self.file)}: {found}{', and the examination is not complete' if self.unfinished else ''}"

    def __repr__(self) -> str:
        width = max(60, min(110, shutil.get_terminal_size((100, 24)).columns))
        lines = [self.headline(), *_wrapped("  ", ", ".join(f"{k} {v}" for k, v in self.facts.items()), width)]
        for f in self.findings:
            lines += ["", f"{_MARKS[f.severity]} {f.severity}: {f.code.title} [{f.code.id}]"]
            if f.where:
                lines += _wrapped("    where:  ", f.places, width)
            lines += _wrapped("    cause:  ", f.cause, width) + _wrapped("    cure:   ", f.cure, width)
            lines.append(f"    lesson: {f.code.lesson_name}")
        if self.not_checked:
            lines += [
                "",
                "not examined:",
                *(line for text in self.not_checked for line in _wrapped("  - ", text, width)),
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        colour = next((_COLOURS[s] for s in SEVERITIES if any(f.severity == s for f in self.findings)), "")
        colour = colour or (_COLOURS[WARNING] if self.unfinished else _WELL)
        facts = " · ".join(f"{html.escape(k)} <b>{html.escape(v)}</b>" for k, v in self.facts.items())
        left = "".join(f"<li>{html.escape(text)}</li>" for text in self.not_checked)
        more = (
            f"<p style='margin:.6em 0 0'><small><b>Not examined</b></small></p><ul style='margin:0;padding-left:1.2em'><small>{left}</small></ul>"
            if left
            else ""
        )
        return (
            f'<div class="doctor" style="border-left:5px solid {colour};padding:.4em 1em;line-height:1.45;overflow-wrap:anywhere">'
            f"<p style='margin:0'><b>{html.escape(self.headline())}</b></p>"
            f"<p style='margin:0'><small>{facts}</small></p>"
            f"{''.join(map(_finding_html, self.findings))}{more}</div>"
        )

    def as_dict(self) -> dict[str, Any]:
        from ..version import __version__

        return {
            "format": 1,
            "course_utils": __version__,
            "file": plain(self.file, None),
            "facts": self.facts,
            "counts": {s: sum(f.severity == s for f in self.findings) for s in SEVERITIES},
            "findings": [f.as_dict() for f in self.findings],
            "not_examined": list(self.not_checked),
            "complete": not self.unfinished,
            "seconds": round(self.seconds, 3),
        }

    def to_json(self) -> str:
        """The report as JSON: format (1), file, facts, counts by severity, findings, not_examined, complete, seconds."""
        return json.dumps(self.as_dict(), indent=2, ensure_ascii=False)


def _wrapped(first: str, text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=first, subsequent_indent=" " * len(first), break_on_hyphens=False)


def _finding_html(f: Finding) -> str:
    rows = [("cause", f.cause), ("cure", f.cure)]
    if f.where:
        rows.insert(0, ("where", f.places))
    cells = "".join(
        f"<div style='margin:.15em 0 0 1.3em'><small style='opacity:.75'>{name}</small> {html.escape(text)}</div>"
        for name, text in rows
    )
    # The colour is beside the words, not theirs: orange letters on white are hard to read.
    return (
        f"<div class='finding' style='margin-top:.7em;border-left:4px solid {_COLOURS[f.severity]};padding-left:.6em'>"
        f"<div>{_MARKS[f.severity]} {f.severity}: <b>{html.escape(f.code.title)}</b> <code>{f.code.id}</code></div>{cells}"
        f"<div style='margin:.15em 0 0 1.3em'><small style='opacity:.75'>lesson</small> {_lesson_html(f.code)}</div></div>"
    )


def _lesson_html(code: Code) -> str:
    """The lesson's name; a link where the notebook, or in the book its page, can be found from here."""
    name, target = html.escape(code.lesson_name), code.lesson_file.removeprefix("notebooks/")
    for start in ("", "../"):
        if Path(start, target).is_file():
            if os.environ.get(BOOK_MODELS):
                target = target.replace(".ipynb", ".html")
            return f'<a style="color:inherit" href="{start}{target}">{name}</a>'
    return name
