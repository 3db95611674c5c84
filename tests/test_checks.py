"""Checking and handing in, with tasks made for the test: what a student sees, keeps and sends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import nbformat
import pytest
from onnx import TensorProto, helper

import course_utils as cu
from course_utils import exercises, student
from course_utils.exercises import Criteria, Criterion, Task
from course_utils.handin import checks
from course_utils.handin.points import task_points

pytestmark = pytest.mark.usefixtures("folder", "nobody_known", "in_this_process")


def meets(answer, params, rng):
    """The answer says how many of three goals it reaches, whether the condition is met; or how the check itself breaks."""
    if "raise" in answer:
        raise ValueError(f"boom\n{answer['raise']}")
    criteria = Criteria()
    if "form" in answer and not criteria.require("its form", answer["form"], "mend the form"):
        return criteria
    if "n" in answer:
        criteria.require("their own number", answer["n"] == params["n"], "another's")
    for number in range(3):
        criteria.add(f"criterion {number}", number < answer["right"], f"hint <{number}>")
    return criteria


def looks(model, params, rng):
    criteria = Criteria()
    criteria.add("there is a node", len(model.graph.node) > 0, "add one")
    return criteria


def handed_out(params):
    graph = helper.make_graph(
        [helper.make_node("LeakyRelu", ["x"], ["y"], alpha=params["alpha"])],
        "given",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return {"one.onnx": model, "two.onnx": model} if params["two"] else {"one.onnx": model}


TASKS = {
    "1.1": Task("1.1", "Count", "json", meets, points=3, draw=lambda rng: {"n": rng.randrange(10**6)}),
    "1.2": Task(
        "1.2",
        "Model",
        "onnx",
        looks,
        points=1,
        draw=lambda rng: {"alpha": rng.randrange(99) / 100, "two": 0},
        given=handed_out,
    ),
    "1.4": Task("1.4", "Count again", "json", meets, points=3),
    "1.3": Task("1.3", "Models", "onnx", looks, points=1, draw=lambda rng: {"alpha": 0.5, "two": 1}, given=handed_out),
}


@pytest.fixture(autouse=True)
def tasks(monkeypatch):
    monkeypatch.setattr(checks, "task", TASKS.__getitem__)
    return TASKS


@pytest.fixture
def ada():
    student.remember("ada")


def answer(right: int, name: str = "work/1.1.json", **more: object) -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"right": right, **more}))
    return path


def kept(id: str = "1.1", who: str = "ada") -> dict:
    return json.loads(Path(f"work/answers/{who}/{id}.json").read_text())


def test_all_criteria_met(ada):
    result = cu.check("1.1", answer(3))
    assert result.passed
    assert str(result).splitlines() == [
        "Task 1.1: passed, 3 of 3 points. Kept for cu.submit().",
        "  ✓ criterion 0",
        "  ✓ criterion 1",
        "  ✓ criterion 2",
    ]


def test_a_failed_criterion_comes_with_its_hint(ada):
    result = cu.check("1.1", answer(2))
    assert not result.passed
    assert "not there yet, 2 of 3" in str(result)
    assert str(result).endswith("  ✗ criterion 2\n      → hint <2>")
    page = result._repr_html_()
    assert "hint &lt;2&gt;" in page
    assert "hint &lt;1&gt;" not in page, "no hint for what is right"


@pytest.mark.parametrize(
    ("artefact", "sentence"),
    [
        ("work/1.1.json", r"no file 'work/1\.1\.json' yet: .* the cell that begins with '# Task 1\.1' first"),
        (None, r"A path was expected, such as 'work/1\.1\.json', and this is a NoneType"),
        ({"right": 3}, r"A path was expected, .* this is a dict"),
    ],
    ids=["missing", "None", "the value itself"],
)
def test_no_file_to_check(artefact, sentence, ada):
    result = cu.check("1.1", artefact)
    assert not result.passed
    assert re.search(sentence, str(result))
    assert "not checked yet" in result._repr_html_()
    assert not Path("work").exists(), "nothing was kept"


def test_before_the_first_cell():
    assert "run the cell with cu.setup(student=…) first" in str(cu.check("1.1", answer(3)))
    for call in (lambda: cu.params("1.1"), lambda: cu.given("1.2"), cu.submit):
        with pytest.raises(cu.CourseError, match=r"run the cell with cu.setup"):
            call()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "Expecting value"),
        (b'{"right": 3', "delimiter"),
        (b"\xff\xfe", "utf-8"),
        (b"[" * 100_000, "hundreds of levels"),
    ],
    ids=["empty", "cut short", "no text", "too deep"],
)
def test_unreadable_json(data, what, ada):
    Path("mine.json").write_bytes(data)
    result = cu.check("1.1", "mine.json")
    assert "'mine.json' is not a JSON file" in str(result)
    assert what in str(result)
    assert "\n" not in str(result)


def test_unreadable_model(ada):
    Path("mine.onnx").write_bytes(b"PK\x03\x04 no model")
    assert "'mine.onnx' is not an ONNX model: it looks like a zip" in str(cu.check("1.2", "mine.onnx"))


def test_too_large(ada):
    with open("mine.json", "wb") as stream:
        stream.truncate(checks.LARGEST_ARTEFACT + 1)  # takes no space on the disk
    assert "is larger than 64 MiB, and no answer needs more" in str(cu.check("1.1", "mine.json"))


def test_an_error_inside_the_check_is_a_failed_criterion(ada):
    result = cu.check("1.1", answer(3, **{"raise": "x" * 1000}))
    assert not result.passed
    assert result.score == (0, 3)
    assert "✗ the answer can be examined" in str(result)
    assert "ValueError: boom xxx" in result.criteria[0].hint
    assert len(result.criteria[0].hint) < 350


@pytest.mark.parametrize("quoted", ["x" * 10**6, "two\nlines", "half a character: \ud83d"])
def test_a_hint_is_one_line_that_can_be_printed(quoted):
    criteria = Criteria()
    criteria.add("quotes the answer", False, f"It has {quoted}.")
    hint = criteria[0].hint
    assert hint.startswith("It has ")
    assert len(hint) < 700
    assert "\n" not in hint
    assert hint.encode().decode() == hint


def test_the_best_answer_is_kept_and_the_newest_of_equals(ada):
    cu.check("1.1", answer(2, text="first"))
    assert kept()["text"] == "first"
    worse = cu.check("1.1", answer(1, text="worse"))
    assert "An earlier answer has 2 of 3 points and stays the one to hand in" in str(worse)
    assert kept()["text"] == "first"
    cu.check("1.1", answer(2, text="second"))
    assert kept()["text"] == "second"
    cu.check("1.1", answer(3, text="better"))
    assert kept()["text"] == "better"


def test_a_condition_that_is_not_met_leaves_no_points(ada):
    result = cu.check("1.1", answer(3, form=False))
    assert result.score == (0, 3)
    assert "0 of 3 points, because a condition (●) is not met" in str(result)
    assert "  ● ✗ its form\n      → mend the form" in str(result)
    assert "● A condition: it earns no points" in str(result)
    assert "● A condition: it earns no points" in result._repr_html_()
    right = cu.check("1.1", answer(3, form=True))
    assert right.passed
    assert "  ● ✓ its form\n  ✓ criterion 0" in str(right)
    assert "●" not in str(cu.check("1.1", answer(3)))


def test_a_cause_is_named_once(ada):
    """Several criteria fail for one reason: the sizes are told, the reason is not repeated."""
    said = ["The largest difference is 1.5e-05. Swapped.", "The largest difference is 2.25. Swapped.", "Another.", ""]
    result = checks.CheckResult(TASKS["1.1"], tuple(Criterion(f"c{n}", not hint, hint) for n, hint in enumerate(said)))
    expected = [
        "The largest difference is 1.5e-05. Swapped.",
        "The largest difference is 2.25. The cause is the same.",
        "Another.",
    ]
    assert [line.strip() for line in str(result).splitlines() if "→" in line] == [f"→ {hint}" for hint in expected]
    assert result._repr_html_().count("Swapped") == 1


def test_a_check_that_stops_early_takes_nothing_away_from_what_is_missing(ada):
    """Two of three points stay less than three of three, and more than one, however many criteria were looked at."""
    it = Task("1.1", "t", "json", lambda *_: [], points=5)
    of = {
        name: task_points(it, [Criterion("g", passed) for passed in goals])
        for name, goals in {"stopped": [True, True, False], "went on": [True, True, False, True, False]}.items()
    }
    assert of == {"stopped": (2, 5), "went on": (3, 5)}


def test_points_from_another_version_of_the_checks_are_counted_anew(ada):
    """The list says more than today's check does, so that a better answer of today replaces the old one."""
    cu.check("1.1", answer(1))
    path = Path("work/answers/ada/answers.json")
    for old in ({"points": 3, "of": 3, "checks": exercises.VERSION - 1}, {"passed": 9, "of": 9}):
        listed = json.loads(path.read_text())
        entry = listed["tasks"]["1.1"]
        listed["tasks"]["1.1"] = {"file": entry["file"], "sha256": entry["sha256"], **old}
        path.write_text(json.dumps(listed))
        assert "An earlier answer has 1 of 3" in str(cu.check("1.1", answer(0)))
        assert "Kept" in str(cu.check("1.1", answer(2)))
        assert "An earlier answer has 2 of 3" in str(cu.check("1.1", answer(1)))
        cu.check("1.1", answer(2))
        Path("work/answers/ada/1.1.json").unlink()
        cu.check("1.1", answer(1))


