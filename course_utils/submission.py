"""Handing in: one zip with the kept answers and nothing else."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

from . import __version__, student
from .checks import ANSWERS, MANIFEST, manifest_of
from .errors import CourseError
from .paths import WORK, write_whole


def submit() -> Path:
    """Pack all answers that `cu.check()` kept into one zip in `work/`, say what is in it, and return its path.

    Its name ends in a number made from the content: the same answers give the same file, and an earlier hand-in is
    never overwritten. First used in exercise 01.
    Raises CourseError when nothing was checked yet, or an answer was changed behind the check's back.
    """
    who = student.current()
    folder = ANSWERS / who
    manifest = manifest_of(folder)
    if not manifest["tasks"]:
        raise CourseError("There is no answer to hand in yet: run a cu.check(…) cell first. It keeps what it has seen.")
    contents: dict[str, bytes] = {}
    for name, entry in manifest["tasks"].items():
        path = folder / entry["file"]
        data = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            raise CourseError(f"The kept answer {str(path)!r} was changed or deleted: run cu.check({name!r}, …) again.")
        contents[entry["file"]] = data
    contents[MANIFEST] = json.dumps({**manifest, "course": __version__}, indent=2, sort_keys=True).encode()
    digest = hashlib.sha256(b"".join(hashlib.sha256(contents[n]).digest() for n in sorted(contents))).hexdigest()
    target = WORK / f"submission_{who}_{digest[:8]}.zip"
    with write_whole(target) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(contents):
            archive.writestr(zipfile.ZipInfo(name), contents[name], zipfile.ZIP_DEFLATED)
    tasks = manifest["tasks"]
    done = [name for name, entry in tasks.items() if entry["passed"] == entry["of"]]
    print(f"{target}: {len(tasks)} answers, {len(done)} of them passed all criteria. Hand in this file.")
    for name, entry in tasks.items():
        print(f"  {name}  {entry['passed']} of {entry['of']} criteria")
    if who == student.GUEST:
        print("It is under the name 'guest': put your own id into cu.setup(student=…) if somebody grades it.")
    return target
