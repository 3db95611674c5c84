"""Make the folder of an nbgrader course from the exercises: `python data/hub/course_folder.py COURSE [--chapters 2 4]`.

It gets `source/02_opsets/02_opsets.ipynb` and so on, with the solutions that nbgrader takes out, and `nbgrader_config.py`. What
is there already with other content is left alone, and named.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "notebooks")]

import generate  # noqa: E402 - notebooks/generate.py
import nbformat  # noqa: E402


def files(chapters: list[int] | None) -> dict[str, str]:
    """What belongs into the folder: path → text. chapters: by number; all without."""
    found = {"nbgrader_config.py": (HERE / "course" / "nbgrader_config.py").read_text(encoding="utf-8")}
    exercises = {int(source.stem[:2]): source for source in generate.sources() if source.parent.name == "exercises"}
    if unknown := set(chapters or []) - exercises.keys():
        sys.exit(f"There is no chapter {min(unknown)} with exercises: there are {', '.join(map(str, exercises))}.")
    for number in chapters or exercises:
        source = exercises[number]
        book = generate.notebook(source, solutions=True)
        # nbgrader takes out solutions in answer cells, and not the cells that explain them.
        book.cells = [cell for cell in book.cells if generate.SOLUTION not in cell.metadata.get("tags", [])]
        found[f"source/{source.stem}/{source.stem}.ipynb"] = nbformat.writes(book) + "\n"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("course", type=Path, help="folder to write into")
    parser.add_argument("--chapters", type=int, nargs="+", metavar="N", help="these alone (all)")
    given = parser.parse_args()
    left = []
    for name, text in files(given.chapters).items():
        path = given.course / name
        if path.exists() and path.read_text(encoding="utf-8") != text:
            left.append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    if left:
        sys.exit(f"Left as they are, because they were changed: {', '.join(left)}. Delete them to get them anew.")


if __name__ == "__main__":
    main()
