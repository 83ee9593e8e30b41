"""Execute every distinct kernel of a model's WebGPU library, each alone, and compare it with the same function on llvm.

    VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/lvp_icd.json GALLIVM_PERF=nopt \
        python -m tests.kernels.execute_all --model FOLDER --dtype float16 --height 128 --width 128 --keep KEPT

The reference is the PrimFunc before it was scheduled for GPUs, scheduled for processors instead. Kernels that are
written by hand, attention and norms, have no such form: their reference is torch, in float64. Prints a line a kernel
and ends with exit code 1 where one differs.

Stable Diffusion takes a quarter of an hour, of which most is compiling for the adapter. In float32 attention compiles
in a fifth of the time on SwiftShader: `--only flash_attention` without the two variables. `--keep` writes the kernels
and each outcome into a folder: a run that was stopped goes on there.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from tvm import tirx

from mlc_controlnet.capture import capture
from mlc_controlnet.checkpoint import find_model, load_checkpoint
from mlc_controlnet.compile.library import tvm_target
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import TARGETS
from mlc_controlnet.kernels.marks import computed_by
from mlc_controlnet.parity.parity import THRESHOLD_DB, signal_to_noise_db
from mlc_controlnet.passes.pipeline import Pipeline, clean
from mlc_controlnet.passes.schedule.schedule_for_cpu import ScheduleForCPU
from tests.kernels.torch_references import example_of
from tests.kernels.webgpu_device import run_on_webgpu

ANY_LENGTH = 40960  # of a row of which a kernel that others share reads a part
TOKENS = 500  # ids that are drawn, as in parity
PLACES = 12  # of a vector of which a kernel reads one number: the text encoder's gates, the ControlNet's 13 residuals


@dataclass(frozen=True)
class Outcome:
    """One kernel: how far from its reference in dB; -inf if a number of it is not finite."""

    name: str
    shape: tuple[int, ...]
    decibels: float
    by_hand: bool

    def passes(self, dtype: str) -> bool:
        return self.decibels >= THRESHOLD_DB[dtype]

    def __str__(self) -> str:
        return f"{self.name} {list(self.shape)}: {self.decibels:.1f} dB{', of torch' if self.by_hand else ''}"


@dataclass(frozen=True)
class Scheduled:
    """The PrimFuncs of a model: as they were before they were scheduled, and as scheduled for WebGPU."""

    originals: tvm.IRModule
    kernels: tvm.IRModule


def schedule(cleaned: tvm.IRModule) -> Scheduled:
    """Take a module that has been through phase clean to where its kernels are scheduled."""
    after = {}
    for phase, module in Pipeline(tvm_target(TARGETS["webgpu"])).walk(cleaned):
        after[phase] = prim_funcs(module)  # now: the next phase schedules in place
        if phase == "schedule":
            break
    return Scheduled(after["lower"], after["schedule"])


def execute_all(
    scheduled: Scheduled, folder: Path, known: Sequence[str] = (), only: Sequence[str] = ("",)
) -> Iterator[Outcome]:
    """Run every kernel whose name is not `known` and contains a part of `only`."""
    originals = {v.name_hint: f for v, f in scheduled.originals.functions_items()}
    kernels = {v.name_hint: f for v, f in scheduled.kernels.functions_items()}
    for name in sorted(name for name in kernels.keys() - set(known) if any(part in name for part in only)):
        yield _execute(name, kernels[name], _original_of(name, originals), folder)


def _original_of(name: str, originals: dict[str, tirx.PrimFunc]) -> tirx.PrimFunc | None:
    """A kernel that replaces several is called as the first of them, with a number behind."""
    same = [original for original in originals if name.startswith(original)]
    longest = max((original for original in same if name[len(original) :].isdecimal()), key=len, default="")
    return originals.get(name, originals.get(longest))


def _execute(name: str, kernel: tirx.PrimFunc, original: tirx.PrimFunc | None, folder: Path) -> Outcome:
    computes = computed_by(kernel)
    if computes is not None:
        example = example_of(computes)
        arguments, want = example.arguments, example.want
        output = np.full(want.shape, np.nan, str(kernel.params[-1].ty.dtype))
    else:
        assert original is not None, f"{name} was made when kernels were scheduled"
        *arguments, output = _draw_all(kernel)
        want = _run_on_processor(name, original, arguments, output)
        if not np.isfinite(want).all():  # a root or a logarithm
            arguments = [np.abs(argument) for argument in arguments]
            want = _run_on_processor(name, original, arguments, output)
    names = [str(param.name) for param in kernel.params]
    inputs = dict(zip(names[:-1], arguments, strict=True))
    run_on_webgpu([kernel], inputs, {names[-1]: output}, folder)
    return Outcome(name, output.shape, _least_decibels(want, output), by_hand=computes is not None)


def _least_decibels(want: np.ndarray, got: np.ndarray) -> float:
    """Compare; the numbers of a pair, as of a mean and a deviation, each with its own."""
    pairs = want.ndim == 3 and want.shape[2] == 2
    parts = [(want[..., i], got[..., i]) for i in range(2)] if pairs else [(want, got)]
    return min(signal_to_noise_db(w.astype(np.float32), g.astype(np.float32)) for w, g in parts)


def prim_funcs(module: tvm.IRModule) -> tvm.IRModule:
    return tvm.IRModule({v: f for v, f in module.functions_items() if isinstance(f, tirx.PrimFunc)})


def _run_on_processor(
    name: str, function: tirx.PrimFunc, arguments: Sequence[np.ndarray], like: np.ndarray
) -> np.ndarray:
    target = tvm_target(TARGETS["llvm"])
    with target:
        module = ScheduleForCPU()(tvm.IRModule({name: function.with_attr("global_symbol", name)}))
        library = tvm.compile(module, target=target)
    output = tvm.runtime.tensor(np.zeros_like(like))
    parts = map(_part, arguments, function.params)
    library[name](*map(tvm.runtime.tensor, parts), output)
    return output.numpy()


def _part(argument: np.ndarray, param: tirx.Var) -> np.ndarray:
    """As much of a row as this function has: a kernel that others share takes one of any length."""
    shape = tuple(int(size) for size in param.ty.shape)
    return argument if argument.shape == shape else np.ascontiguousarray(argument[:, : shape[1]])


def _draw_all(kernel: tirx.PrimFunc) -> list[np.ndarray]:
    """Draw all params. Numbers of both signs: a sum of thousands is small, and a wrong index is a large error of it."""
    rng = np.random.default_rng(0)
    return [_draw(param.ty, rng) for param in kernel.params]


def _draw(tensor: tirx.Buffer, rng: np.random.Generator) -> np.ndarray:
    shape = [int(size) if isinstance(size, tirx.IntImm) else ANY_LENGTH for size in tensor.shape]
    dtype = str(tensor.dtype)
    if dtype == "uint32":  # words of codes
        return rng.integers(0, 2**32, shape, np.uint32)
    if dtype.startswith("int"):
        return rng.integers(0, PLACES if shape == [1] else TOKENS, shape).astype(dtype)
    return (rng.uniform(0.1, 1.0, shape) * rng.choice((-1, 1), shape)).astype(dtype)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="circles")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--component", action="append")
    parser.add_argument("--only", action="append", help="a part of kernels' names; can be repeated; default: all")
    parser.add_argument("--keep", type=Path, help="folder of a run to go on with, of the same options")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        kept = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kept.mkdir(parents=True, exist_ok=True)
        scheduled = _schedule_once(options, kept)
        log = kept / "outcomes.jsonl"
        outcomes = [_outcome(line) for line in log.read_text().splitlines()] if log.exists() else []
        for outcome in execute_all(scheduled, kept, [outcome.name for outcome in outcomes], options.only or [""]):
            print(outcome, flush=True)
            with log.open("a") as lines:
                lines.write(json.dumps(dataclasses.asdict(outcome)) + "\n")
            outcomes.append(outcome)
    failed = [outcome for outcome in outcomes if not outcome.passes(options.dtype)]
    worst = [
        f"{len(some)} {kind}, the worst {min(outcome.decibels for outcome in some):.1f} dB"
        for by_hand, kind in ((False, "against their definition"), (True, "written by hand against torch"))
        if (some := [outcome for outcome in outcomes if outcome.by_hand == by_hand])
    ]
    print(f"{len(outcomes)} kernels compared: {'; '.join(worst)}; {len(failed)} failed")
    for outcome in failed:
        print(f"failed: {outcome}")
    return int(bool(failed))


def _schedule_once(options: argparse.Namespace, kept: Path) -> Scheduled:
    """The kernels of the model, from `kept` if they are there."""
    files = [kept / f"{field.name}.json" for field in dataclasses.fields(Scheduled)]
    if not all(file.exists() for file in files):
        components = tuple(options.component or COMPONENTS)
        checkpoint = load_checkpoint(find_model(options.model), options.height, options.width, components=components)
        scheduled = schedule(clean(capture(checkpoint, options.dtype)).module)
        for file, module in zip(files, (scheduled.originals, scheduled.kernels), strict=True):
            file.write_text(tvm.ir.save_json(module))
    return Scheduled(*(tvm.ir.load_json(file.read_text()) for file in files))


def _outcome(line: str) -> Outcome:
    fields = json.loads(line)
    return Outcome(**fields | {"shape": tuple(fields["shape"])})


if __name__ == "__main__":
    sys.exit(main())
