"""Netron, or a page with a model in it, wherever the notebook is open: JupyterLab, Colab, or the published book."""

from __future__ import annotations

import atexit
import functools
import hashlib
import html
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from ..environment import in_colab
from ..errors import CourseError
from ..onnx_files import Model, as_model
from ..paths import BOOK_MODELS, write_whole
from . import loopback
from .netron_static import build

if TYPE_CHECKING:
    from IPython.display import DisplayObject


def show(model: Model, name: str | None = None, height: int = 480) -> DisplayObject | None:
    """Open a model in Netron, inside the notebook. First used in lesson 00.

    name: the title of a model that is not a file. height: in pixels.
    What is shown is a copy as the model is now; weights that lie in files beside it are not needed and not copied.
    Raises CourseError when the model cannot be read.
    """
    proto = as_model(model, external_data=False)
    own = Path(model).stem if isinstance(model, str | os.PathLike) else proto.graph.name or "model"
    stem = _plain(name or own)
    if book := os.environ.get(BOOK_MODELS):
        file = _publish(_without_paths(proto), stem, Path(book))
        return _netron(f"../netron/index.html?url=../models/{file}", stem, height)
    root, port = _server()
    path = f"netron/index.html?url=../models/{_publish(proto, stem, root / 'models')}"
    if in_colab():
        return _colab_frame(port, path, height)
    return _netron(_address(port, path), stem, height)


def show_page(
    folder: str | os.PathLike[str], title: str, height: int = 640, later: str | None = None
) -> DisplayObject | None:
    """Show a page of your own, alive, inside the notebook: it is loaded when the reader opens it. First used in lesson 08.

    folder: holds `index.html` and all that it loads; a copy of it as it is now is shown. title: of the page.
    height: in pixels. later: a folder within, such as "webgpu", whose files are loaded only if the reader asks for them.
    In the published book the page works, too, as it needs no kernel.
    Raises CourseError when there is no `index.html`, or no such folder within.
    """
    folder = Path(folder)
    if not (folder / "index.html").is_file():
        raise CourseError(f"{str(folder)!r} holds no index.html: give the folder of a page.")
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    waiting = [file for file in files if later and folder / later in file.parents]
    if later and not waiting:
        raise CourseError(f"{str(folder)!r} holds no folder {later!r} with files, given as what is loaded later.")
    size, more = (sum(file.stat().st_size for file in part) / 1e6 for part in (files, waiting))
    loaded = f"{size - more:.0f} MB are loaded" + (f", {more:.0f} MB more if you ask for them" if later else "")
    if book := os.environ.get(BOOK_MODELS):
        address = f"../{_publish_page(folder, files, Path(book))}/index.html"
    else:
        root, port = _server()
        path = f"{_publish_page(folder, files, root)}/index.html"
        if in_colab():
            return _colab_frame(port, path, height)
        address = _address(port, path)
    return _page(address, title, loaded, height)


def _plain(name: str) -> str:
    """A name that can stand in an address as it is."""
    return re.sub(r"[^\w.-]+", "_", name)


def _colab_frame(port: int, path: str, height: int) -> DisplayObject:
    from google.colab import output

    return output.serve_kernel_port_as_iframe(port, path=f"/{path}", height=str(height))


def _address(port: int, path: str) -> str:
    if prefix := os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
        # On Binder and other hubs the browser is on another machine: jupyter-server-proxy passes the port on.
        return f"{prefix}proxy/{port}/{path}"
    return f"http://127.0.0.1:{port}/{path}"


def _netron(address: str, stem: str, height: int) -> DisplayObject:
    from IPython.display import HTML

    title = html.escape(stem)
    return HTML(
        f'<iframe class="netron" src="{address}" title="{title} in Netron" width="100%" height="{height}" '
        f'style="border: 1px solid #ccc; border-radius: 6px; background: white" loading="lazy"></iframe>'
        f'<p><a href="{address}" target="_blank">Open {title} in a page of its own</a></p>'
    )


def _page(address: str, title: str, loaded: str, height: int) -> DisplayObject:
    from IPython.display import HTML

    title = html.escape(title)
    # A lazy frame in a closed <details> is loaded when it is opened, and not before: that needs no script.
    return HTML(
        f'<details class="live-page"><summary>Open “{title}” here: {loaded}</summary>'
        f'<iframe src="{address}" title="{title}" width="100%" height="{height}" '
        f'style="border: 1px solid #ccc; border-radius: 6px" loading="lazy"></iframe></details>'
        f'<p><a href="{address}" target="_blank">Open “{title}” in a page of its own</a></p>'
    )


def _publish_page(folder: Path, files: list[Path], root: Path) -> str:
    """Copy the files under a name made from their content; return that name, below `root`."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    name = f"pages/{_plain(folder.resolve().name)}-{digest.hexdigest()[:8]}"
    for file in files:
        with write_whole(root / name / file.relative_to(folder)) as stream:
            stream.write(file.read_bytes())
    return name


def _publish(proto: onnx.ModelProto, stem: str, folder: Path) -> str:
    """Write the model under a name made from its content; return that name."""
    data = proto.SerializeToString()
    file = f"{stem}-{hashlib.sha256(data).hexdigest()[:8]}.onnx"
    with write_whole(folder / file) as stream:
        stream.write(data)
    return file


def _without_paths(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the stack traces the exporter leaves on nodes: they hold paths of the machine that built the book."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for node in copy.graph.node:
        for index in reversed(range(len(node.metadata_props))):
            if node.metadata_props[index].key.endswith("stack_trace"):
                del node.metadata_props[index]
    return copy


@functools.cache
def _server() -> tuple[Path, int]:
    """One server per kernel, on loopback, with Netron and the models shown so far: its folder and its port."""
    root = Path(tempfile.mkdtemp(prefix="netron-"))
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    build(root / "netron")
    return root, loopback.start(root, _NoListing).server_address[1]


class _NoListing(loopback.Handler):
    def list_directory(self, path: str | os.PathLike[str]) -> None:
        self.send_error(404)
