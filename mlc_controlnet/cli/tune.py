"""`tune`: search for faster schedules of a model's heaviest tasks and write them as tuning records."""

import argparse
from pathlib import Path

from mlc_controlnet.errors import UserError

DEFAULT_RECORDS = Path("tuning_db")
TUNABLE = ("llvm",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="llvm", help=f"what to tune for: {', '.join(TUNABLE)}; default: llvm")
    parser.add_argument("--model", default="circles", help="a bundled model or a diffusers folder; default: circles")
    parser.add_argument("--tasks", type=int, default=16, help="how many of the heaviest tasks to tune; default: 16")
    parser.add_argument(
        "--out",
        type=Path,
        default=DEFAULT_RECORDS,
        metavar="FOLDER",
        help=f"where to write the records, in a folder named after the target; default: {DEFAULT_RECORDS}",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Replace the target's tuning records. Only schedules that are faster than those of the rules are kept.

    Raises:
        UserError: the target has no tuner, the count is below 1, or there is no such model.
    """
    if options.target not in TUNABLE:
        raise UserError("--target", repr(options.target), f"one of {', '.join(TUNABLE)}", "tune for one of these")
    if options.tasks < 1:
        raise UserError("--tasks", str(options.tasks), "1 or more", "leave it out for the default")

    from mlc_controlnet.tuning.tune import tune

    for line in tune(options.target, options.model, options.tasks, options.out, options.command_line):
        print(line, flush=True)
