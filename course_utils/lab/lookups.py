"""What a program asks of the network, and what it leaves in the user's folder, seen where nothing can leave the machine.

    python -m course_utils.lab.lookups                the table of chapter 05: a session with telemetry and without, 45 s
    python -m course_utils.lab.lookups --out FILE     write it down, too (maintainers: data/telemetry.json)

The program runs in namespaces of Linux: it has no network but loopback, and there a name server that writes down each
name and answers "there is no such name". Where such namespaces cannot be made, no program is run.
"""

from __future__ import annotations

import argparse
import json
import platform
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from ..errors import CourseError
from ..paths import data_path
from ..processes import call, environment, pipes, unshare

SWITCH = "ORT_DISABLE_TELEMETRY"
# ONNX Runtime sends nothing where one of these says that it is in a build service.
BUILD_SERVICES = (
    *("CI", "TF_BUILD", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TRAVIS", "JENKINS_URL", "CODEBUILD_BUILD_ID"),
    *("BUILDKITE", "TEAMCITY_VERSION", "APPVEYOR", "BITBUCKET_BUILD_NUMBER"),
)
CUT_OFF = "this system does not let a program be cut off from the network"
LIMIT = 300.0  # seconds that a program may take


class Watched:
    """A program under way, cut off from the network: `.result()` waits for its end."""

    def __init__(self, child: subprocess.Popen[bytes], scratch: tempfile.TemporaryDirectory[str]) -> None:
        self._child, self._scratch = child, scratch

    def result(self) -> dict[str, Any]:
        """A dict: `lookups`, a list of [seconds, name]; `files`, what it wrote at home; `seconds`, how long it lived.

        To be asked once. Raises CourseError when the program failed or took more than five minutes.
        """
        with self._scratch as scratch:
            said, _ = self._child.communicate()
            if self._child.returncode:
                words = Path(scratch, "errors").read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise CourseError(f"The watched program failed: {(words or ['no message'])[-1]}.")
            home = Path(scratch, "home")
            written = sorted(file.relative_to(home).as_posix() for file in home.rglob("*") if file.is_file())
            return {**json.loads(said), "files": written}


def watch_lookups(program: str, variables: Mapping[str, str] | None = None) -> Watched | None:
    """Start a Python program cut off from the network, and see which names it looks up. First used in lesson 05.

    program: its source. variables: of its environment, beside those of this process without `ORT_DISABLE_TELEMETRY` and
    without those by which ONNX Runtime recognises a build service; its home is empty.
    Returns at once; None, after one sentence, where no program can be cut off. Then it is not run.
    """
    scratch = tempfile.TemporaryDirectory()
    home = Path(scratch.name, "home")
    home.mkdir()
    inherited = {name: value for name, value in environment().items() if name not in {SWITCH, *BUILD_SERVICES}}
    homes = dict.fromkeys(("HOME", "XDG_CACHE_HOME"), str(home))
    request = {
        "program": program,
        "env": inherited | dict(variables or {}) | homes,
        "scratch": scratch.name,
    }
    with Path(scratch.name, "errors").open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "course_utils.lab.lookups", "--cut-off"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment(),
        )
    asking, answering = pipes(child)
    asking.write(json.dumps(request).encode())
    asking.close()
    child.stdin = None  # communicate() would write to it
    watched = Watched(child, scratch)
    if answering.readline().strip() == _READY:
        return watched
    if child.wait() != _NOT_PERMITTED:
        watched.result()  # raises
    answering.close()
    scratch.cleanup()
    print(f"Not run here: {CUT_OFF}.")
    return None


def telemetry_record() -> dict[str, Any]:
    """The recorded contrast, `data/telemetry.json`: date, machine, versions, runs. First used in lesson 05."""
    return json.loads(data_path("telemetry.json").read_text(encoding="utf-8"))


# In the process that cuts itself off

_NOT_PERMITTED, _READY = 77, b"cut off"
_NEWNS, _NEWUSER, _NEWNET = 0x00020000, 0x10000000, 0x40000000  # of sched.h
_BIND, _RECURSIVE, _PRIVATE = 0x1000, 0x4000, 0x40000  # of sys/mount.h
_UP, _SET_FLAGS = 0x1, 0x8914  # of net/if.h and sys/ioctl.h


