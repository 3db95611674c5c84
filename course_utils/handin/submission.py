"""Handing in: one zip with the kept answers and nothing else."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import classroom, student
from ..paths import WORK, write_whole
from ..version import __version__
from .keeping import MANIFEST, is_of_class, kept_answers


def submit() -> Path:
    """Pack all answers that `cu.check()` kept into one zip in `work/`, say what is in it, and return its path.

    Its name ends in a number made from the content: the same answers give the same file, and an earlier hand-in is
    never overwritten. First used in exercise 01.
    An answer that was changed or deleted behind the check's back is left out, and said so.
    Raises CourseError when there is none.
    """
    who = student.current()
    manifest, answers = kept_answers(who)
    tasks = manifest["tasks"]
    contents = {tasks[name]["file"]: data for name, data in answers.items()}
    about = {**manifest, "course": __version__}
    if key := classroom.current().key:
        about["class"] = classroom.fingerprint(key)
    contents[MANIFEST] = json.dumps(about, indent=2, sort_keys=True).encode()
    digest = hashlib.sha256(b"".join(hashlib.sha256(contents[n]).digest() for n in sorted(contents))).hexdigest()
    target = WORK / f"submission_{who}_{digest[:8]}.zip"
    with write_whole(target) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name), contents[name], zipfile.ZIP_DEFLATED)
    done = [name for name, entry in tasks.items() if _points(entry)[0] == _points(entry)[1]]
    count = f"{len(tasks)} answer{'s' * (len(tasks) != 1)}"
    print(f"{target}: {count}, {len(done)} with all points. Hand in this file.")
    for name, entry in tasks.items():
        reached, of = _points(entry)
        shown = "".join(c if c.isprintable() else "?" for c in name)  # the list may have been written by hand
        other = "" if is_of_class(entry) else ", counted for another class: run its check again"
        print(f"  {shown}  {reached} of {of} point{'s' * (of != 1)}{other}")
    if who == student.GUEST:
        print("It is under the name 'guest': put your own id into cu.setup(student=…) if somebody grades it.")
    return target


def _points(entry: Mapping[str, Any]) -> tuple[int, int]:
    """Points reached, and all; of an entry of format 1, what it calls criteria."""
    return entry.get("points", entry.get("passed", 0)), entry["of"]
