"""Grades in the forms that Canvas, Moodle and Gradescope know. Each item is a percentage, 0 to 100.

`canvas.csv`: the gradebook's own form. The first row names the columns (Student, ID, SIS User ID, SIS Login ID, Section, then
one for each assignment), the second says "Points Possible"; a student is found by the login. A column whose name Canvas does not
know becomes a new assignment, after it has asked.
Sources: https://community.canvaslms.com/t5/Instructor-Guide/How-do-I-import-grades-in-the-Gradebook/ta-p/807 and the reader
itself, https://github.com/instructure/canvas-lms/blob/master/lib/gradebook_importer.rb.

`moodle.csv`: one column that tells who it is, one for each grade item. Which is which is chosen while importing; "Map from"
is `username`. A new item's greatest grade is 100.
Sources: https://docs.moodle.org/en/Grade_import and the reader,
https://github.com/moodle/moodle/blob/main/grade/import/csv/classes/load_data.php.

`gradescope.csv`: Gradescope describes no way to load grades, only rosters. This is the form of the table of grades that it
exports (First Name, Last Name, SID, Email, Sections; for each assignment its grade, "Max Points", "Submission Time" and
"Lateness (H:M:S)"), for the tools that read that. The first four columns are those of its roster.
Source for the roster: https://guides.gradescope.com/hc/en-us/articles/21926598776333-Adding-Students-and-Staff.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable

from ..handin.html_parts import titles
from .figures import grades
from .journal import whole
from .reading import Report
from .results import cell

Grades = dict[str, dict[str, int]]  # student → name of a column → percent
Rows = Iterable[list[str]]
_MOST = "100"  # percent


def _item(column: str, title: str) -> str:
    """What the column of a chapter, or of the whole, is called in the LMS. title: of the class, "" without one."""
    if column == "course":
        return f"ONNX Scroll, {title or 'whole course'} (percent)"
    return f"ONNX Scroll {int(column):02} {titles().get(int(column), f'Lesson {column}')} (percent)"


def canvas(found: Grades, columns: list[str]) -> Rows:
    yield ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *columns]
    yield ["    Points Possible", "", "", "", "", *[_MOST] * len(columns)]
    for who, row in found.items():
        yield [who, "", "", who, "", *(str(row[column]) for column in columns)]


def moodle(found: Grades, columns: list[str]) -> Rows:
    yield ["username", *columns]
    for who, row in found.items():
        yield [who, *(str(row[column]) for column in columns)]


def gradescope(found: Grades, columns: list[str]) -> Rows:
    more = ("", " - Max Points", " - Submission Time", " - Lateness (H:M:S)")
    yield ["First Name", "Last Name", "SID", "Email", "Sections", *(column + end for column in columns for end in more)]
    for who, row in found.items():
        email = who if "@" in who else ""
        cells = (value for column in columns for value in (str(row[column]), _MOST, "", ""))
        yield ["", "", who, email, "", *cells]


FORMS: dict[str, Callable[[Grades, list[str]], Rows]] = {
    "canvas.csv": canvas,
    "moodle.csv": moodle,
    "gradescope.csv": gradescope,
}


def write(report: Report) -> None:
    """Write all forms beside the report's other files. Raises CourseError when the disk is full."""
    names = {column: _item(column, report.scheme.title) for column in (*map(str, report.chapters), "course")}
    found = {who: {names[column]: value for column, value in row.items()} for who, row in grades(report).items()}
    for name, rows in FORMS.items():
        with whole(report.folder / name) as stream:
            csv.writer(stream).writerows([cell(value) for value in row] for row in rows(found, [*names.values()]))
