"""A web server on this machine alone, for what a notebook or a test shows in a browser."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word: a line for each request would be printed into the student's notebook."""

    # Not every system's table of types has these, and a browser takes a module of no other type.
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def log_message(self, *args: object) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    # With the standard 5, a busy machine refuses connections, and the browser tries again for long.
    request_queue_size = 128


def start(folder: Path, handler: type[Handler] = Handler) -> http.server.ThreadingHTTPServer:
    """Serve a folder on 127.0.0.1, at a port that the system chooses, in a thread that ends with the process."""
    server = _Server(("127.0.0.1", 0), functools.partial(handler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as long as the block lasts; gives its address."""
    server = start(folder)
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
