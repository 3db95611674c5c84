"""The explorer of lesson 09."""

from __future__ import annotations

import json
import re

import pytest
from ipywidgets.embed import dependency_state

import course_utils as cu
from course_utils.exercises.ch09.tasks import TASKS
from course_utils.widgets.symptoms import SYMPTOMS, words

# What the installed packages say to a patient, as far as it is the same in all their versions.
SAYS = {
    "9.1": "Got invalid dimensions",
    "9.2": "opset",
    "9.3": "IR",
    "9.4": "external",
    "9.5": "not a registered",
    "9.8": "ExecutionProvider",
    "9.10": "shape",
    "9.12": "Got invalid dimensions",
    "9.15": "input",
}


def test_one_symptom_for_each_patient():
    assert sorted(s.case for s in SYMPTOMS) == sorted(t.id for t in TASKS)


@pytest.mark.parametrize("symptom", SYMPTOMS, ids=lambda s: s.case)
def test_words_are_the_real_ones(symptom):
    said = words(symptom)
    assert (symptom.provoke is not None) == (symptom.case in SAYS)
    assert re.search(SAYS.get(symptom.case, "."), said, re.IGNORECASE), said
    assert "/tmp" not in said
    assert "in this version" not in said


def test_codes_of_the_doctor_exist():
    from course_utils.diagnosis.vocabulary import all_codes

    known = {code.id for code in all_codes()}
    for symptom in SYMPTOMS:
        _, _, named = symptom.tool.partition("cu.doctor(path): ")
        for name in re.findall(r"\b[a-z0-9]+(?:-[a-z0-9]+)+\b", named):
            assert name in known, name


def test_the_page_stays_small_and_switches_without_a_kernel():
    state = dependency_state([cu.symptom_explorer()])  # its own, without widgets of other tests
    assert len(json.dumps(state)) < 100_000
    models = [m["model_name"] for m in state.values()]
    assert models.count("LinkModel") == 1
