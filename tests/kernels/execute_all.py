"""Execute every distinct kernel of a model's WebGPU library, each alone, and compare it with the same function on llvm.

    VK_ICD_FILENAMES=/usr/share/vulkan/icd.d/lvp_icd.json GALLIVM_PERF=nopt \
        python -m tests.kernels.execute_all --model FOLDER --dtype float16 --height 128 --width 128

The reference is the PrimFunc before it was scheduled for GPUs, scheduled for processors instead. Kernels that are
written by hand, attention and norms, have no such form: they are executed here, and compared with torch by the tests
beside this file. Prints a line a kernel and ends with exit code 1 where one differs.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
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
from mlc_controlnet.parity.parity import THRESHOLD_DB, signal_to_noise_db
from mlc_controlnet.passes.pipeline import Pipeline, clean
from mlc_controlnet.passes.schedule.schedule_for_cpu import ScheduleForCPU
from tests.kernels.webgpu_device import run_on_webgpu

ANY_LENGTH = 40960  # of a row of which a kernel that others share reads a part
TOKENS = 500  # ids that are drawn, as in parity


@dataclass(frozen=True)
class Outcome:
    """One kernel: how far from its reference in dB, None where it has none, and whether its result is finite."""

    name: str
    shape: tuple[int, ...]
    decibels: float | None
    finite: bool

    def passes(self, dtype: str) -> bool:
        return self.finite and (self.decibels is None or self.decibels >= THRESHOLD_DB[dtype])

    def __str__(self) -> str:
        compared = "written by hand, not compared here" if self.decibels is None else f"{self.decibels:.1f} dB"
        return f"{self.name} {list(self.shape)}: {compared}{'' if self.finite else ', not finite'}"


def execute_all(cleaned: tvm.IRModule, folder: Path) -> Iterator[Outcome]:
    """Run every PrimFunc of a module that has been through phase clean, as scheduled for WebGPU."""
    prim_funcs = {}
    for phase, module in Pipeline(tvm_target(TARGETS["webgpu"])).walk(cleaned):
        prim_funcs[phase] = _prim_funcs(module)  # now: the next phase schedules in place
        if phase == "schedule":
            break
    originals, kernels = prim_funcs["lower"], prim_funcs["schedule"]
    on_processor = _compile_for_processor(
        {name: f for name, f in originals.items() if name in kernels and not f.attrs.get("tirx.is_scheduled")}
    )
    for name, kernel in sorted(kernels.items()):
        values = {str(p.name): _draw(p.ty, np.random.default_rng(0)) for p in kernel.params}
        *inputs, output = values
        run_on_webgpu([kernel], {i: values[i] for i in inputs}, {output: values[output]}, folder)
        got = values[output].astype(np.float32)
        decibels = None
        if name in on_processor:
            arguments = [tvm.runtime.tensor(values[i]) for i in inputs]
            arguments.append(tvm.runtime.tensor(np.zeros_like(values[output])))
            on_processor[name](*arguments)
            decibels = signal_to_noise_db(arguments[-1].numpy().astype(np.float32), got)
        yield Outcome(name, got.shape, decibels, bool(np.isfinite(got).all()))


def _prim_funcs(module: tvm.IRModule) -> dict[str, tirx.PrimFunc]:
    return {v.name_hint: f for v, f in module.functions_items() if isinstance(f, tirx.PrimFunc)}


def _compile_for_processor(functions: dict[str, tirx.PrimFunc]) -> dict[str, tvm.runtime.Module]:
    target = tvm_target(TARGETS["llvm"])
    module = tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in functions.items()})
    with target:
        compiled = tvm.compile(ScheduleForCPU()(module), target=target)
    return {name: compiled[name] for name in functions}


def _draw(tensor: tirx.Buffer, rng: np.random.Generator) -> np.ndarray:
    shape = [int(size) if isinstance(size, tirx.IntImm) else ANY_LENGTH for size in tensor.shape]
    dtype = str(tensor.dtype)
    if dtype.startswith("int"):
        return rng.integers(0, TOKENS, shape).astype(dtype)
    # Positive: a kernel may take a root or a reciprocal; and small, so that float16 holds the sum of thousands.
    return (rng.uniform(0.1, 1.0, shape) / 8).astype(dtype)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="circles")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--component", action="append")
    options = parser.parse_args()
    components = tuple(options.component or COMPONENTS)
    checkpoint = load_checkpoint(find_model(options.model), options.height, options.width, components=components)
    cleaned = clean(capture(checkpoint, options.dtype))
    failed = 0
    compared: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        for outcome in execute_all(cleaned.module, Path(folder)):
            print(outcome, flush=True)
            failed += not outcome.passes(options.dtype)
            compared += [] if outcome.decibels is None else [outcome.decibels]
    print(f"{len(compared)} kernels compared, the worst {min(compared):.1f} dB; {failed} failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
