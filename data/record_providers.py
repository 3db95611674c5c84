"""Run lesson 05's experiment on every execution provider of this machine, each in a process of its own (`make providers`).

    python data/record_providers.py                 all
    python data/record_providers.py cpu webgpu      only these

Each run writes `data/ep_records/<name>.json`. A provider that is not installed, or that does not work here, gets a sentence.
A record of another machine is written by hand: python course_utils/ep_experiment --help
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import course_utils as cu  # noqa: E402
from course_utils.ep_experiment.record import as_text  # noqa: E402
from course_utils.lab.providers import PLUGINS  # noqa: E402
from course_utils.paths import write_whole  # noqa: E402

PROVIDERS = {"cpu": "CPUExecutionProvider"} | {plugin.name.lower(): plugin.provider for plugin in PLUGINS}


def main() -> int:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROVIDERS)}; all of them by default")
    parse.add_argument("--rounds", type=int, default=100, help="runs per time (default: 100); 0 leaves times out")
    parse.add_argument("--out", type=Path, default=HERE / "ep_records", help="folder to write into")
    args = parse.parse_args()
    unknown = sorted(set(args.names) - set(PROVIDERS))
    if unknown:
        parse.error(f"there is no provider {', '.join(unknown)} here: choose among {', '.join(PROVIDERS)}")
    if args.rounds < 0:
        parse.error(f"--rounds {args.rounds}: give a whole number, at least 0")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parse.error(f"the folder {str(args.out)!r} cannot be made ({error.strerror}): give another one")
    written = 0
    for name in args.names or PROVIDERS:
        print(f"{name} …", flush=True)
        try:
            found = cu.run_ep_experiment(PROVIDERS[name], rounds=args.rounds)
            with write_whole(args.out / f"{name}.json") as stream:
                stream.write(as_text(found).encode())
        except cu.CourseError as error:
            print(f"  not recorded: {error}")
            continue
        devices = ", ".join(f"{d['type']} ({d['vendor']})" for d in found["devices"]) or "no device on this machine"
        print(f"  {found['versions']['package']}: {devices}; wrote {name}.json")
        written += 1
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
