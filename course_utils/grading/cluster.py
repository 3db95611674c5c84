"""A run on a Dask cluster: zips go out as bytes, marks come back as JSON. The journal stays with whoever runs the command.

A task that was under way on a worker that ends is run again by Dask, on another one. Dask's messages are pickles between hosts that
trust each other; nothing of a student is pickled but the bytes of the zip, and each worker examines them in guarded processes
of its own.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import threading
import time
import warnings
from importlib.metadata import version
from typing import Any

from ..errors import CourseError, MissingPackageError
from ..exercises import VERSION
from ..version import __version__
from .intake import shown
from .marking import Marker, Result, StoppedError

_CONNECT = 15.0  # seconds until a scheduler has answered
_LOOK = 1.0  # seconds between two looks at a scheduler that says nothing
_LONELY = 60.0  # seconds that a cluster may be without workers: one that was killed is started anew meanwhile
_RESUME = "then run the same command again, and it goes on where it stopped"


def versions() -> dict[str, str]:
    """What marks depend on, of this machine."""
    return {"course": __version__, "checks": str(VERSION), **{name: version(name) for name in ("onnx", "onnxruntime")}}


# Goes there by value: a worker that cannot unpickle what it is sent ends without a word, and this one can say what it lacks.
_ask = lambda *arguments: __import__("course_utils.grading.cluster", fromlist=["_mark"])._mark(*arguments)  # noqa: E731


class Cluster:
    """Marks submissions as `Marker` does, on the workers of a scheduler.

    address: `tcp://host:port`. Raises CourseError, in one sentence, when nobody answers there, or there are no workers.
    """

    def __init__(self, address: str, secret: str = "", key: str = "") -> None:
        try:
            import distributed
        except ImportError:
            raise MissingPackageError(
                "The package 'distributed' is not installed, and --scheduler needs it: python -m pip install 'onnx-scroll[grading]'."
            ) from None
        if not re.fullmatch(r"(tcp|tls)://[^\s/]+:\d{1,5}", address):
            raise CourseError(
                f"--scheduler is {shown(address)!r}, and an address such as tcp://127.0.0.1:8786 was expected."
            )
        self.address = address
        self._arguments = (secret, key, versions())
        self._stopped = False
        self._walls: set[tuple[str, ...]] = set()
        logging.getLogger("distributed").setLevel(
            logging.CRITICAL
        )  # what goes wrong is one sentence, and comes from here
        try:
            self._client = distributed.Client(address, timeout=_CONNECT, set_as_default=False)
        except (OSError, ValueError, RuntimeError):  # a TimeoutError is an OSError
            raise CourseError(
                f"No Dask scheduler answers at {shown(address)!r}: start one there (dask scheduler), {_RESUME}."
            ) from None
        # Two zips on their way for each that is examined, so that no worker waits for the next.
        self.under_way = 2 * sum(self._client.nthreads().values())
        if not self.under_way:
            self.stop()
            raise CourseError(f"The scheduler {address} has no workers: start some (dask worker {address}), {_RESUME}.")

    def mark(self, data: bytes) -> Result:
        """As `Marker.mark`. Raises CourseError, too, when the scheduler or all workers go away."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it finds megabytes in a task too many
                task = self._client.submit(_ask, data, *self._arguments, pure=False)
            said = json.loads(self._waited(task))
        except StoppedError:
            raise
        except Exception as error:  # Dask has many for a connection that is gone; the text of the others says more
            if self._stopped:
                raise StoppedError from None
            self._must_be_there()
            if type(error).__name__ == "FutureCancelledError":
                raise self._gone() from None
            if isinstance(error, ImportError | AttributeError):
                raise CourseError(
                    f"A worker of {self.address} does not have this version of the course ({shown(str(error))}): install "
                    f"{__version__} there, {_RESUME}."
                ) from None
            raise
        if said["error"]:
            raise CourseError(said["error"])
        self._walls.update(tuple(walls) for walls in said["walls"])
        result: Result = said["result"]
        return result

    def _waited(self, task: Any) -> str:
        alone_since = None
        while True:
            try:
                answer: str = task.result(timeout=_LOOK)
                return answer
            except TimeoutError:
                if self._stopped:
                    raise StoppedError from None
                self._must_be_there()
                if self._client.nthreads():
                    alone_since = None
                    continue
                alone_since = alone_since or time.monotonic()
                if time.monotonic() - alone_since > _LONELY:
                    raise CourseError(
                        f"The scheduler {self.address} has no workers any more: start some (dask worker {self.address}), {_RESUME}."
                    ) from None

    def _must_be_there(self) -> None:
        if self._client.status != "running":
            raise self._gone()

    def _gone(self) -> CourseError:
        return CourseError(f"The scheduler {self.address} went away: start it and its workers again, {_RESUME}.")

    def know(self, result: Result) -> None:
        """Nothing: a worker knows the answers that it has examined itself."""

    @property
    def walls(self) -> set[tuple[str, ...]]:
        """The walls of each process that examined answers, without repeats."""
        return self._walls

    def stop(self) -> None:
        """Let the scheduler drop what is not done."""
        self._stopped = True
        with contextlib.suppress(Exception):  # nobody may be there
            self._client.close(timeout=2)


# On a worker

_markers: dict[
    tuple[str, str], Marker
] = {}  # kept for the next zip, with their guarded processes, as long as the worker lives
_lock = threading.Lock()


def _mark(data: bytes, secret: str, key: str, wanted: dict[str, str]) -> str:
    """The marks of a zip as JSON, or why this worker cannot say. A guarded process belongs to each of the worker's threads."""
    mine = versions()
    if mine != wanted:
        differ = ", ".join(
            f"{name} {mine[name]} in place of {wanted[name]}" for name in wanted if mine[name] != wanted[name]
        )
        return json.dumps({"error": f"A worker has {differ}: install the same on all machines, {_RESUME}."})
    with _lock:
        marker = _markers.setdefault((secret, key), Marker(secret, key))
    try:
        result = marker.mark(data)
    except CourseError as error:
        return json.dumps({"error": str(error)})
    return json.dumps({"error": "", "result": result, "walls": sorted(marker.walls)})
