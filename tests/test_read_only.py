"""A folder that cannot be written to: one sentence, and nothing half-written.

The superuser may write anywhere, so the steps run in a process that has given its rights up.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

import course_utils as cu
from course_utils.paths import write_whole

# Everything is loaded and run once before the rights are given up: the packages may lie where only their owner can look.
CODE = """
import os
import course_utils as cu
import course_utils.paths
cu.setup()
import torchvision.datasets
os.chdir("locked")
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
for step in (
    lambda: cu.setup(),
    lambda: course_utils.paths.write_whole("model.onnx").__enter__(),
    lambda: cu.fashion_mnist("train"),
):
    try:
        step()
        print("NO ERROR")
    except cu.CourseError as error:
        print("SENTENCE", error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no folder rights of this kind")
def test_read_only_folder(python, folder):
    """A folder that another user may enter but not write to."""
    locked = folder / "locked"
    locked.mkdir()
    (locked / "notebook.ipynb").write_text("{}")
    locked.chmod(0o555)
    reachable = [folder, *folder.parents]
    before = {f: f.stat().st_mode for f in reachable if os.geteuid() == 0 and not f.stat().st_mode & 0o001}
    try:
        for f, mode in before.items():  # pytest's folders are closed to others
            f.chmod(mode | 0o001)
        done = python(CODE, cwd=folder)
    finally:
        for f, mode in before.items():
            f.chmod(mode)
    sentences = [line for line in done.stdout.splitlines() if line.startswith(("SENTENCE", "NO ERROR"))]
    for sentence, expected in zip(
        sentences,
        [
            "cannot be written to (Permission denied), and lessons keep their models in 'work/' there",
            "Cannot write 'model.onnx' into",
            "Cannot write 'fashion-mnist' into",
        ],
        strict=True,
    ):
        assert expected in sentence
        assert "a folder of your own" in sentence
    assert [p.name for p in locked.iterdir()] == ["notebook.ipynb"]


def test_work_is_a_file(folder):
    (folder / "work").write_text("mine")
    with pytest.raises(cu.CourseError, match=r"cannot be written to \(File exists\)"):
        cu.setup()
    with pytest.raises(cu.CourseError, match="Cannot write 'x' into"), write_whole("work/x"):
        pass
    assert (folder / "work").read_text() == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_system_folder(monkeypatch):
    """Here not even the superuser may write."""
    monkeypatch.chdir("/proc")
    with pytest.raises(cu.CourseError, match=r"The folder '/proc' cannot be written to"):
        cu.setup()


def test_an_error_while_writing_leaves_the_old_file(folder):
    target = folder / "model.onnx"
    target.write_bytes(b"old")

    def broken():
        with write_whole(target) as stream:
            stream.write(b"new, but not all of i")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken()
    assert target.read_bytes() == b"old"
    assert [p.name for p in folder.iterdir()] == ["model.onnx"]


def test_text_is_the_same_bytes_everywhere(folder):
    with write_whole("notes/a.txt", "w") as stream:
        stream.write("größer\n")
    assert (folder / "notes" / "a.txt").read_bytes() == "größer\n".encode()
