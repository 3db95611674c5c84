"""The grader's command line: `python -m course_utils.grading grade SUBMISSIONS --out REPORT`, and `look-over` for nbgrader.

Exit status: 0 when every submission has its result, whatever that is; 2 where the run could not be made or not be ended: the
sentence says why, and the same command goes on; 130 when it was stopped from the keyboard. `look-over`: 1 when it named something.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..ep_experiment.machine import cores
from ..errors import CourseError
from .secret import read_secret

if TYPE_CHECKING:
    from .class_file import ClassFile

FOUND, NOT_DONE, STOPPED = 1, 2, 130


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser("python -m course_utils.grading", description="Grade what cu.submit() wrote.")
    commands = p.add_subparsers(dest="command", required=True)
    g = commands.add_parser("grade", help="grade a folder of zips; run it again to go on after a stop")
    g.add_argument("submissions", type=Path, help="folder with the zips, also in folders below")
    g.add_argument("--out", type=Path, required=True, metavar="REPORT", help="folder for all that is written")
    where = g.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=_number,
        metavar="N",
        help="answers examined at a time (all processors)",
    )
    where.add_argument(
        "--scheduler",
        default="",
        metavar="tcp://HOST:PORT",
        help="of a Dask cluster, whose workers examine the answers",
    )
    g.add_argument("--rule", choices=("last", "best"), help="which of a student's zips counts (last)")
    g.add_argument(
        "--class",
        type=Path,
        metavar="YAML",
        dest="class_file",
        help="the class file: tasks, points, dates, late rule, rule and key",
    )
    g.add_argument(
        "--secret-file", type=Path, metavar="F", help="text file with a word that hidden inputs are drawn from"
    )
    g.add_argument(
        "--class-key",
        metavar="WORD",
        help="the key of the class, which students' parameters are drawn from",
    )
    look = commands.add_parser(
        "look-over", help="name what was done to notebooks collected by nbgrader, before they are graded"
    )
    look.add_argument("submitted", type=Path, help="the folder submitted/ of the nbgrader course")
    look.add_argument("--release", type=Path, required=True, metavar="RELEASE", help="its folder release/")
    look.add_argument("--move-on", action="store_true", help="exit status 0 also when something was named")
    return p


def _look_over(submitted: Path, release: Path) -> int:
    """Print what is to be said of each submission; returns whether there is anything."""
    from .looking_over import look_over

    count, findings = look_over(submitted, release)
    for finding in findings:
        print(finding)
    print(f"Looked over: {count} submission{'s' * (count != 1)}, {len(findings) or 'nothing'} to look at.")
    return FOUND if findings else 0


def _number(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 256:
        raise argparse.ArgumentTypeError(f"{number} is given, and it must be 1 to 256")
    return number


def _class(given: argparse.Namespace) -> ClassFile | None:
    """The class of the command line. Raises CourseError where something is said twice."""
    if given.class_file is None:
        return None
    twice = [name for name, value in (("--rule", given.rule), ("--class-key", given.class_key)) if value is not None]
    if twice:
        raise CourseError(
            f"{' and '.join(twice)} and --class are given, and the class file says that, too: leave {' and '.join(twice)} out."
        )
    from .class_file import read

    return read(given.class_file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a letter shows a question mark in its place
            stream.reconfigure(errors="replace")
    if given.command == "look-over":
        try:
            found = _look_over(given.submitted, given.release)
        except CourseError as error:
            print(f"grading: {error}", file=sys.stderr)
            return NOT_DONE
        return 0 if given.move_on else found
    from .publishing import publish
    from .results import GRADES, RESULTS
    from .runs import grade

    try:
        a_class = _class(given)
        key = a_class.key if a_class else given.class_key or ""
        said = grade(
            given.submissions, given.out, workers=given.workers or cores(), rule=given.rule or "last",
            secret=read_secret(given.secret_file), key=key, scheduler=given.scheduler, a_class=a_class,
        )  # fmt: skip
        more = publish(given.out, given.submissions, key)
    except CourseError as error:
        print(f"grading: {error}", file=sys.stderr)
        return NOT_DONE
    except KeyboardInterrupt:
        print("grading: stopped. Run the same command again, and it goes on where it stopped.", file=sys.stderr)
        return STOPPED
    print(f"{said}\nWritten into {given.out}: {', '.join([RESULTS, GRADES, *more])}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
