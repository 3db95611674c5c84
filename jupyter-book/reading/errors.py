"""The index of error messages: what lessons show when they run, what the patients of lesson 09 say, what the doctor finds."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
from docutils.nodes import make_id

from course_utils.diagnosis.vocabulary import all_codes
from course_utils.widgets.symptoms import SYMPTOMS, words

LONGEST = 300  # characters of a message that are shown
ANSI = re.compile(r"\x1b\[[0-9;]*m")
# How a message begins. What stands before it in its line, such as a key, is left out.
BEGINS = re.compile(
    r"\[(?:ONNXRuntimeError|ShapeInferenceError)\] ?:? ?.{15,}"
    r"|\b(?:[A-Z]\w*(?:Error|Exception|Warning)|InvalidGraph|InvalidArgument|NotImplemented|Fail): .{15,}"
    r"|\bEP Error .{15,}|\bFailed to .{15,}"
)
PYTHON = re.compile(r"^\s*(?:raise|except|def|class|with|if|return|[rf]?\"\"\"|assert|#)\b|RequestError\(|Raises ")
PAGE = """# Error messages

Paste a message, or a part of it. Names, numbers and paths in it make no difference. Nothing is sent anywhere.

<div class="error-search" hidden>
<label for="error-message">Your message</label>
<textarea id="error-message" rows="4" spellcheck="false"></textarea>
<p role="status" id="error-status"></p>
</div>

{table}
"""
HEAD = "<thead><tr><th scope='col'>message</th><th scope='col'>where the course shows it</th></tr></thead>"


@dataclass(frozen=True)
class Message:
    """A message, and the page with its anchor that shows or explains it. kind: "shown", "patient" or "doctor"."""

    text: str
    page: str
    title: str
    kind: str

    @property
    def row(self) -> str:
        say = html.escape(self.text)
        return f'<tr data-kind="{self.kind}"><td>{say}</td><td><a class="reference internal" href="{self.page}">{html.escape(self.title)}</a></td></tr>'


def shown(notebooks: Path) -> list[Message]:
    """The messages in the outputs of the executed notebooks in a folder; each once, where it comes first."""
    found: dict[str, Message] = {}
    for file in sorted(notebooks.rglob("*.ipynb")):
        name = file.relative_to(notebooks).with_suffix("").as_posix()
        title = anchor = ""
        for cell in nbformat.read(file, as_version=4).cells:
            if cell.cell_type == "markdown":
                for mark, text in re.findall(r"^(#{1,2}) (.+)$", cell.source, re.MULTILINE):
                    title, anchor = (text, "") if mark == "#" else (title, f"#{make_id(re.sub(r'[`*]', '', text))}")
                continue
            for text in _messages("\n".join(_texts(cell.get("outputs", [])))):
                message = Message(text, f"notebooks/{name}.html{anchor}", title, "shown")
                found.setdefault(normal(text), message)
    return list(found.values())


def _texts(outputs: list[nbformat.NotebookNode]) -> list[str]:
    return [str(out.get("text") or out.get("data", {}).get("text/plain") or "") for out in outputs]


def _messages(text: str) -> list[str]:
    found = []
    for line in ANSI.sub("", text).splitlines():
        if (match := BEGINS.search(line)) and not PYTHON.search(line):
            said = _closed(match[0])
            found.append(said if len(said) <= LONGEST else said[:LONGEST] + " …")
    return found


def _closed(said: str) -> str:
    """Without what belongs to the list or the text around the message: quotes and brackets that were opened before it."""
    said = said.rstrip(" ,|\\")
    while said and said[-1] in ")]}'\"":
        end = said[-1]
        is_open = said.count(end) % 2 == 0 if end in "'\"" else said.count("([{"[")]}".index(end)]) >= said.count(end)
        if is_open:
            break
        said = said[:-1].rstrip(" ,|\\")
    return said


def normal(text: str) -> str:
    """A message without what differs from case to case: names in quotes, paths, numbers."""
    return " ".join(re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S*|[\W\d_]+", " ", text).lower().split())


def told() -> list[Message]:
    """What the patients of lesson 09 say, and what the doctor finds."""
    from course_utils.diagnosis.vocabulary import LESSONS

    patients = [
        Message(said, f"notebooks/{LESSONS[s.lesson][1]}.html", s.seen, "patient")
        for s in SYMPTOMS
        if s.provoke is not None and (said := words(s))
    ]
    doctor = [
        Message(code.title, code.lesson_file.replace(".ipynb", ".html"), code.id, "doctor") for code in all_codes()
    ]
    return patients + doctor


def page(messages: list[Message]) -> str:
    """The page, in Markdown: a field to paste a message into, and all messages in a table."""
    rows = "\n".join(message.row for message in messages)
    return PAGE.format(table=f"<table class='table error-index'>{HEAD}<tbody>\n{rows}\n</tbody></table>")


def index(messages: list[Message], glossary: str) -> str:
    """What the search page looks through first, as JSON: the terms of the glossary, and the messages."""
    terms = re.findall(r"^## (.+?)\n\n(.+?)(?=\n\n|\Z)", glossary, re.MULTILINE | re.DOTALL)
    plain = re.compile(r"\[([^\]]*)\]\([^)]*\)|[`*]")
    entries = [
        {
            "title": title,
            "text": " ".join(plain.sub(r"\1", text).split()),
            "page": f"notebooks/glossary.html#{make_id(title)}",
        }
        for title, text in terms
    ]
    return json.dumps(
        {"terms": entries, "errors": [{"text": m.text, "title": m.title, "page": m.page} for m in messages]}
    )