def _cut_off(scratch: Path) -> None:
    """Leave the network, for good: this process and its children see loopback alone. Raises OSError where it cannot be done."""
    if sys.platform != "linux":
        raise PermissionError(CUT_OFF)
    unshare(_NEWUSER | _NEWNS | _NEWNET, user=0, group=0)
    # What is mounted below is seen by this process and its children only.
    call("mount", b"none", b"/", None, _RECURSIVE | _PRIVATE, None)
    # The second file: names are asked of the name server, and not of a service of this machine behind a socket.
    for name, text in {"resolv.conf": "nameserver 127.0.0.1\n", "nsswitch.conf": "hosts: files dns\n"}.items():
        target = Path("/etc", name).resolve()
        if target.exists():
            scratch.joinpath(name).write_text(text)
            call("mount", bytes(scratch / name), bytes(target), None, _BIND, None)
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH14x", b"lo", _UP))
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        raise PermissionError(CUT_OFF)


class NameServer(threading.Thread):
    """Writes down every question on this socket, and answers that there is no such name."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(daemon=True)
        self.socket, self.began = listening, time.monotonic()
        self.asked: list[list[float | str]] = []  # [seconds, name] each

    def run(self) -> None:
        while True:
            question, asker = self.socket.recvfrom(4096)
            parts, at = [], 12
            while question[at]:
                parts.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
                at += 1 + question[at]
            self.asked.append([round(time.monotonic() - self.began, 1), ".".join(parts)])
            # An answer, recursion available, name error; one question, which is repeated, and no record.
            self.socket.sendto(question[:2] + b"\x81\x83\0\1\0\0\0\0\0\0" + question[12 : at + 5], asker)


def _run_cut_off() -> None:
    request = json.load(sys.stdin)
    try:
        _cut_off(Path(request["scratch"]))
        listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listening.bind(("127.0.0.1", 53))
    except OSError:  # containers and some distributions forbid one step or another
        sys.exit(_NOT_PERMITTED)
    print(_READY.decode(), flush=True)
    server = NameServer(listening)
    server.start()
    began = time.monotonic()
    command = [sys.executable, "-c", request["program"]]
    try:
        done = subprocess.run(command, env=request["env"], stdout=subprocess.DEVNULL, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        sys.exit(f"it took more than {LIMIT:g} seconds")
    if done.returncode:
        sys.exit(done.returncode if done.returncode != _NOT_PERMITTED else 1)
    print(json.dumps({"lookups": server.asked, "seconds": round(time.monotonic() - began, 1)}))


# The contrast

_SESSION = """
import time
import onnxruntime as ort
from onnx import parser
{first}
model = parser.parse_model('<ir_version: 8, opset_import: ["": 17]> g (float[N] x) => (float[N] y) {{ y = Relu(x) }}')
session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
time.sleep({seconds})
"""
# what is done → a line of the program, variables
WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "nothing is done": ("", {}),
    "ort.disable_telemetry_events() after the import": ("ort.disable_telemetry_events()", {}),
    f"{SWITCH}=1 after the import": (f"import os; os.environ['{SWITCH}'] = '1'", {}),
    f"{SWITCH}=1 before the import": ("", {SWITCH: "1"}),
    "CI=true": ("", {"CI": "true"}),
}


def contrast(seconds: float = 40) -> dict[str, dict[str, Any]] | None:
    """What a session asks and writes that lives so long, for each of `WAYS`; all at once. None where it cannot be cut off."""
    runs = {
        way: watch_lookups(_SESSION.format(first=first, seconds=seconds), variables)
        for way, (first, variables) in WAYS.items()
    }
    begun = {way: run for way, run in runs.items() if run is not None}
    return {way: run.result() for way, run in begun.items()} if len(begun) == len(runs) else None


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--out", type=Path, metavar="FILE", help="write the record here, as JSON")
    parse.add_argument("--cut-off", action="store_true", help=argparse.SUPPRESS)  # a child of `watch_lookups`
    arguments = parse.parse_args()
    if arguments.cut_off:
        return _run_cut_off()
    if (runs := contrast()) is None:
        sys.exit(1)
    for way, run in runs.items():
        names = ", ".join(sorted({name for _, name in run["lookups"]})) or "none"
        print(f"{way}: {len(run['lookups'])} look-ups ({names}), {len(run['files'])} files written")
    if arguments.out:
        import onnxruntime as ort

        from ..ep_experiment.machine import cores, processor

        record = {
            "date": date.today().isoformat(),
            "machine": {"system": platform.system(), "processor": processor(), "cores": cores()},
            "versions": {"python": platform.python_version(), "onnxruntime": ort.__version__},
            "runs": runs,
        }
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
