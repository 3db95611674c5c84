"""The files that lesson 08 writes, taken from the lesson itself: there is no second copy of them."""

from __future__ import annotations

import ast
from pathlib import Path

import jupytext
from checkout import ROOT

LESSON = ROOT / "notebooks" / "08_deployment.py"
# The cells that make `whole`, the model that takes bytes, from `work/08_resnet.onnx`.
WHOLE = ("opset = next(", "parse_model(header", "merge_models(front")


def write_lesson_files(folder: Path) -> Path:
    """Write all that cells with `%%writefile work/…` or `write_text` hold into `folder`; returns its `work/08`."""
    for cell in jupytext.read(LESSON, fmt="py:percent").cells:
        if cell.cell_type != "code":
            continue
        first, _, rest = cell.source.partition("\n")
        if first.startswith("%%writefile "):
            _write(folder / first.split()[1], rest)
        elif ".write_text(" in cell.source:
            for name, text in _written(cell.source):
                _write(folder / name, text)
    return folder / "work" / "08"


def _written(source: str) -> list[tuple[str, str]]:
    """(path, text) of each statement `Path("…").write_text("…")` whose two parts are plain strings."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    value=ast.Call(func=ast.Name(id="Path"), args=[ast.Constant(value=name)]), attr="write_text"
                ),
                args=[ast.Constant(value=str(text))],
            ):
                found.append((name, text))
    return found


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def run_cells(folder: Path, *texts: str) -> dict[str, object]:
    """Run the lesson's cells that contain one of the texts, in `folder`'s stead of the notebook; returns their names."""
    names: dict[str, object] = {}
    for cell in jupytext.read(LESSON, fmt="py:percent").cells:
        if cell.cell_type == "code" and not cell.source.startswith("%%") and any(text in cell.source for text in texts):
            code = cell.source.replace('"work/', f'"{folder.as_posix()}/work/')
            exec(compile(code, "<lesson 08>", "exec"), names)
    return names
