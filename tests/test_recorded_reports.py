"""The doctor finds the same at the same places as before, with the same numbers."""

from __future__ import annotations

import json

import pytest
from recorded_reports import GIVING, MODELS, RECORD, told, told_of_task

KNOWN = json.loads(RECORD.read_text(encoding="utf-8"))
ON_PURPOSE = "another report than before; if it is meant, run: python tests/recorded_reports.py"


def test_each_model_is_recorded():
    assert (list(KNOWN["models"]), list(KNOWN["tasks"])) == (list(MODELS), GIVING)


@pytest.mark.parametrize("what", MODELS)
def test_a_report_is_as_it_was_recorded(what):
    assert told(what) == KNOWN["models"][what], ON_PURPOSE


@pytest.mark.parametrize("id", GIVING)
def test_a_report_on_what_a_task_hands_out(id):
    assert told_of_task(id) == KNOWN["tasks"][id], ON_PURPOSE
