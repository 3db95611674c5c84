"""nbgrader on a JupyterHub, end to end: two students with servers of their own on loopback, an instructor, an exchange folder.

The real tools run: JupyterHub, its proxy, nbgrader's server extension and commands. What two students hand in through the hub
is collected, and beside it lie the folders of four more.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
import requests
import submissions
from browser import give_up
from checkout import ROOT
from nbformat import NotebookNode

from course_utils.pages.browser_lab import node, npm_package

COURSE, CHAPTER = "onnx-scroll", "02_opsets"
HUB = ROOT / "data" / "hub"
PATIENCE = 300  # seconds for a server to start, on a machine that does much else
NOISE = 'get_ipython().events.register("post_run_cell", lambda *_: print("noise", file=sys.stderr))'
MARK = "# a mark of the student's own"


class Student:
    """Somebody who is logged in to the hub, as a browser is."""

    def __init__(self, hub: str, name: str, password: str) -> None:
        self.hub, self.name, self.web = hub, name, requests.Session()
        self.web.get(f"{hub}/hub/login")
        login = {"username": name, "password": password, "_xsrf": self.web.cookies.get("_xsrf")}
        done = self.web.post(f"{hub}/hub/login", data=login, allow_redirects=False)
        assert done.status_code == 302, done.text
        self.web.get(f"{hub}/hub/home").raise_for_status()
        token = self.web.post(
            f"{hub}/hub/api/users/{name}/tokens",
            headers={"X-XSRFToken": self.web.cookies.get("_xsrf", path="/hub/"), "Referer": f"{hub}/hub/token"},
        )
        assert token.status_code == 201, token.text
        self.web.headers["Authorization"] = f"token {token.json()['token']}"

    def start_server(self) -> None:
        self.web.post(f"{self.hub}/hub/api/users/{self.name}/server").raise_for_status()

    def wait_for_server(self) -> None:
        wait_until(lambda: self.web.get(f"{self.hub}/hub/api/users/{self.name}").json()["servers"][""]["ready"])

    def nbgrader(self, action: str) -> Any:
        """What nbgrader's extension answers to "fetch", "submit" or "fetch_feedback" in the student's server."""
        address = f"{self.hub}/user/{self.name}/assignments/{action}"
        done = self.web.post(address, params={"course_id": COURSE, "assignment_id": CHAPTER})
        done.raise_for_status()
        assert done.json()["success"], done.json()["value"]
        return done.json()["value"]

    def read(self, path: str) -> Any:
        done = self.web.get(f"{self.hub}/user/{self.name}/api/contents/{path}")
        done.raise_for_status()
        return done.json()["content"]

    def write(self, path: str, book: NotebookNode) -> None:
        body = json.dumps({"type": "notebook", "format": "json", "content": book})
        self.web.put(f"{self.hub}/user/{self.name}/api/contents/{path}", data=body).raise_for_status()


def wait_until(ready: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if ready():
                return
        except (requests.RequestException, KeyError):
            pass
        assert time.monotonic() < deadline, "it did not start"
        time.sleep(0.3)


def free_ports() -> int:
    """The first of three ports in a row that nobody uses."""
    for port in range(20000 + os.getpid() % 20000, 60000, 3):
        try:
            for number in range(port, port + 3):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port
    raise AssertionError("no free ports")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if sys.platform == "win32":
        pytest.skip("nbgrader has no exchange on Windows")
    for package in ("jupyterhub", "nbgrader"):
        if not find_spec(package):
            give_up(f"{package} is not installed: it comes with the extras grading and test.")
    if not node() or not npm_package("configurable-http-proxy"):
        give_up("Node or configurable-http-proxy is missing: make book installs both.")
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub(place: Path) -> Iterator[str]:
    """The address of a hub as `jupyterhub_config.py` makes it."""
    port = free_ports()
    more = {"COURSE_HUB": str(place), "COURSE_HUB_PORT": str(port), "COURSE_HUB_PASSWORD": "for this test"}
    command = [sys.executable, "-m", "jupyterhub", "--config", str(HUB / "jupyterhub_config.py")]
    with open(place / "hub.log", "wb") as log:
        process = subprocess.Popen(command, cwd=place, env={**environment(place), **more}, stdout=log, stderr=log)
        it = psutil.Process(process.pid)
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until(lambda: process.poll() is not None or requests.get(f"{address}/hub/api").ok)
            assert process.poll() is None, (place / "hub.log").read_text()
            yield address
        finally:
            started = it.children(recursive=True) if it.is_running() else []
            process.terminate()  # it ends the servers; the proxy would wait for each connection of the students to be closed
            psutil.wait_procs([it], timeout=60)
            for each in [it, *started]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            process.wait()


def environment(place: Path) -> dict[str, str]:
    """As for a user of this machine: no settings of anybody's, and the course from this checkout."""
    mine = {"HOME": str(place), "COURSE_EXCHANGE": str(place / "exchange"), "PYTHONPATH": str(ROOT)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # nbgrader calls alembic
    return {**os.environ, **mine, "PATH": path, "JUPYTER_PREFER_ENV_PATH": "1", "COURSE_STRICT": ""}


def nbgrader(place: Path, *arguments: str, ok: bool = True) -> str:
    """Run one of nbgrader's commands in the course folder, as the instructor does; returns its log."""
    command = [sys.executable, "-m", "nbgrader", *arguments]
    done = subprocess.run(
        command, cwd=place / "course", env=environment(place), capture_output=True, text=True, check=False, timeout=600
    )
    assert (done.returncode == 0) == ok, done.stdout + done.stderr
    return done.stdout + done.stderr


def look_over(course: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "course_utils.grading", "look-over", "submitted", "--release", "release", *more]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=course, env=env, capture_output=True, text=True, check=False, timeout=120)


