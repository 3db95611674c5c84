"""Steps of nbgrader's autograder for this course; `data/hub/course/nbgrader_config.py` puts them into its lists.

nbgrader gives a check cell all points unless its output is an error, a number, or anything on the standard error. That
counts what a student's own code printed. Here the points come from the answers' files, which are examined as everywhere
else: in a guarded process, not in the student's kernel, with the instructor's secret.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path
from typing import Any

from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from nbgrader.api import Gradebook
from nbgrader.preprocessors import Execute, NbGraderPreprocessor
from nbgrader.utils import is_grade, setenv
from traitlets import Unicode

from ..errors import CourseError
from ..exercises import Task, task
from ..handin import guarded
from ..handin.checks import CheckResult, read_artefact
from ..paths import WORK
from .secret import read_secret

CHECK = re.compile(r"check-(\d+)-(\d+)")  # the grade id that the course gives to the check cell of a task
_Both = tuple[NotebookNode, dict[str, Any]]


class AsReleased(NbGraderPreprocessor):
    """Put back what was released: nbgrader's metadata of each cell, the text of locked cells, and check cells that are missing.

    In the place of nbgrader's own DeduplicateIds and OverwriteCells. Those fail at metadata of another form, and at a check
    cell that was deleted together with the answer above it; metadata of a newer version ends the run for all students. Of
    copies of a cell the last one counts, as in nbgrader.
    """

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> _Both:
        released = _released(resources["nbgrader"])
        seen = set()
        for place in reversed(range(len(nb.cells))):
            cell = nb.cells[place]
            about = cell.metadata.pop("nbgrader", None)
            name = about.get("grade_id") if isinstance(about, dict) else None
            if isinstance(name, str) and name in released and name not in seen:
                seen.add(name)
                nb.cells[place] = _as_released(cell, released[name])
        for name, cell in released.items():
            if cell.metadata.nbgrader.grade and name not in seen:
                self.log.warning("The cell %s is missing: it is put back at the end.", name)
                nb.cells.append(cell)
        if (nb.nbformat, nb.nbformat_minor) < (4, 5):  # cells have no ids there
            for cell in nb.cells:
                cell.pop("id", None)
        return nb, resources


def _released(about: dict[str, Any]) -> dict[str, NotebookNode]:
    """The cells of a notebook that nbgrader knows, by grade id, in order."""
    with Gradebook(about["db_url"]) as gradebook:
        source = gradebook.find_notebook(about["notebook"], about["assignment"])
        points = {cell.name: cell.max_score for cell in [*source.grade_cells, *source.task_cells]}
        solutions, tasks = ({cell.name for cell in cells} for cells in (source.solution_cells, source.task_cells))
        cells = {}
        for it in source.source_cells:
            metadata = {
                "schema_version": 3,
                "grade_id": it.name,
                "grade": it.name in points and it.name not in tasks,
                "solution": it.name in solutions,
                "task": it.name in tasks,
                "locked": it.locked,
                "checksum": it.checksum,
                "cell_type": it.cell_type,
                **({"points": points[it.name]} if it.name in points else {}),
            }
            make = new_code_cell if it.cell_type == "code" else new_markdown_cell
            cells[it.name] = make(it.source, metadata={"nbgrader": metadata})
        return cells


def _as_released(cell: NotebookNode, released: NotebookNode) -> NotebookNode:
    """A student's cell with its text, unless it is locked, and all else as it was released."""
    if not released.metadata.nbgrader.locked:
        released.source = cell.source
    if cell.get("id"):
        released.id = cell.id
    return released


class RunNotebook(Execute):
    """Run the student's notebook as this student, beginning without `work/`: what counts is what the notebook makes.

    With `--no-execute`, nbgrader leaves this step out, and the files of `work/` count that were handed in.
    """

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any], km: Any = None) -> _Both:
        shutil.rmtree(Path(resources["metadata"]["path"]) / WORK, ignore_errors=True)  # a copy, in `autograded/`
        with setenv(COURSE_STUDENT=resources["nbgrader"]["student"]):
            try:
                return super().preprocess(nb, resources, km)
            except DeadKernelError as error:  # what was made until then counts
                self.log.warning("The kernel ended before the notebook did: %s", error)
        return nb, resources


class MarkAnswers(NbGraderPreprocessor):
    """Give each check cell the output that nbgrader takes its points from: what the check says of the answer's file.

    A task that is solved in part earns its share of the cell's points. Raises CourseError where this machine cannot grade a
    task: nbgrader names the student, gives no marks, and goes on with the next one.
    """

    secret_file = Unicode("", help="Text file with the word that hidden inputs are drawn from.").tag(config=True)
    class_key = Unicode("", help="The key that the parameters of the class are drawn from.").tag(config=True)

    def preprocess(self, nb: NotebookNode, resources: dict[str, Any]) -> _Both:
        secret = read_secret(Path(self.secret_file) if self.secret_file else None)
        who = resources["nbgrader"]["student"]
        for cell in nb.cells:
            found = is_grade(cell) and CHECK.fullmatch(cell.metadata.nbgrader.grade_id)
            if found:
                with contextlib.chdir(resources["metadata"]["path"]):  # messages name files as the student does
                    result = self._result(task(".".join(found.groups())), who, secret)
                cell.outputs = [_output(result, float(cell.metadata.nbgrader.points))]
        return nb, resources

    def _result(self, it: Task, who: str, secret: str) -> CheckResult:
        path = WORK / it.file
        try:
            data = read_artefact(it, path)
        except CourseError as error:
            return CheckResult(it, (), problem=str(error))
        verdict = guarded.examine(it, data, str(path), who, secret=secret, key=self.class_key)
        if verdict.lacking or verdict.ended in guarded.FROM_OUTSIDE:
            raise CourseError(f"Task {it.id} of {who!r} cannot be graded now. {verdict.problem} Then autograde again.")
        return CheckResult(it, verdict.criteria, problem=verdict.problem)


def _output(result: CheckResult, points: float) -> NotebookNode:
    reached, of = result.score
    shown = {"text/plain": repr(points * reached / of), "text/html": result._repr_html_()}
    return new_output("execute_result", data=shown, execution_count=None)
