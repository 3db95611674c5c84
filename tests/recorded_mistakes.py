"""How far each mistake of `WRONG` gets, as it was recorded: `python tests/recorded_mistakes.py` records it anew."""

from __future__ import annotations

import json
from pathlib import Path

from answers import criteria

from course_utils.exercises import Criterion

RECORD = Path(__file__).with_suffix(".json")


def steps(found: list[Criterion]) -> str:
    """A letter for each criterion: g for a goal and c for a condition that is met, G and C for one that is not."""
    return "".join(("c" if c.condition else "g") if c.passed else ("C" if c.condition else "G") for c in found)


def known() -> dict[str, dict[str, str]]:
    """Task → mistake → its steps."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def write() -> None:
    from test_every_exercise import TASKS, answers_to

    every = {
        id: {name: steps(criteria(id, make("ada"))) for name, (make, _) in answers_to(id).WRONG[id].items()}
        for id in TASKS
    }
    RECORD.write_text(json.dumps(every, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
