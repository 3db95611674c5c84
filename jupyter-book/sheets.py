"""One sheet for each lesson, two pages of paper at most: its drawing, what to remember, its calls, statements and messages.

Everything on a sheet is taken from the lesson, the ledger and the index of messages, so a sheet cannot say anything else.
"""

from __future__ import annotations

import html
import re
import subprocess
import tempfile
from pathlib import Path

import jupytext
import publishing
import sittings  # notebooks/sittings.py
from errors import Message  # reading/errors.py
from markdown_it import MarkdownIt
from nbformat import NotebookNode

from course_utils.lab.claims import ledger
from course_utils.lab.pictures import picture
from course_utils.pages.browser_lab import FLAGS, browser

MOST = 2  # pages
SIZES = (9.5, 9, 8.5, 8, 7.5, 7)  # points; the first one that fits is taken
LISTED, LONGEST = 8, 160  # messages, and characters of one
# What a lesson calls, without what belongs to the page.
CALL = re.compile(
    r"\b((?:torch\.(?:onnx|export|jit)|onnx|ort|onnxruntime|cu)(?:\.(?!setup|picture|quiz|claim|listing)\w+)+)\("
)
FONTS = "../_static/vendor/fonts"
SHEET = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title} - The ONNX Scroll</title>
<style>
@font-face {{ font-family: Text; src: url("{fonts}/source-sans-3-latin-wght-normal.woff2"); font-weight: 200 900; }}
@font-face {{ font-family: Heading; src: url("{fonts}/source-serif-4-latin-wght-normal.woff2"); font-weight: 200 900; }}
@font-face {{ font-family: Code; src: url("{fonts}/source-code-pro-latin-wght-normal.woff2"); font-weight: 200 900; }}
@page {{ size: A4; margin: 13mm 15mm; }}
body {{ margin: 0; font: {size}pt/1.38 Text, sans-serif; color: #1c1a17; }}
h1 {{ margin: 0 0 2mm; padding-bottom: 1mm; border-bottom: 1.5pt solid #b58a3c; font: 600 20pt/1.2 Heading, serif; }}
h2 {{ margin: 3.5mm 0 1.2mm; font: 600 12.5pt/1.2 Heading, serif; break-after: avoid; }}
.learn {{ margin: 0 0 2mm; font-size: 1.1em; }}
.drawing {{ text-align: center; }} .drawing svg {{ width: auto; max-width: 100%; height: auto; max-height: 62mm; }}
ul {{ margin: 0; padding-left: 4.5mm; }} li {{ margin: 0 0 0.8mm; break-inside: avoid; }}
code {{ font: 0.9em Code, monospace; color: #6b2424; overflow-wrap: anywhere; }}
a {{ color: #2b5192; text-decoration: none; }}
table {{ width: 100%; border-collapse: collapse; }} td {{ padding: 0.8mm 2mm 0.8mm 0; border-top: 0.4pt solid #d9cfbb; vertical-align: top; }}
tr {{ break-inside: avoid; }} td:nth-child(2) {{ width: 17mm; font-weight: 600; }}
.columns {{ columns: 3; column-gap: 8mm; }}
footer {{ margin-top: 4mm; color: #5f594d; font-size: 0.85em; }}
</style></head><body>
<h1>{title}</h1>
<p class="learn">{learn}</p>
<div class="drawing">{drawing}</div>
<h2>To remember</h2>{recap}
<h2>Calls of the lesson</h2><ul class="columns">{calls}</ul>
{claims}{messages}
<footer>{address} · {versions}</footer>
</body></html>"""
PAGE = """# Summary sheets

One sheet for each lesson, to print: its drawing, what to remember, its calls, which statements hold, and the messages that one meets.
Everything on a sheet stands in the lesson, too.

{links}
"""


def contents() -> str:
    """The page with all sheets, in Markdown."""
    rows = [
        f'<li><a href="sheets/{lesson["file"]}.pdf">{lesson["file"][:2]} · {html.escape(lesson["title"])}</a> (PDF)</li>'
        for lesson in sittings.lessons()
    ]
    return PAGE.format(links="<ul>\n" + "\n".join(rows) + "\n</ul>")


def write(site: Path, messages: list[Message], versions: str) -> bool:
    """Print all sheets into the site's `sheets/`; False where there is no browser to print them."""
    program = browser()
    if program is None:
        return False
    folder = site / "sheets"
    folder.mkdir(exist_ok=True)
    for lesson in sittings.lessons():
        source = folder / f"{lesson['file']}.html"
        for size in SIZES:
            source.write_text(sheet(lesson, messages, versions, size), encoding="utf-8")
            _print(program, source)
            if pages(source.with_suffix(".pdf")) <= MOST:
                break
        source.unlink()
    return True


def sheet(lesson: dict[str, str], messages: list[Message], versions: str, size: float) -> str:
    """HTML of a sheet. size: of the letters, in points."""
    file, title = lesson["file"], f"{lesson['file'][:2]} · {lesson['title']}"
    text = "\n\n".join(cell.source for cell in _cells(file) if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in _cells(file) if cell.cell_type == "code")
    drawing = re.search(r'cu\.picture\("(\w+)"\)', code)
    recap = re.search(r"^## Recap\n(.*?)(?=^\*\*|\Z)", text, re.MULTILINE | re.DOTALL)
    documented = dict(re.findall(r"\[`([^`\]]+)`\]\((https://[^)]+)\)", text))
    calls = {name: documented.get(name, "") for name in [*documented, *CALL.findall(code)]}
    number = file[:2]
    said = [m for m in messages if m.kind != "doctor" and re.search(rf"/{number}_", m.page)]
    return SHEET.format(
        title=html.escape(title),
        learn=html.escape(lesson["learn"]),
        fonts=FONTS,
        size=size,
        drawing=picture(drawing[1])._repr_html_() if drawing else "",
        recap=_html(recap[1] if recap else ""),
        calls="".join(_call(name, url) for name, url in calls.items()),
        claims=_claims(number),
        messages=_messages(said),
        address=f"{publishing.ADDRESS}notebooks/{file}.html",
        versions=html.escape(versions),
    )


def _call(name: str, url: str) -> str:
    said = f"<code>{html.escape(name)}</code>"
    return f'<li><a href="{html.escape(url)}">{said}</a></li>' if url else f"<li>{said}</li>"


def _cells(file: str) -> list[NotebookNode]:
    return list(jupytext.read(sittings.NOTEBOOKS / f"{file}.py", fmt="py:percent").cells)


def _html(text: str) -> str:
    """Markdown as HTML; a link to a page of the course is only its text on paper."""
    return MarkdownIt("commonmark").enable("table").render(re.sub(r"\[([^\]]*)\]\((?!https)[^)]*\)", r"\1", text))


def _claims(number: str) -> str:
    rows = [
        f"<tr><td>{html.escape(claim.statement)}</td><td>{claim.verdict}</td><td>{html.escape(claim.today)}</td></tr>"
        for claim in ledger().values()
        if claim.lesson.rpartition("/")[2].startswith(number)
    ]
    return f"<h2>What the report says, and what is true today</h2><table>{''.join(rows)}</table>" if rows else ""


def _messages(said: list[Message]) -> str:
    texts = [m.text if len(m.text) <= LONGEST else m.text[:LONGEST] + " …" for m in said[:LISTED]]
    rows = [f"<li><code>{html.escape(text)}</code></li>" for text in texts]
    return f"<h2>Messages that one meets</h2><ul>{''.join(rows)}</ul>" if rows else ""


def _print(program: str, source: Path) -> None:
    with tempfile.TemporaryDirectory() as profile:
        command = [program, "--headless", *FLAGS, f"--user-data-dir={profile}", "--no-pdf-header-footer"]
        command += [f"--print-to-pdf={source.with_suffix('.pdf')}", source.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=120)


def pages(pdf: Path) -> int:
    """How many pages a PDF of Chromium has."""
    return len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf.read_bytes()))
