"""python -m mlc_controlnet tune: search for schedules of a model's heaviest tasks and write them as records."""

import argparse
import shlex
import sys
from pathlib import Path

from mlc_controlnet.config import TARGETS
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

    from mlc_controlnet.capture import capture
    from mlc_controlnet.checkpoint import find_model, load_checkpoint
    from mlc_controlnet.library import tvm_target
    from mlc_controlnet.passes import pipeline
    from mlc_controlnet.tuning.measure import Stopwatch
    from mlc_controlnet.tuning.records import write_records
    from mlc_controlnet.tuning.search import search
    from mlc_controlnet.tuning.tasks import find_tasks, schedule_by_rules

    target = tvm_target(TARGETS[options.target])
    captured = pipeline.clean(capture(load_checkpoint(find_model(options.model))))
    tasks = find_tasks(pipeline.run(captured.module, target, until="lower"))
    weights = {task.name: task.calls * Stopwatch(schedule_by_rules(task.function), target).seconds() for task in tasks}
    tasks.sort(key=lambda task: -weights[task.name])
    total_ms = 1e3 * sum(weights.values())
    print(f"{len(tasks)} tasks take {total_ms:.0f} ms a picture under the rules; tuning the heaviest {options.tasks}")
    found = []
    for task in tasks[: options.tasks]:
        best = search(task, target)
        outcome = "no better" if best is None else f"{best.seconds_by_rules * 1e6:.1f} -> {best.seconds * 1e6:.1f} us"
        print(f"  {task.name}, {task.calls} calls: {outcome}", flush=True)
        if best is not None:
            found.append(best)
    saved_ms = 1e3 * sum((best.seconds_by_rules - best.seconds) * best.task.calls for best in found)
    print(f"{len(found)} records save {saved_ms:.0f} ms a picture")
    command = shlex.join(["python", "-m", "mlc_controlnet", *sys.argv[1:]])
    write_records(options.out / options.target, found, target, command)
