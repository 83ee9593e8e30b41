"""Tunes the heaviest tasks of a model and writes the results as records."""

from collections.abc import Iterator
from pathlib import Path

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import find_model, load_checkpoint
from mlc_controlnet.compile.library import tvm_target
from mlc_controlnet.config import TARGETS
from mlc_controlnet.errors import UserError
from mlc_controlnet.instruction_sets import best_of_host, without_any
from mlc_controlnet.passes.pipeline import Pipeline, clean
from mlc_controlnet.tuning.measure import Stopwatch
from mlc_controlnet.tuning.records import write_records
from mlc_controlnet.tuning.search import search
from mlc_controlnet.tuning.tasks import find_tasks, schedule_by_rules


def tune(target_name: str, model: str, count: int, folder: Path, command: str) -> Iterator[str]:
    """Tune the `count` heaviest tasks, yield a line for each, and replace the records in `folder`.

    They are of the best instruction set that this machine's processor has.

    Args:
        target_name: a key of TARGETS whose device is this machine's.
        model: as for `build --model`.
        command: how to search again; it is kept with the records.
    """
    instruction_set = best_of_host()
    if instruction_set is None:
        raise UserError("--target llvm", without_any(), "a processor that has one", "tune on another machine")
    target = tvm_target(TARGETS[target_name], instruction_set)
    captured = clean(capture(load_checkpoint(find_model(model))))
    tasks = find_tasks(Pipeline(target).run(captured.module, until="lower"))
    weights = {
        task.name: task.calls * Stopwatch(schedule_by_rules(task.function, target), target).seconds() for task in tasks
    }
    tasks.sort(key=lambda task: -weights[task.name])
    total_ms = 1e3 * sum(weights.values())
    yield f"{len(tasks)} tasks take {total_ms:.0f} ms per picture under the rules; tuning the heaviest {count}"
    found = []
    for task in tasks[:count]:
        best = search(task, target)
        outcome = "no better" if best is None else f"{best.seconds_by_rules * 1e6:.1f} -> {best.seconds * 1e6:.1f} us"
        yield f"  {task.name}, {task.calls} calls: {outcome}"
        if best is not None:
            found.append(best)
    saved_ms = 1e3 * sum((best.seconds_by_rules - best.seconds) * best.task.calls for best in found)
    yield f"{len(found)} records save {saved_ms:.0f} ms per picture"
    write_records(folder / target_name / instruction_set, found, target, command)
