"""An exercise with the tasks of a class only: sections of other tasks go, helpers that the rest needs stay."""

from __future__ import annotations

import re
import symtable
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from course_utils.errors import CourseError

_HEADING = re.compile(r"^(#{2,6}) (?:(\d+\.\d+)\b)?", re.MULTILINE)
_OF_A_TASK = re.compile(r'^# Task \d|^cu\.(check|hint|solution)\("', re.MULTILINE)
_ANSWER_FILE = re.compile(r"work/(\d+\.\d+)\.(?:onnx|json)\b")
_MAGIC = re.compile(r"^\s*[%!].*$", re.MULTILINE)


@dataclass
class _Section:
    """task: its id; "" for what belongs to several tasks, or to none. level: number of # in its heading."""

    task: str = ""
    level: int = 0
    cells: list[NotebookNode] = field(default_factory=list)


def cut(book: NotebookNode, tasks: Collection[str]) -> NotebookNode:
    """Take out, in place, the sections of all other tasks, and those that lead to none of the tasks any more.

    Code of another task's section stays when it defines what a kept cell uses; its answer never does. Raises CourseError where
    a task, or its solution, builds on the answer to a task that is not selected.
    """
    sections = list(_sections(book))
    kept = [_is_kept(sections, place, tasks) for place in range(len(sections))]
    needed: set[str] = set()
    lost: dict[str, str] = {}  # name → the task whose answer defines it
    cells: list[NotebookNode] = []
    for section, stays in zip(reversed(sections), reversed(kept), strict=True):
        for cell in reversed(section.cells):
            code = cell.cell_type == "code"
            defines, uses = _names(cell.source) if code else (set(), set())
            if stays or (
                code and defines & needed and not _OF_A_TASK.search(cell.source)
            ):
                needed = (needed - defines) | (uses - defines)
                cells.append(cell)
            elif code and section.task:
                lost |= dict.fromkeys(defines, section.task)
    missing = sorted({lost[name] for name in needed & lost.keys()})
    files = (
        id
        for cell in cells
        if cell.cell_type == "code"
        for id in _ANSWER_FILE.findall(cell.source)
    )
    if missing := missing or [id for id in files if id not in tasks]:
        raise CourseError(
            f"One of the tasks {', '.join(tasks)} builds on the answer to {missing[0]}, which is not selected: select it, too."
        )
    book.cells = cells[::-1]
    return book


def _sections(book: NotebookNode) -> Iterator[_Section]:
    current = _Section()
    for cell in book.cells:
        for part in _parts(cell):
            found = (
                _HEADING.match(part.source)
                if part.cell_type == "markdown"
                else None
            )
            level = len(found[1]) if found else 0
            # A heading without a number, deeper than that of its task, is a part of the task.
            if found and (found[2] or not (current.task and level > current.level)):
                yield current
                current = _Section(found[2] or "", level)
            current.cells.append(part)
    yield current


def _parts(cell: NotebookNode) -> Iterator[NotebookNode]:
    """A cell of prose with several headings, each with what stands below it."""
    starts = (
        [match.start() for match in _HEADING.finditer(cell.source)]
        if cell.cell_type == "markdown"
        else []
    )
    if not starts or starts == [0]:
        yield cell
        return
    for begin, end in zip([0, *starts], [*starts, len(cell.source)], strict=True):
        if text := cell.source[begin:end].strip():
            yield new_markdown_cell(text, metadata=cell.metadata)


def _is_kept(sections: list[_Section], place: int, tasks: Collection[str]) -> bool:
    if sections[place].task:
        return sections[place].task in tasks
    below = []
    for section in sections[place + 1 :]:
        if not section.task:
            break
        below.append(section.task)
    return place == 0 or not below or any(id in tasks for id in below)


def _names(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell defines, and names that it uses."""
    defines: set[str] = set()
    uses: set[str] = set()
    tables = [symtable.symtable(_MAGIC.sub("pass", source), "cell", "exec")]
    for table in tables:
        tables += table.get_children()
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            name = symbol.get_name()
            if top and (symbol.is_assigned() or symbol.is_imported()):
                defines.add(name)
            if symbol.is_referenced() and (top or symbol.is_global()):
                uses.add(name)
    return defines, uses


def say_the_class(book: NotebookNode, sentence: str) -> None:
    """Put a sentence of the class below the title."""
    title, _, rest = book.cells[0].source.partition("\n")
    book.cells[0].source = f"{title}\n\n{sentence}\n{rest}"
