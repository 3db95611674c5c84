"""The doctor's command line: `python -m course_utils.doctor model.onnx`. In Python it is `cu.doctor(path)`.

Exit status: 0 without errors (warnings and notes may be there), 1 where a model has an error, 2 for wrong use: an
unknown option, no such file, a folder in place of a file. 3 where no error was found, and a part of the examination could
not be made, as ONNX Runtime is not installed: that is no clean bill.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

from .errors import CourseError

EXIT = (
    "exit status: 0 no errors, 1 a model has an error, 2 wrong use (no such file, unknown option), 3 no errors, but a part "
    "of the examination could not be made (a package is missing)"
)
WRONG_USE, INCOMPLETE = 2, 3


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        "python -m course_utils.doctor",
        description="Examine ONNX models: what is wrong, where, why, and what to do. Nothing is executed without --run.",
        epilog=EXIT,
    )
    p.add_argument("model", nargs="*", help="path of an .onnx file; several are examined one after the other")
    p.add_argument("--json", action="store_true", help="write JSON (for several models: a list)")
    p.add_argument("--run", action="store_true", help="also load and run the model, in a process with limits")
    p.add_argument("--provider", help="with --run: which nodes would this execution provider not take?")
    p.add_argument("--requested-opset", type=int, metavar="N", help="what the exporter was asked for")
    p.add_argument(
        "--budget-mb", type=int, default=512, metavar="MB", help="weights to search for NaN and copies (512)"
    )
    p.add_argument("--seconds", type=float, default=60, help="time limit of --run (60)")
    p.add_argument(
        "--memory-mb", type=int, metavar="MB", help="memory limit of --run (4000 and three times the weights)"
    )
    p.add_argument("--codes", action="store_true", help="list all that can be found, and stop")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    p = parser()
    given = p.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show ✗ shows a question mark in its place
            stream.reconfigure(errors="replace")
    if not given.model and not given.codes:
        p.error("give the path of an .onnx file")
    try:
        from .diagnosis import doctor
    except ImportError as error:
        print(
            f"doctor: nothing was examined, as a package is missing ({error}): install onnx and numpy.", file=sys.stderr
        )
        return INCOMPLETE
    return _print_codes(given.json) if given.codes else _examine(doctor, given)


@contextlib.contextmanager
def _reader_may_go() -> Iterator[None]:
    """A reader that has seen enough, as `head` does, is no error."""
    try:
        yield
        sys.stdout.flush()  # here, where it is noticed that nobody reads, and not at the end of the process
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _examine(doctor: Callable[..., Any], given: argparse.Namespace) -> int:
    options = {
        "run": given.run, "provider": given.provider, "requested_opset": given.requested_opset,
        "budget_mb": given.budget_mb, "seconds": given.seconds, "memory_mb": given.memory_mb,
    }  # fmt: skip
    reports, complaints = [], []
    with _reader_may_go():
        for path in given.model:
            try:
                reports.append(doctor(path, **options))
            except CourseError as error:  # no such file, a folder: the others are examined all the same
                if str(error) not in complaints:
                    complaints.append(str(error))
                    print(f"doctor: {error}", file=sys.stderr)
                continue
            if not given.json:
                print(reports[-1], end="\n\n" if len(given.model) > 1 else "\n", flush=True)
        if given.json and reports:
            shown: Any = [r.as_dict() for r in reports]
            print(json.dumps(shown if len(given.model) > 1 else shown[0], indent=2, ensure_ascii=False))
    if complaints:
        return WRONG_USE
    if any(r.errors for r in reports):
        return 1
    return INCOMPLETE if any(r.unfinished for r in reports) else 0


def _print_codes(as_json: bool) -> int:
    from .diagnosis.vocabulary import all_codes

    with _reader_may_go():
        if as_json:
            rows = [
                {"code": c.id, "severity": c.severity, "title": c.title, "cure": c.cure, "lesson": c.lesson_name}
                for c in all_codes()
            ]
            print(json.dumps(rows, indent=2, ensure_ascii=False))
        else:
            for c in all_codes():
                print(f"{c.id:26} {c.severity:8} {c.title} ({c.lesson_name})")
    return 0


class _Callable(ModuleType):
    """Importing a submodule binds its name in the package, here over the function `cu.doctor`. So it can be called, too."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        from .diagnosis import doctor

        return doctor(*args, **options)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    sys.exit(main())
