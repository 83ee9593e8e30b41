"""python -m mlc_controlnet tune: search for schedules of a model's heaviest tasks and write them as records."""

import argparse
import shlex
import sys
from pathlib import Path

from mlc_controlnet.errors import UserError

DEFAULT_RECORDS = Path("tuning_db")
TUNABLE = ("llvm",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="llvm", help=f"what to tune for: {', '.join(TUNABLE)}")
    parser.add_argument("--model", default="circles", help="a bundled model or a folder in diffusers' layout")
    parser.add_argument("--tasks", type=int, default=16, help="how many of the heaviest tasks to tune (16)")
    parser.add_argument(
        "--out", type=Path, default=DEFAULT_RECORDS, help=f"gets a folder named after the target ({DEFAULT_RECORDS})"
    )


def run(options: argparse.Namespace) -> None:
    """Replaces the target's set of records. Only schedules that beat the rules' are kept.

    Raises:
        UserError: a target without a tuner, a count below 1, or a model that is not there.
    """
    if options.target not in TUNABLE:
        raise UserError("--target", repr(options.target), f"one of {', '.join(TUNABLE)}", "tune for one of these")
    if options.tasks < 1:
        raise UserError("--tasks", str(options.tasks), "1 or more", "leave it out for the default")

    from mlc_controlnet.tuning.tune import tune

    command = shlex.join(["python", "-m", "mlc_controlnet", *sys.argv[1:]])
    for line in tune(options.target, options.model, options.tasks, options.out, command):
        print(line, flush=True)