@dataclass
class Graded:
    """What is left when all is done. log: of the autograder. looked: what the look over said. feedback: by student."""

    course: Path
    log: str
    looked: subprocess.CompletedProcess[str]
    feedback: dict[str, str]

    def points(self, who: str) -> dict[str, float | None]:
        """By cell, from nbgrader's gradebook."""
        from nbgrader.api import Gradebook

        with Gradebook(f"sqlite:///{self.course / 'gradebook.db'}") as gradebook:
            (notebook,) = gradebook.find_submission(CHAPTER, who).notebooks
            return {grade.name: grade.auto_score for grade in notebook.grades}


def name_of(cell: NotebookNode) -> str:
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def solved(book: NotebookNode, source: NotebookNode, *tasks: str) -> NotebookNode:
    """A released notebook with the answers to these tasks; to all without."""
    book, answers = deepcopy(book), {name_of(cell): cell.source for cell in source.cells if name_of(cell)}
    for cell in book.cells:
        name = name_of(cell)
        if name.startswith("answer-") and (not tasks or name.removeprefix("answer-") in tasks):
            cell.source = answers[name]
    return book


def hand_in(course: Path, who: str, book: NotebookNode | str) -> Path:
    """Put a folder beside those that were collected."""
    folder = course / "submitted" / who / CHAPTER
    folder.mkdir(parents=True)
    text = book if isinstance(book, str) else nbformat.writes(book)
    (folder / f"{CHAPTER}.ipynb").write_text(text, encoding="utf-8")
    # As nbgrader submit does.
    shutil.copy(course / "submitted" / "ada" / CHAPTER / "timestamp.txt", folder)
    (folder / "submission_secret.txt").write_text(secrets.token_hex(64))
    return folder


@pytest.fixture(scope="module")
def graded(place: Path, hub: str) -> Graded:
    """The whole way, once."""
    course, notebook = place / "course", f"{CHAPTER}/{CHAPTER}.ipynb"
    subprocess.run(
        [sys.executable, str(HUB / "course_folder.py"), str(course), "--chapters", "2"], check=True, timeout=120
    )
    (course / "secret.txt").write_text("a word that only the instructor has\n")
    nbgrader(place, "generate_assignment", CHAPTER)
    nbgrader(place, "release_assignment", CHAPTER)
    source = nbformat.read(course / "source" / notebook, as_version=4)

    students = {name: Student(hub, name, "for this test") for name in ("ada", "grace")}
    for student in students.values():
        student.start_server()
    for name, student in students.items():
        student.wait_for_server()
        student.nbgrader("fetch")
        book = nbformat.from_dict(student.read(notebook))
        if name == "ada":
            book = solved(book, source)
            book.cells.insert(2, nbformat.v4.new_code_cell(f"import sys\n{NOISE}\n{MARK}"))
            student.write(notebook, book)
        student.nbgrader("submit")
    nbgrader(place, "collect", CHAPTER)

    released = nbformat.read(course / "release" / notebook, as_version=4)
    twice = solved(released, source, "2-1")
    copy = deepcopy(next(cell for cell in twice.cells if name_of(cell) == "check-2-1"))
    copy.metadata.nbgrader.schema_version, copy.id = 99, "a-copy"
    twice.cells.append(copy)
    hand_in(course, "emmy", twice)
    less = solved(released, source, "2-2", "2-3")
    gone = {"answer-2-1", "check-2-1", "check-2-3"}
    less.cells = [cell for cell in less.cells if name_of(cell) not in gone]
    next(cell for cell in less.cells if name_of(cell) == "check-2-4").source = "1 + 1  # all points, nbgrader would say"
    hand_in(course, "mary", less)
    hand_in(course, "bob", "no notebook")

    looked = look_over(course)
    log = nbgrader(place, "autograde", CHAPTER, ok=False)  # bob's file is none
    nbgrader(place, "generate_feedback", CHAPTER)
    nbgrader(place, "release_feedback", CHAPTER)
    feedback = {}
    for name, student in students.items():
        (entry,) = [e for e in student.nbgrader("fetch_feedback") if e["status"] == "submitted"]
        (handed_in,) = entry["submissions"]
        feedback[name] = student.read(f"{handed_in['local_feedback_path']}/{CHAPTER}.html")
    return Graded(course, log, looked, feedback)


