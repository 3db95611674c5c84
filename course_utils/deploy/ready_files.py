"""Files that lessons start, change and hand on: copied into the student's folder, and shown in the part that matters."""

from __future__ import annotations

import ast
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from ..errors import CourseError
from ..paths import PACKAGE, data_path, write_whole

_PROGRAMS = ("server", "on_ray")  # packages of their own: a copy runs without the course
_OTHERS = ("container", "in_node", "model", "page", "triton")
_LEFT_OUT = ("__pycache__", "ruff.toml", ".ruff_cache")
_LANGUAGES = {".py": "python", ".js": "javascript", ".mjs": "javascript", ".html": "html", ".json": "json"}
_LANGUAGES |= {"Dockerfile": "docker"}


def home_of(name: str) -> Path:
    """Where the course keeps the files of that name. Raises CourseError when there are none."""
    if name not in _PROGRAMS + _OTHERS:
        raise CourseError(f"There are no files {name!r}. There are: {', '.join(sorted(_PROGRAMS + _OTHERS))}.")
    return PACKAGE / name if name in _PROGRAMS else data_path("deploy") / name


def course_files(name: str, folder: str | os.PathLike[str]) -> Path:
    """Copy files of the course into a folder of yours, and return the folder. First used in lesson 08.

    name: "server", "on_ray", "page", "in_node", "container", "triton", or "model": `model.onnx`, which is `fashion_resnet`
    with its processing inside. A file that is there already and differs is yours: it stays, and one sentence names it.
    Raises CourseError for another name, or where nothing can be written.
    """
    home, folder, kept = home_of(name), Path(folder), []
    for source in sorted(home.rglob("*")):
        if not source.is_file() or set(_LEFT_OUT) & set(source.relative_to(home).parts):
            continue
        target = folder / source.relative_to(home)
        if not target.exists():
            with write_whole(target) as stream:
                stream.write(source.read_bytes())
        elif target.read_bytes() != source.read_bytes():
            kept.append(target.relative_to(folder).as_posix())
    if kept:
        print(f"{folder} has its own {', '.join(kept)}: delete what you no longer want, then run the cell again.")
    return folder


def onnxruntime_web(folder: str | os.PathLike[str], webgpu: bool = False) -> bool:
    """Copy what a page needs of onnxruntime-web into `folder/ort`; False where the package is not here.

    webgpu: copy the build with WebGPU, too, into `folder/webgpu` (27 MB). `make book` installs the package. First used in
    lesson 08.
    """
    from ..pages.browser_lab import WEB_FILES, WEBGPU_FILES, npm_package

    if not (package := npm_package("onnxruntime-web")):
        return False
    for part, names in {"ort": WEB_FILES, "webgpu": WEBGPU_FILES if webgpu else ()}.items():
        for name in names:
            (Path(folder) / part).mkdir(parents=True, exist_ok=True)
            shutil.copy(package / "dist" / name, Path(folder) / part / name)
    return True


@dataclass(frozen=True)
class Listing:
    """Source code, shown with colours by whatever shows the notebook."""

    source: str
    language: str

    def __repr__(self) -> str:
        return self.source

    def _repr_markdown_(self) -> str:
        return f"```{self.language}\n{self.source}\n```"


def listing(path: str | os.PathLike[str], part: str | None = None) -> Listing:
    """Show a file, or one function or class of a Python file. First used in lesson 08.

    part: such as "Batcher" or "Batcher.ask". Raises CourseError when there is no such file or part.
    """
    path = Path(path)
    if not path.is_file():
        raise CourseError(f"There is no file {str(path)!r}: give the path of a file in your folder.")
    text = path.read_text(encoding="utf-8")
    if part is not None:
        text = _part(text, part, path.name)
    return Listing(text.strip("\n"), _LANGUAGES.get(path.suffix or path.name, ""))


def _part(text: str, part: str, file: str) -> str:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        raise CourseError(f"{file!r} is no Python that can be read, so {part!r} cannot be found in it.") from None
    place: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | None = None
    for name in part.split("."):
        there = {node.name: node for node in _definitions(place or tree)}
        if name not in there:
            raise CourseError(
                f"{file!r} has no {part!r}. It has: {', '.join(sorted(there)) or 'no function and no class'}."
            )
        place = there[name]
    assert place is not None  # `split` gives at least one name
    first = min([place.lineno, *(mark.lineno for mark in place.decorator_list)])
    lines = text.splitlines()[first - 1 : place.end_lineno]
    return "\n".join(line[place.col_offset :] for line in lines)


def _definitions(place: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """All functions and classes within, the outer ones last: of two with one name the outer one counts."""
    found = [n for n in ast.walk(place) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return [node for node in reversed(found) if node is not place]
