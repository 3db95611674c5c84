"""The labs as a part of the site: their modules, the runtime and their models go to `_static/`, their places into the pages."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml
from filelock import FileLock
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

LABS = Path(__file__).resolve().parent
PACKAGES = LABS.parent / "node_modules"
# Of onnxruntime-web: on the processor, and on a graphics card, which is loaded only when a reader asks for it.
RUNTIME = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
NOT_SERVED = shutil.ignore_patterns("*.test.mjs", "in_node.mjs", "vendor")

CELL = """## Lab: {title}

{place}"""
# The first paragraph and the words are Markdown inside HTML: the empty lines around them matter.
PLACE = """<div class="lab" id="{name}" data-lab="{name}">
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


def put_into(notebook: NotebookNode, page: str) -> NotebookNode:
    """Add the labs of a lesson, each behind the section that it belongs to. page: such as "00_start_here".

    Raises ValueError when that section is not there.
    """
    for lab in (lab for lab in labs() if lab.page == page):
        heads = [(i, _heading(cell)) for i, cell in enumerate(notebook.cells) if _heading(cell)]
        at = next((n for n, (_, text) in enumerate(heads) if text == lab.after), None)
        if at is None:
            raise ValueError(
                f"labs.yml: the lab {lab.name!r} sits below {lab.after!r}, and {page} has no such heading."
            )
        where = heads[at + 1][0] if at + 1 < len(heads) else len(notebook.cells)
        text = CELL.format(title=lab.title, place=lab.place("../_static"))
        notebook.cells.insert(where, new_markdown_cell(text, id=f"lab-{lab.name.replace('_', '-')}"))
    return notebook


def gallery() -> str:
    """The page with all labs."""
    parts = [
        f"## {lab.title}\n\nFrom [lesson {lab.page[:2]}](notebooks/{lab.page}.ipynb).\n\n{lab.place('_static')}"
        for lab in labs()
    ]
    return "\n\n".join([GALLERY, *parts]) + "\n"


def write(static: Path, kept: Path) -> None:
    """Put all that labs load into the site's `_static`. kept: a folder in which models stay for the next time."""
    target = static / "labs"
    for folder in ("kit", *(lab.name for lab in labs())):
        shutil.copytree(LABS / folder, target / folder, ignore=NOT_SERVED, dirs_exist_ok=True)
    _module(LABS / "vendor.py").write(target / "kit" / "vendor", PACKAGES)
    for lab in labs():
        shutil.copytree(files(lab.name, kept), target / "files" / lab.name, dirs_exist_ok=True)
    (static / "ort").mkdir(parents=True, exist_ok=True)
    for name in RUNTIME:
        shutil.copy(PACKAGES / "onnxruntime-web" / "dist" / name, static / "ort" / name)


def files(name: str, kept: Path) -> Path:
    """The folder with the files of a lab; they are made when its script, or what the script uses, has changed."""
    script = LABS / "models" / f"{name}.py"
    digest = hashlib.sha256(script.read_bytes())
    for source in _sources():
        digest.update(source.read_bytes())
    folder = kept / f"{name}-{digest.hexdigest()[:16]}"
    kept.mkdir(parents=True, exist_ok=True)
    with FileLock(kept / f"{name}.lock"):  # tests that run side by side want the same files
        if not folder.exists():
            for old in kept.glob(f"{name}-*"):
                shutil.rmtree(old)
            print(f"  files of the lab {name}", flush=True)
            half = kept / f"{name}-half"
            half.mkdir()
            _module(script).make(half)
            half.rename(folder)
    return folder


@cache
def _sources() -> list[Path]:
    """What the scripts use: the package and its versions."""
    root = LABS.parents[1]
    return [root / "constraints.txt", *_of(root / "course_utils", "*.py"), *_of(root / "data", "*.safetensors")]


def _of(folder: Path, pattern: str) -> Iterable[Path]:
    return sorted(folder.rglob(pattern))


def _heading(cell: NotebookNode) -> str:
    """The heading of the second level that a cell begins with, or "" where it has none."""
    first = cell.source.lstrip().partition("\n")[0] if cell.cell_type == "markdown" else ""
    return first.removeprefix("## ").strip() if first.startswith("## ") else ""


def _module(script: Path):
    name = f"labs_{script.stem}"
    spec = importlib.util.spec_from_file_location(name, script)
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
