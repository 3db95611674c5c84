"""The labs as a part of the site: their modules, the runtime and their models go to `_static/`, their places into the pages."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

import nbformat
import yaml
from filelock import FileLock
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from course_utils.pages.browser_lab import WEB_FILES, WEBGPU_FILES

LABS = Path(__file__).resolve().parent
PACKAGES = LABS.parent / "node_modules"
NOT_SERVED = shutil.ignore_patterns("*.test.mjs", "in_node.mjs", "vendor")

CELL = """## Lab: {title}

{place}"""
# The first paragraph and the words are Markdown inside HTML: the empty lines around them matter.
PLACE = """<div class="lab" data-lab="{name}">
<div class="lab-look">

{look_for}

</div>
<details class="lab-words" open>
<summary>In words</summary>

{alternative}

</details>
</div>
<link rel="stylesheet" href="{static}/labs/kit/lab.css">
<script type="module" src="{static}/labs/kit/start.js"></script>"""
GALLERY = """# Labs

Experiments that run in this page: nothing to install, and nothing leaves your device. Each of them sits in its lesson, too.
What a lab shows stands in the address of the page, so you can send it to somebody.
"""


@dataclass(frozen=True)
class Lab:
    """An entry of `labs.yml`."""

    name: str
    title: str
    page: str
    after: str
    look_for: str
    alternative: str

    def place(self, static: str) -> str:
        """The HTML and Markdown of the lab's place in a page. static: the way from the page to `_static`."""
        return PLACE.format(**vars(self) | {"static": static})


@cache
def labs() -> tuple[Lab, ...]:
    """All labs, in the order of the lessons."""
    return tuple(Lab(**entry) for entry in yaml.safe_load((LABS / "labs.yml").read_text(encoding="utf-8")))


def embed(notebooks: Path) -> None:
    """Put the labs into the notebooks in this folder. Call it after they have run: what is run is what is in `notebooks/`."""
    for page in {lab.page for lab in labs()}:
        path = notebooks / f"{page}.ipynb"
        path.write_text(nbformat.writes(put_into(nbformat.read(path, as_version=4), page)), encoding="utf-8")


def put_into(notebook: NotebookNode, page: str) -> NotebookNode:
    """Add the labs of a lesson, each behind the section that it belongs to. page: such as "00_start_here".

    A section may begin or end inside of a cell: that cell is then parted. Raises ValueError when the section is not there.
    """
    for lab in (lab for lab in labs() if lab.page == page):
        heads = [(i, line, text) for i, cell in enumerate(notebook.cells) for line, text in _headings(cell)]
        at = next((n for n, (*_, text) in enumerate(heads) if text == lab.after), None)
        if at is None:
            raise ValueError(
                f"labs.yml: the lab {lab.name!r} sits below {lab.after!r}, and {page} has no such heading."
            )
        id = f"lab-{lab.name.replace('_', '-')}"
        lab_cell = new_markdown_cell(CELL.format(title=lab.title, place=lab.place("../_static")), id=id)
        if at + 1 == len(heads):
            notebook.cells.append(lab_cell)
            continue
        where, line, _ = heads[at + 1]
        if line == 0:
            notebook.cells.insert(where, lab_cell)
            continue
        cell = notebook.cells[where]
        lines = cell.source.splitlines()
        cell.source = "\n".join(lines[:line]).rstrip()
        rest = new_markdown_cell("\n".join(lines[line:]), id=f"{id}-rest", metadata=cell.metadata)
        notebook.cells[where + 1 : where + 1] = [lab_cell, rest]
    return notebook


def gallery() -> str:
    """The page with all labs."""
    parts = [
        f"## Lab: {lab.title}\n\nFrom [lesson {lab.page[:2]}](notebooks/{lab.page}.ipynb).\n\n{lab.place('_static')}"
        for lab in labs()
    ]
    return "\n\n".join([GALLERY, *parts]) + "\n"


def write(static: Path, kept: Path) -> None:
    """Put all that labs load into the site's `_static`. kept: a folder in which models stay for the next time."""
    target = static / "labs"
    for folder in ("kit", *(lab.name for lab in labs())):
        shutil.copytree(LABS / folder, target / folder, ignore=NOT_SERVED, dirs_exist_ok=True)
    shutil.copytree(runtime(kept), static / "ort", dirs_exist_ok=True)
    module(LABS / "vendor.py").write(target / "kit" / "vendor", PACKAGES)
    for lab in labs():
        shutil.copytree(files(lab.name, kept), target / "files" / lab.name, dirs_exist_ok=True)


def runtime(kept: Path) -> Path:
    """The folder with ONNX Runtime Web, its WebAssembly packed: 10 MB in place of 41, on every host."""
    digest = hashlib.sha256()
    sources = [
        *_of(LABS / "ort", "*.js"),
        *(PACKAGES / "onnxruntime-web" / "dist" / name for name in (*WEB_FILES, *WEBGPU_FILES)),
    ]
    for source in sources:
        digest.update(source.read_bytes())

    def make(folder: Path) -> None:
        for source in sources:
            if source.suffix == ".wasm":
                (folder / f"{source.name}.gz").write_bytes(gzip.compress(source.read_bytes(), mtime=0))
            else:
                shutil.copy(source, folder)

    return _kept(kept, "ort", digest.hexdigest(), make)


def files(name: str, kept: Path) -> Path:
    """The folder with the files of a lab; they are made when its script, or what the script uses, has changed."""
    script = LABS / "models" / f"{name}.py"
    digest = hashlib.sha256(script.read_bytes())
    for source in (*sorted((LABS / name).glob("*.json")), *_sources()):
        digest.update(source.read_bytes())

    def make(folder: Path) -> None:
        print(f"  files of the lab {name}", flush=True)
        module(script).make(folder)

    return _kept(kept, name, digest.hexdigest(), make)


def _kept(kept: Path, name: str, digest: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills unless it is there; the one of another digest is deleted."""
    folder = kept / f"{name}-{digest[:16]}"
    kept.mkdir(parents=True, exist_ok=True)
    with FileLock(kept / f"{name}.lock"):  # tests that run side by side want the same files
        if not folder.exists():
            for old in kept.glob(f"{name}-*"):
                shutil.rmtree(old)
            half = kept / f"{name}-half"
            half.mkdir()
            make(half)
            half.rename(folder)
    return folder


@cache
def _sources() -> list[Path]:
    """What the scripts use: the package and its versions."""
    root = LABS.parents[1]
    return [root / "constraints.txt", *_of(root / "course_utils", "*.py"), *_of(root / "data", "*.safetensors")]


def _of(folder: Path, pattern: str) -> Iterable[Path]:
    return sorted(folder.rglob(pattern))


def _headings(cell: NotebookNode) -> list[tuple[int, str]]:
    """Line and text of each heading of the second level in a cell; a line of a listing is none."""
    found, listing = [], False
    for number, line in enumerate(cell.source.splitlines() if cell.cell_type == "markdown" else []):
        listing ^= line.startswith("```")
        if not listing and line.startswith("## "):
            found.append((number, line.removeprefix("## ").strip()))
    return found


def module(script: Path) -> ModuleType:
    name = f"labs_{script.stem}"
    spec = importlib.util.spec_from_file_location(name, script)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
