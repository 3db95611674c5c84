"""Predict-first questions, from `data/quizzes/`: the answer is chosen first, the reason comes after the next cell.

Plain HTML and CSS: a question works in a notebook, on the book's page, and without JavaScript.
"""

from __future__ import annotations

import html
import json
import os
import re
from dataclasses import dataclass
from typing import Any

from ..errors import CourseError
from ..paths import BOOK_MODELS, data_path

_STYLE = """
.quiz{border:1px solid;border-color:var(--pst-color-border,var(--jp-border-color1,#8888));border-radius:8px;
padding:.7em 1em;margin:.5em 0;max-width:48rem;overflow-wrap:anywhere}
.quiz fieldset{border:0;margin:0;padding:0;min-width:0}.quiz legend{font-weight:600;font-size:1em;margin:0 0 .4em;padding:0}
.quiz label{display:flex;gap:.6em;align-items:baseline;padding:.35em .4em;border-radius:6px;cursor:pointer}
.quiz label:has(:checked){background:color-mix(in srgb,currentColor 10%,transparent)}
.quiz label:hover{background:color-mix(in srgb,currentColor 6%,transparent)}
.quiz .ask,.quiz .why{display:none;margin:.5em 0 0}
.quiz:has([type=radio]:checked) .ask{display:block}
"""
_SHOWN = ".quiz-{id} .ask{{display:none!important}}"  # once the reason stands there, nobody needs to ask for it


@dataclass(frozen=True)
class Question:
    """What `quiz()` shows. id: of the page's elements. question: its entry in `data/quizzes/`."""

    id: str
    question: dict[str, Any]

    def __repr__(self) -> str:
        return "\n".join([self.question["question"], *(f"- {one['answer']}" for one in self.question["answers"])])

    def _repr_html_(self) -> str:
        answers = self.question["answers"]
        choices = "".join(
            f'<label><input type="radio" name="quiz-{self.id}" value="{at}"><span>{_inline(one["answer"])}</span></label>'
            for at, one in enumerate(answers)
        )
        reasons = "".join(
            f'<p class="why why-{at}"><b>{"✓" if one["correct"] else "✗"}</b> {_inline(one["feedback"])}</p>'
            for at, one in enumerate(answers)
        )
        asked = "".join(_reason(self.id, at, ":has(.ask :checked)") for at in range(len(answers)))
        return (
            f'<div class="quiz quiz-{self.id}"><style>{_STYLE}{asked}</style>'
            f"<fieldset><legend>{_inline(self.question['question'])}</legend>{choices}</fieldset>"
            f'<label class="ask"><input type="checkbox"> Show me why (after a look at the next result).</label>'
            f'<div aria-live="polite">{reasons}</div></div>'
        )


def quiz(lesson: str, number: int) -> None:
    """Show one question. First used in lesson 00.

    lesson: the notebook's file name without ending, such as "01_graph_structure". number: counts from 1.
    The reason is shown once an answer is chosen and the next cell has run, or when the reader asks for it.
    Raises CourseError when there is no such question.
    """
    from IPython.display import HTML, display

    path = data_path(f"quizzes/{lesson}.json")
    if not path.exists():
        have = ", ".join(sorted(p.stem for p in path.parent.glob("*.json")))
        raise CourseError(f"There is no quiz for {lesson!r}. There is one for: {have}.")
    questions = json.loads(path.read_text(encoding="utf-8"))
    if not 1 <= number <= len(questions):
        raise CourseError(f"The quiz of {lesson!r} has questions 1 to {len(questions)}, not {number}.")
    question = Question(f"{lesson}-{number}", questions[number - 1])
    display(question)
    if os.environ.get(BOOK_MODELS):
        return  # in the book all cells have run long ago: the reader asks
    # The question itself is not drawn anew, since the choice would be lost: an empty output below it becomes a style.
    below = display(HTML(""), display_id=True)
    shown = "".join(_reason(question.id, at, "") for at in range(len(question.question["answers"])))
    _after_the_next_cell(lambda: below.update(HTML(f"<style>{shown}{_SHOWN.format(id=question.id)}</style>")))


def _reason(id: str, at: int, when: str) -> str:
    """The style that shows the reason of one answer: it was chosen, and `when` is so, too."""
    return f'.quiz-{id}:has([value="{at}"]:checked){when} .why-{at}{{display:block!important}}'


def _inline(text: str) -> str:
    """Text with `code` in it, as HTML."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _after_the_next_cell(then: Any) -> None:
    from IPython import get_ipython

    if (shell := get_ipython()) is None:
        return
    ran = []

    def after(result: Any) -> None:
        ran.append(result)
        if len(ran) == 2:  # the first is the cell of the question itself
            shell.events.unregister("post_run_cell", after)
            then()

    shell.events.register("post_run_cell", after)