def test_an_answer_is_counted_anew_with_the_numbers_of_its_student(ada):
    numbers = [exercises.personal_params(TASKS["1.1"], who)["n"] for who in ("ada", "guest")]
    assert numbers[0] != numbers[1]
    assert cu.check("1.1", answer(2, n=numbers[0])).score == (2, 3)
    assert cu.check("1.1", answer(3, n=numbers[1])).score == (0, 3)
    path = Path("work/answers/ada/answers.json")
    path.write_text(path.read_text().replace(f'"checks": {exercises.VERSION}', f'"checks": {exercises.VERSION - 1}'))
    assert "An earlier answer has 2 of 3" in str(cu.check("1.1", answer(1, n=numbers[0])))


def test_two_notebooks_at_once_lose_nothing(ada, python, folder):
    """Two processes keep twenty answers each, at the same time: all forty are in the list."""
    code = """
    import sys
    from course_utils.handin import keeping
    from course_utils.exercises import Task
    sys.stdin.readline()
    for n in range(20):
        keeping.keep(Task(f"{sys.argv[1]}.{n}", "t", "json", lambda *_: [], points=1), b"{}", "ada", (1, 1))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    both = [subprocess.Popen([*command, name], stdin=subprocess.PIPE, cwd=folder) for name in ("1", "2")]
    for process in both:
        process.stdin.write(b"go\n")
        process.stdin.flush()
    assert [process.wait(120) for process in both] == [0, 0]
    listed = json.loads(Path("work/answers/ada/answers.json").read_text())
    assert set(listed["tasks"]) == {f"{name}.{n}" for name in (1, 2) for n in range(20)}


@pytest.mark.parametrize("errno", [28, 122], ids=["disk full", "quota"])
def test_an_outcome_is_shown_where_it_cannot_be_kept(errno, ada, monkeypatch):
    path = answer(3)

    class Full:
        def __init__(self, *_):
            raise OSError(errno, "No space left on device")

    monkeypatch.setattr("course_utils.paths.os.fdopen", Full)
    result = cu.check("1.1", path)
    assert result.passed
    assert "Not kept for cu.submit(): Cannot write '1.1.json' into" in str(result)
    assert "(No space left on device): delete what you no longer need" in str(result)
    assert not list(Path("work/answers/ada").glob(".1.1*")), "no half of a file"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "work"], ids=["too long", "no name", "a folder"])
def test_a_path_that_is_no_file(name, ada):
    Path("work").mkdir(exist_ok=True)
    said = str(cu.check("1.1", name))
    assert re.search(r"not checked yet\. .*(cannot be read \(|is a folder: give the path of the file)", said)
    assert "\n" not in said
    assert len(said) < 400


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such files")
def test_files_without_an_end_are_not_read(ada):
    os.mkfifo("pipe")
    for name in ("pipe", "/dev/zero"):
        assert f"'{name}' is no ordinary file" in str(cu.check("1.1", name))


def test_the_students_own_file_is_not_touched(ada):
    path = answer(1, name="elsewhere/my answer.json")
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    cu.check("1.1", path)
    cu.check("1.1", "work/answers/ada/1.1.json")  # the kept one itself may be checked again
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert kept()["right"] == 1


def test_two_students_on_one_machine_keep_their_own(ada):
    cu.check("1.1", answer(3))
    student.remember("bob")
    cu.check("1.1", answer(1))
    assert kept(who="ada")["right"] == 3
    assert kept(who="bob")["right"] == 1


@pytest.mark.parametrize(
    "damage",
    [
        "{",
        "[]",
        '{"tasks": 7}',
        '{"tasks": {"1.1": 7}}',
        '{"tasks": {"1.1": {"file": "1.1.json"}}}',
        '{"tasks": {"1.1": {"file": "../1.1.json", "sha256": "", "points": 1, "of": 1, "checks": 2}}}',
        '{"tasks": {"1.1": {"file": "1.1.json", "sha256": "", "points": "1", "of": 1, "checks": 2}}}',
        '{"tasks": {"1.1": {"file": "answers.json", "sha256": "", "points": 1, "of": 1, "checks": 2}}}',
    ],
)
def test_damaged_list_of_answers(damage, ada):
    cu.check("1.1", answer(3))
    Path("work/answers/ada/answers.json").write_text(damage)
    with pytest.raises(cu.CourseError, match=r"answers\.json' is (damaged|not a JSON file)"):
        cu.submit()


def test_strict_raises(ada, monkeypatch):
    monkeypatch.setenv(checks.STRICT, "1")
    assert cu.check("1.1", answer(3)).passed
    for artefact in (answer(2), "nowhere.json"):
        with pytest.raises(AssertionError, match=r"Task 1\.1"):
            cu.check("1.1", artefact)


def test_personal_parameters():
    everyone = [f"student{number}" for number in range(200)]
    drawn = [exercises.personal_params(TASKS["1.1"], who) for who in everyone]
    assert drawn == [exercises.personal_params(TASKS["1.1"], who) for who in everyone]
    assert len({d["n"] for d in drawn}) == 200
    # The same on every machine and with every Python: these numbers must never change.
    assert exercises.personal_params(TASKS["1.1"], "ada") == {"n": 880775}
    first, other, secret = (
        exercises.hidden_inputs(TASKS["1.1"], *args).random() for args in [("ada",), ("bob",), ("ada", "s")]
    )
    assert len({first, other, secret}) == 3


def test_given_models_are_written_once(ada, capsys):
    path = cu.given("1.2")
    assert path == Path("work/given/ada/one.onnx")
    before = path.read_bytes()
    assert cu.given("1.2") == path
    assert capsys.readouterr().out == ""
    path.write_bytes(before + b"mine")
    assert cu.given("1.2").read_bytes() == before + b"mine", "the student's work is left alone"
    assert "was changed since it was handed out; it is left as it is" in capsys.readouterr().out
    assert cu.given("1.3") == [Path("work/given/ada/one.onnx"), Path("work/given/ada/two.onnx")]
    with pytest.raises(cu.CourseError, match=r"Task 1\.1 hands out no model"):
        cu.given("1.1")


@pytest.mark.parametrize("id", ["..", "a/b", "a\\b", "", "x" * 65, ".ada", "ada lovelace", "a\n", 7, ["ada"]])
def test_student_ids_that_cannot_stand_in_a_file_name(id):
    with pytest.raises(cu.CourseError, match="expects 1 to 64 letters"):
        student.remember(id)
    with pytest.raises(cu.CourseError, match="not known yet"):
        student.current()


@pytest.mark.parametrize("id", ["ada", "s1234567", "ada@example.org", "Ünal_7", "x" * 64, "a+b-c"])
def test_student_ids_that_can(id):
    student.remember(id)
    assert student.current() == id


@pytest.mark.parametrize("variable", ["COURSE_STUDENT", "JUPYTERHUB_USER"])
def test_a_hub_knows_its_guests(variable, monkeypatch):
    monkeypatch.setenv(variable, "hub-user")
    student.remember("guest")
    assert student.current() == "hub-user"
    student.remember("ada")
    assert student.current() == "ada", "an id that was typed in counts"


def test_hand_in(ada, capsys):
    cu.check("1.1", answer(3))
    model = handed_out({"alpha": 0.5, "two": 0})["one.onnx"]
    Path("m.onnx").write_bytes(model.SerializeToString())
    cu.check("1.2", "m.onnx")
    Path("work/answers/ada/stray.txt").write_text("not for hand-in")
    first = cu.submit()
    said = capsys.readouterr().out
    assert f"{first}: 2 answers, 2 with all points. Hand in this file." in said
    assert "guest" not in said
    assert re.fullmatch(r"submission_ada_[0-9a-f]{8}\.zip", first.name)
    with zipfile.ZipFile(first) as archive:
        assert sorted(archive.namelist()) == ["1.1.json", "1.2.onnx", "answers.json"]
        assert archive.read("1.2.onnx") == model.SerializeToString()
        listed = json.loads(archive.read("answers.json"))
    assert (listed["student"], listed["course"]) == ("ada", cu.__version__)
    assert listed["tasks"]["1.1"]["file"] == "1.1.json"
    # The same answers give the same file; others give another, and the first stays.
    before = first.read_bytes()
    assert cu.submit() == first
    assert first.read_bytes() == before
    cu.check("1.1", answer(3, text="another"))
    second = cu.submit()
    assert second != first
    assert first.read_bytes() == before


@pytest.mark.parametrize("how", ["changed", "deleted"])
def test_hand_in_leaves_out_an_answer_that_was_not_checked(how, ada, capsys):
    """The others are handed in, and a new check puts the lost one back, even with a lower mark than it had."""
    cu.check("1.1", answer(3))
    cu.check("1.4", answer(3, "work/1.4.json"))
    file = Path("work/answers/ada/1.1.json")
    file.write_text('{"right": 9}') if how == "changed" else file.unlink()
    with zipfile.ZipFile(cu.submit()) as archive:
        assert sorted(archive.namelist()) == ["1.4.json", "answers.json"]
        assert list(json.loads(archive.read("answers.json"))["tasks"]) == ["1.4"]
    said = capsys.readouterr().out
    assert re.search(
        r"Left out\. .*1\.1\.json' was changed or deleted: run the cu\.check\('1\.1', …\) cell again", said
    )
    cu.check("1.1", answer(2))
    assert kept()["right"] == 2
    with zipfile.ZipFile(cu.submit()) as archive:
        assert "1.1.json" in archive.namelist()


def test_nothing_to_hand_in(ada):
    with pytest.raises(cu.CourseError, match=r"no answer to hand in yet: run a cu\.check\(…\) cell first"):
        cu.submit()


def test_a_guest_is_told_so(capsys):
    student.remember("guest")
    cu.check("1.1", answer(1))
    cu.submit()
    assert "It is under the name 'guest'" in capsys.readouterr().out


def test_what_is_handed_in_is_said_with_its_points(ada, capsys):
    """Also of a list from an earlier version of the course, and with a name that somebody wrote by hand."""
    cu.check("1.1", answer(1))
    Path("m.onnx").write_bytes(handed_out({"alpha": 0.5, "two": 0})["one.onnx"].SerializeToString())
    cu.check("1.2", "m.onnx")
    path = Path("work/answers/ada/answers.json")
    listed = json.loads(path.read_text())
    one = listed["tasks"]["1.1"]
    listed["tasks"]["1.é\x1b"] = {"file": one["file"], "sha256": one["sha256"], "passed": 2, "of": 4}
    path.write_text(json.dumps(listed))
    target = cu.submit()
    said = capsys.readouterr().out.splitlines()
    assert said[-4:] == [
        f"{target}: 3 answers, 1 with all points. Hand in this file.",
        "  1.1  1 of 3 points",
        "  1.2  1 of 1 point",
        "  1.é?  2 of 4 points",
    ]
    path.write_text(json.dumps({**listed, "tasks": {"1.1": one}}))
    cu.submit()
    assert ": 1 answer, 0 with all points." in capsys.readouterr().out


@pytest.mark.parametrize("id", ["1.99", "99.1", "1", "1.", "one", "", "1.1.1", None, 4.2])
def test_unknown_task(id):
    with pytest.raises(cu.CourseError, match="There is no task"):
        exercises.task(id)


def test_out_of_order_in_a_real_kernel(folder):
    """Somebody opens an exercise and runs a check before anything else: a sentence, no crash, no traceback."""
    from nbclient import NotebookClient

    task = (
        "from course_utils import exercises\nfrom course_utils.handin import checks\n"
        "it = exercises.Task('1.1', 't', 'json', lambda a, p, r: [exercises.Criterion('there', True)], points=1)\n"
        "checks.task = {'1.1': it}.__getitem__"
    )
    cells = [
        "import course_utils as cu",
        task,
        "cu.check('1.1', 'work/1.1.json')",
        "cu.submit()",
        "cu.node_table('nowhere.onnx')",
        "cu.setup(student='ada')",
        "cu.check('1.1', 'work/1.1.json')",
    ]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells])
    NotebookClient(book, timeout=120, allow_errors=True, resources={"metadata": {"path": str(folder)}}).execute()
    before, submit, table, _, after = [cell.outputs for cell in book.cells[2:]]
    assert before[0].output_type == "execute_result"
    assert "run the cell with cu.setup" in before[0].data["text/plain"]
    for outputs, sentence in ((submit, "It is not known yet who you are"), (table, "There is no file 'nowhere.onnx'")):
        assert outputs[0].ename == "CourseError"
        assert len(outputs[0].traceback) == 1
        assert "\n" not in outputs[0].traceback[0]
        assert sentence in outputs[0].traceback[0]
    assert "no file 'work/1.1.json' yet" in after[0].data["text/plain"]