def test_a_solution_has_all_points_whatever_it_prints_on_stderr(graded):
    assert graded.points("ada") == {f"check-2-{n}": 1.0 for n in range(1, 7)}
    book = nbformat.read(graded.course / "autograded" / "ada" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
    noisy = [
        c for c in book.cells if any(o.get("name") == "stderr" and "noise" in o.text for o in c.get("outputs", []))
    ]
    assert len(noisy) > 10  # it was there


def test_a_notebook_without_answers_has_none(graded):
    assert graded.points("grace") == {f"check-2-{n}": 0.0 for n in range(1, 7)}


def test_copied_deleted_and_changed_cells_do_not_change_the_points(graded):
    others = {f"check-2-{n}": 0.0 for n in range(1, 7)}
    assert graded.points("emmy") == {**others, "check-2-1": 1.0}
    assert graded.points("mary") == {**others, "check-2-2": 1.0, "check-2-3": 1.0}


def test_the_batch_goes_on_after_a_file_that_is_no_notebook(graded):
    assert "There was an error processing assignment '02_opsets' for student 'bob'" in graded.log
    assert sorted(p.parts[-2] for p in graded.course.glob(f"autograded/*/{CHAPTER}")) == [
        "ada",
        "emmy",
        "grace",
        "mary",
    ]


def test_the_look_over_names_all_of_it_before(graded):
    start = f"{CHAPTER} · {CHAPTER}.ipynb: "
    assert graded.looked.stdout.splitlines() == [
        f"bob · {start}It is not JSON, so it is no notebook: ask for it anew.",
        f"emmy · {start}The check cell of task 2.1 is there 2 times: its task is graded once.",
        f"emmy · {start}The settings of the check cell of task 2.1 were changed: those that were released count.",
        f"mary · {start}The answer cell of task 2.1 was deleted: unless another cell writes its file, the task has no points.",
        f"mary · {start}The check cell of task 2.1 was deleted: it is put back, and the task is graded by its file.",
        f"mary · {start}The check cell of task 2.3 was deleted: it is put back, and the task is graded by its file.",
        f"mary · {start}The check cell of task 2.4 was changed, and it is read-only: it is graded as it was released.",
        "Looked over: 5 submissions, 7 to look at.",
    ]
    assert graded.looked.returncode == 1
    assert look_over(graded.course, "--move-on").returncode == 0


def test_feedback_reaches_the_student_with_criteria_and_hints(graded):
    assert MARK in graded.feedback["ada"]
    assert "Task 2.1: passed" in graded.feedback["ada"]
    assert MARK not in graded.feedback["grace"]
    assert "Task 2.1: not checked yet. There is no file 'work/2.1.json' yet" in graded.feedback["grace"]


def test_students_get_no_solution(graded):
    notebook = f"{CHAPTER}/{CHAPTER}.ipynb"
    source, released = (
        nbformat.read(graded.course / folder / notebook, as_version=4) for folder in ("source", "release")
    )
    assert "BEGIN SOLUTION" in str(source)
    assert "SOLUTION" not in str(released)
    assert [c.source for c in released.cells] == [
        c.source for c in nbformat.read(ROOT / "notebooks" / "exercises" / f"{CHAPTER}.ipynb", as_version=4).cells
    ]


def test_without_execution_the_files_count_that_were_handed_in(graded, place):
    released = nbformat.read(graded.course / "release" / CHAPTER / f"{CHAPTER}.ipynb", as_version=4)
    released.cells.append(nbformat.v4.new_code_cell("open('it-was-run', 'w').close()"))
    work = hand_in(graded.course, "sofia", released) / "work"
    work.mkdir()
    (work / "2.1.json").write_bytes(submissions.right("2.1", "sofia"))
    (work / "2.2.json").write_bytes(submissions.right("2.2", "ada"))  # somebody else's
    nbgrader(place, "autograde", CHAPTER, "--student", "sofia", "--no-execute")
    points = graded.points("sofia")
    assert points.pop("check-2-1") == 1.0
    assert set(points.values()) == {0.0}
    assert not list(graded.course.rglob("it-was-run"))
    for folder in ("submitted", "autograded"):  # the other tests know who is there
        shutil.rmtree(graded.course / folder / "sofia")
