"""nbgrader's settings for the instructor's course folder: `source/`, `release/`, `submitted/` and so on lie beside this file."""

import os
from pathlib import Path

from nbconvert.preprocessors import ClearMetadataPreprocessor
from nbgrader.preprocessors import (
    AssignLatePenalties,
    CheckCellMetadata,
    ClearOutput,
    IgnorePattern,
    LimitOutput,
    OverwriteKernelspec,
    SaveAutoGrades,
)

from course_utils.grading.autograding import AsReleased, MarkAnswers, RunNotebook

c = get_config()  # noqa: F821 - nbgrader gives it
here = Path(__file__).resolve().parent

c.CourseDirectory.course_id = "onnx-scroll"
c.CourseDirectory.root = str(here)
c.CourseDirectory.student_id = "*"  # settings of the hub may name the instructor, who grades everybody
c.Exchange.root = os.environ.get("COURSE_EXCHANGE", "/usr/local/share/nbgrader/exchange")

# What was released is what is graded, and points come from the answers' files. See jupyter-book/hub.md.
c.Autograde.sanitize_preprocessors = [AsReleased, ClearOutput, OverwriteKernelspec, CheckCellMetadata]
c.Autograde.autograde_preprocessors = [
    RunNotebook,
    IgnorePattern,
    ClearMetadataPreprocessor,
    LimitOutput,
    MarkAnswers,
    SaveAutoGrades,
    AssignLatePenalties,
    CheckCellMetadata,
]
c.Execute.timeout = 120  # seconds for a cell

# A text file with one long word that only instructors know, in a folder that students cannot read.
if (here / "secret.txt").exists():
    c.MarkAnswers.secret_file = str(here / "secret.txt")
# c.MarkAnswers.class_key = "…"  # where the parameters of the class were drawn with a key of its own
