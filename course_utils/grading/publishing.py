"""What people read and other systems load, made from `results.json`."""

from __future__ import annotations

from pathlib import Path

from . import class_page, feedback, figures, lms, similar
from .reading import Report


def publish(folder: Path, submissions: Path, key: str = "") -> list[str]:
    """Write pages, forms and the list of answers that are alike into the folder of a report; returns their names.

    submissions: the folder that was graded; key: of the class. The same report gives the same files. Raises CourseError when the disk is full.
    """
    report = Report(folder)
    groups, not_looked_at = similar.look(report, submissions, key)
    similar.write(folder, groups, not_looked_at)
    class_page.write(report, figures.count(report), groups)
    feedback.write(report, submissions)
    lms.write(report)
    return [class_page.CLASS, f"{feedback.FOLDER}/", similar.SIMILAR, *lms.FORMS]
