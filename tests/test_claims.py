"""The claims ledger: complete, well-formed, and every verdict upheld by exactly one cell."""

from __future__ import annotations

import ast
import importlib
import json
import re

import jupytext
import pytest
import yaml
from checkout import ROOT

import course_utils as cu
from course_utils.environment import PACKAGES
from course_utils.lab import claims
from course_utils.paths import data_path

NOTEBOOKS = ROOT / "notebooks"
# The lessons and what lies deeper, as paths below `notebooks/`, without ending.
LESSONS = {
    path.relative_to(NOTEBOOKS).with_suffix("").as_posix(): path
    for place in ("", "deeper/")
    for path in sorted(NOTEBOOKS.glob(f"{place}[0-9][0-9]_*.py"))
}
SECTIONS = {"1", "2.1", "2.2", "3", "3.1", "3.2", "4", "5", "5.1", "5.2", "6", "6.1", "6.2", "7.1", "7.2", "7.3"}
SECTIONS |= {"8.1", "8.2", "8.3", "Appendix"}
ENTRIES = yaml.safe_load(data_path("claims.yml").read_text(encoding="utf-8"))
EVIDENCE = re.compile(r"^cu\.claim\(\s*[\"']([\w-]+)[\"']", re.MULTILINE)


def evidence_cells() -> list[tuple[str, str]]:
    """(claim id, lesson) of every cell that gives evidence."""
    return [(id, name) for name, path in LESSONS.items() for id in EVIDENCE.findall(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("entry", ENTRIES, ids=[e["id"] for e in ENTRIES])
def test_entry_is_well_formed(entry):
    wanted = {"id", "section", "statement", "lesson", "verdict", "today"}
    assert wanted <= set(entry) <= {*wanted, "since", "record"}
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", entry["id"])
    assert entry["lesson"] in LESSONS
    assert isinstance(entry["section"], str)
    assert entry["statement"].strip().endswith(".")
    assert entry["verdict"] in claims.VERDICTS
    assert entry["today"].strip()
    for package, version in entry.get("since", {}).items():
        assert package in PACKAGES, f"{package} is not a package whose version the course reads"
        assert isinstance(version, str), f"{version} must stand in quotes: 2.10 is not the number 2.1"


def test_ledger_is_complete():
    """The report makes about fifty statements, in every one of its sections; none may be dropped."""
    ids = [entry["id"] for entry in ENTRIES]
    assert len(set(ids)) == len(ids) >= 53
    named = {part.strip() for entry in ENTRIES for part in re.sub(r"\(.*?\)", "", entry["section"]).split(",")}
    assert named == SECTIONS
    assert list(claims.ledger()) == ids


def test_every_verdict_has_exactly_one_evidence_cell_in_its_lesson():
    cells = evidence_cells()
    expected = [(entry["id"], entry["lesson"]) for entry in ENTRIES]
    assert sorted(cells) == sorted(expected)


def names_in(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def claims_that_rest_on_a_record() -> set[str]:
    """The claims whose evidence uses what was read from a record, followed through the assignments of its lesson."""
    found = set()
    for lesson in LESSONS.values():
        recorded: set[str] = set()
        for cell in jupytext.read(lesson, fmt="py:percent").cells:
            if cell.cell_type != "code" or cell.source.startswith("%%"):
                continue
            for node in ast.walk(ast.parse(cell.source)):
                if not isinstance(node, ast.Assign):
                    continue
                read = {call.func.attr for call in ast.walk(node.value) if isinstance(call, ast.Call)
                        and isinstance(call.func, ast.Attribute)}  # fmt: skip
                made = set.union(*map(names_in, node.targets))
                if read & {"ep_record", "deployment_record", "telemetry_record"} or names_in(node.value) & recorded:
                    recorded |= made
            for id in EVIDENCE.findall(cell.source):
                call = cell.source[cell.source.index("cu.claim(") :]
                found |= {id} if names_in(ast.parse(call)) & recorded else set()
    return found


def test_a_claim_that_rests_on_a_record_says_so():
    assert claims_that_rest_on_a_record() == {entry["id"] for entry in ENTRIES if "record" in entry}


@pytest.mark.parametrize("id", [entry["id"] for entry in ENTRIES if "record" in entry])
def test_the_record_is_named_with_its_machine_and_version(id):
    file, _, entry = claims.ledger()[id].record.partition("#")
    found = json.loads(data_path(file).read_text(encoding="utf-8"))
    found = found[entry] if entry else found
    sentence = claims.ledger()[id].recorded
    for what in (found["date"], found["machine"]["processor"], f"onnxruntime {found['versions']['onnxruntime']}."):
        assert what in sentence
    proof = claims.Proof(claims.ledger()[id], {"it is so": True})
    assert sentence in repr(proof)
    assert sentence in proof._repr_html_()


def test_a_claim_without_a_record_says_nothing_of_one():
    proof = claims.Proof(claims.ledger()["protobuf-compact"], {"it is so": True})
    assert "record" not in repr(proof)


def test_the_claims_page_names_records_and_what_is_not_tested(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "notebooks")
    monkeypatch.syspath_prepend(ROOT / "jupyter-book")
    pages = importlib.import_module("pages")
    page = pages.claims()
    recorded = [entry["id"] for entry in ENTRIES if "record" in entry]
    assert f"The evidence of {len(recorded)} statements rests in part on a record" in page
    assert page.count("rests in part on a record of 20") == len(recorded)
    missing = page[page.index("## What is not tested") :]
    assert all(pages.for_markdown(what) in missing for _, what, _ in pages.NOT_COVERED)


@pytest.fixture
def book(monkeypatch):
    """A ledger of two entries, one of which needs a torch from the future."""
    made = {
        "holds-here": claims.Claim("holds-here", "1", "It <holds>.", "00_start_here", "holds", "Yes."),
        "holds-later": claims.Claim(
            "holds-later", "1", "It will.", "00_start_here", "changed", "Soon.", (("torch", "99.0"), ("onnx", "1.0"))
        ),
    }
    monkeypatch.setattr(claims, "ledger", lambda: made)


def test_true_evidence_shows_the_verdict(book):
    proof = cu.claim("holds-here", {"two is even": True, "numpy says so": __import__("numpy").bool_(True)})
    assert "✓ holds: It <holds>." in repr(proof)
    assert "today: Yes." in repr(proof)
    page = proof._repr_html_()
    assert 'id="claim-holds-here"' in page
    assert "It &lt;holds&gt;." in page


def test_false_evidence_fails_and_names_what_failed(book):
    with pytest.raises(AssertionError, match=r"'holds-here' \(holds\) is not upheld: one is even; so is three$"):
        cu.claim("holds-here", {"two is even": True, "one is even": False, "so is three": 0})


def test_false_evidence_with_a_package_that_is_too_old(book):
    proof = cu.claim("holds-later", {"it does": False})
    assert re.search(r"Not upheld here: it needs torch 99\.0 or newer \(here: [\d.]+\)\.$", repr(proof))
    assert "Not upheld here" in proof._repr_html_()
    assert "onnx 1.0" not in repr(proof)


@pytest.mark.parametrize("evidence", [{}, None, True, ["a"], "it is so"])
def test_no_evidence(evidence, book):
    with pytest.raises(cu.CourseError, match="expects evidence as a dict"):
        cu.claim("holds-here", evidence)


def test_unknown_id_names_near_ones(book):
    with pytest.raises(cu.CourseError, match=r"no claim 'hold-here'.*Did you mean one of: holds-here"):
        cu.claim("hold-here", {"x": True})


@pytest.mark.parametrize(
    ("installed", "least", "excused"),
    [
        ("2.9", "2.10", True),
        ("2.10", "2.9", False),
        ("1.23", "1.23.1", True),
        ("1.31", "1.31.0", False),
        ("1.31rc1", "1.30.0", False),
        ("1.31.0rc1", "1.31", False),
        ("2.10.0a0+git1234", "2.10", False),
        ("1.30.0rc2", "1.31", True),
    ],
)
def test_only_an_older_version_excuses_a_failed_claim(installed, least, excused, monkeypatch):
    entry = claims.Claim("made-up", "1", "It is so.", "00_start_here", "holds", "Yes.", (("onnxruntime", least),))
    monkeypatch.setattr(claims, "ledger", lambda: {"made-up": entry})
    monkeypatch.setattr(claims, "versions", lambda: {"onnxruntime": installed})
    if excused:
        assert "Not upheld here" in repr(cu.claim("made-up", {"it is": False}))
    else:
        with pytest.raises(AssertionError, match="is not upheld"):
            cu.claim("made-up", {"it is": False})
