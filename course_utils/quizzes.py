"""Predict-first questions, from `data/quizzes/`, shown with jupyterquiz."""

from __future__ import annotations

import json

from .errors import CourseError, require
from .paths import data_path


def quiz(lesson: str, number: int) -> None:
    """Show one question. First used in lesson 00.

    lesson: the lesson's file name without ending, such as "01_graph_structure". number: counts from 1.
    Raises CourseError when there is no such question, or jupyterquiz is not installed.
    """
    path = data_path(f"quizzes/{lesson}.json")
    if not path.exists():
        have = ", ".join(sorted(p.stem for p in path.parent.glob("*.json")))
        raise CourseError(f"There is no quiz for {lesson!r}. There is one for: {have}.")
    questions = json.loads(path.read_text(encoding="utf-8"))
    if not 1 <= number <= len(questions):
        raise CourseError(f"The quiz of {lesson!r} has questions 1 to {len(questions)}, not {number}.")
    require("jupyterquiz").display_quiz([questions[number - 1]], colors="fdsp", border_radius=6)
