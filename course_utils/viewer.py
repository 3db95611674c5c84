"""Netron, wherever the notebook is open: JupyterLab, Colab, or the published book."""

from __future__ import annotations

import atexit
import functools
import hashlib
import html
import http.server
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from .environment import in_colab
from .netron_static import build
from .onnx_files import Model, as_model
from .paths import BOOK_MODELS, write_whole

if TYPE_CHECKING:
    from IPython.display import DisplayObject


def show(model: Model, name: str | None = None, height: int = 480) -> DisplayObject | None:
    """Open a model in Netron, inside the notebook. First used in lesson 00.

    name: the title of a model that is not a file. height: in pixels.
    What is shown is a copy as the model is now; weights that lie in files beside it are not needed and not copied.
    Raises CourseError when the model cannot be read.
    """
    proto = as_model(model, external_data=False)
    is_file = isinstance(model, str | os.PathLike)
    stem = re.sub(r"[^\w.-]+", "_", name or (Path(model).stem if is_file else proto.graph.name or "model"))
    if book := os.environ.get(BOOK_MODELS):
        file = _publish(_without_paths(proto), stem, Path(book))
        return _frame(f"../netron/index.html?url=../models/{file}", stem, height)
    root, port = _server()
    file = _publish(proto, stem, root / "models")
    page = f"netron/index.html?url=../models/{file}"
    if in_colab():
        from google.colab import output

        return output.serve_kernel_port_as_iframe(port, path=f"/{page}", height=str(height))
    if prefix := os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
        # On Binder and other hubs the browser is on another machine: jupyter-server-proxy passes the port on.
        return _frame(f"{prefix}proxy/{port}/{page}", stem, height)
    return _frame(f"http://127.0.0.1:{port}/{page}", stem, height)


def _frame(address: str, stem: str, height: int) -> DisplayObject:
    from IPython.display import HTML

    title = html.escape(stem)
    return HTML(
        f'<iframe class="netron" src="{address}" title="{title} in Netron" width="100%" height="{height}" '
        f'style="border: 1px solid #ccc; border-radius: 6px; background: white" loading="lazy"></iframe>'
        f'<p><a href="{address}" target="_blank">Open {title} in a page of its own</a></p>'
    )


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
    handler = functools.partial(_QuietHandler, directory=str(root))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return root, server.server_address[1]


class _QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass  # requests would be printed into the student's notebook

    def list_directory(self, path: str) -> None:
        self.send_error(404)
