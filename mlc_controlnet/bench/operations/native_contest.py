"""Time our native library against torch on the same device, eager and with torch.compile, in turns.

On a processor, onnxruntime and OpenVINO take part where they are installed.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tvm
from tvm import relax

from mlc_controlnet.bench.operations.cases import Case, Cases, Log
from mlc_controlnet.bench.operations.figures import OURS, Timing
from mlc_controlnet.bench.operations.onnx_peer import export_onnx
from mlc_controlnet.bench.operations.onnx_runtimes import installed_runtimes, load_runtime
from mlc_controlnet.bench.torch_device import synchronize
from mlc_controlnet.compile.library import plan_library, write_library
from mlc_controlnet.config import TARGETS, BuildConfig
from mlc_controlnet.locations import TUNING_DB
from mlc_controlnet.machine import processor_name, set_thread_count
from mlc_controlnet.parity.parity import signal_to_noise_db

EAGER, COMPILED = "torch eager", "torch.compile"
TURN_SECONDS = 0.05
REST_SECONDS = 0.2  # TVM's threads wait spinning for 0.15 s before they sleep, OpenMP's for 0.01 s
COPY_BYTES = 256 << 20


@dataclass(frozen=True)
class NativeOutcome:
    """The result of a contest.

    Attributes:
        device: its name, with torch's device and the threads of each contestant.
        times: for each case, contestant -> its times.
        ours_db: for each case, the signal-to-noise ratio of our outputs against torch's in float32.
    """

    device: str
    copy_gigabytes_per_second: float
    times: list[dict[str, Timing]]
    ours_db: list[float]


def native_peers(target: str) -> tuple[str, ...]:
    """Return the peers that can take part on this machine against a library for `target`, a key of config.TARGETS."""
    return (EAGER, COMPILED, *(installed_runtimes() if TARGETS[target].device == "llvm" else ()))


def run_native_contest(
    cases: Cases,
    target: str,
    dtype: str,
    rounds: int,
    folder: Path,
    log: Log,
    peers: Sequence[str],
    instruction_set: str | None = None,
) -> NativeOutcome:
    """Compile the cases into `folder` for `target`, a native key of config.TARGETS, and time them.

    peers: of `native_peers(target)`. torch.compile compiles C++ code for every case.
    instruction_set: of the library for llvm, as in `plan_library`; the peers choose theirs.
    """
    log(f"compiling {len(cases.cases)} cases for {target}")
    threads = _same_threads()
    kind = TARGETS[target].device
    config = BuildConfig(model="bench", target=target, dtypes=(dtype,), out=folder, tuning_db=TUNING_DB)
    library, _ = write_library(plan_library(cases.module, dtype, config, instruction_set), "bench", folder)
    device = tvm.device("cpu" if kind == "llvm" else kind)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), device)
    # torch calls GPUs of both vendors cuda. It has neither Vulkan nor OpenCL: for these it runs on the processor, and
    # the device's description says so.
    torch_device = torch.device("cuda" if kind in ("cuda", "rocm") else "mps" if kind == "metal" else "cpu")
    times, decibels = [], []
    for number, case in enumerate(cases.cases, 1):
        reference, ours = case.reference(), _ours(case, machine, device)
        result = ours.call()
        outputs = [result] if hasattr(result, "numpy") else list(result)
        pairs = zip(reference, outputs, strict=True)
        decibels.append(min(signal_to_noise_db(wanted.numpy(), got.numpy()) for wanted, got in pairs))
        sides = [ours, *_torch_sides(case, torch_device, peers), *_onnx_sides(case, peers, threads, folder)]
        times.append(_take_turns(sides, rounds))
        medians = ", ".join(f"{name} {statistics.median(t.wall_ms):.2f} ms" for name, t in times[-1].items())
        log(f"{case.name}: {medians} ({number} of {len(cases.cases)})")
    name = processor_name() if kind == "llvm" else device.device_name
    return NativeOutcome(
        device=f"{name}, torch on {torch_device}, {threads} {'thread' if threads == 1 else 'threads'} each",
        copy_gigabytes_per_second=_copy_rate(torch_device),
        times=times,
        ours_db=decibels,
    )


def _same_threads() -> int:
    """Give torch as many threads as TVM has, and return how many. Left alone, TVM takes half of the processors."""
    set_thread_count()
    threads = int(tvm.get_global_func("runtime.NumThreads")())
    torch.set_num_threads(threads)
    return threads


@dataclass(frozen=True)
class _Side:
    """One contestant at one case: `call` queues the work, `finish` waits for it."""

    name: str
    call: Callable[[], Any]
    finish: Callable[[], None]


def _ours(case: Case, machine: relax.VirtualMachine, device: tvm.runtime.Device) -> _Side:
    function = machine[case.name]
    inputs = [tvm.runtime.tensor(value.numpy(), device) for value in case.inputs]
    params = tuple(tvm.runtime.tensor(value.numpy(), device) for value in case.params)
    return _Side(OURS, lambda: function(*inputs, params), device.sync)


def _torch_sides(case: Case, device: torch.device, peers: Sequence[str]) -> list[_Side]:
    torch.compiler.reset()  # torch.compile gives up after eight compilations, and counts those of earlier cases
    module = case.module.to(device)
    inputs = tuple(value.to(device) for value in case.inputs)

    def side(name: str, run: Callable[..., Any]) -> _Side:
        def call() -> Any:
            with torch.inference_mode():
                return run(*inputs)

        return _Side(name, call, lambda: synchronize(device))

    runs = {EAGER: module, COMPILED: torch.compile(module, dynamic=False)}
    return [side(name, run) for name, run in runs.items() if name in peers]


def _onnx_sides(case: Case, peers: Sequence[str], threads: int, folder: Path) -> list[_Side]:
    names = [name for name in peers if name not in (EAGER, COMPILED)]
    if not names:
        return []
    file = folder / f"{case.name}.onnx"
    export_onnx(case.module, case.inputs, file, external_data=True)
    inputs = [value.contiguous().numpy() for value in case.inputs]
    return [_Side(name, load_runtime(name, file, inputs, threads), lambda: None) for name in names]


def _take_turns(sides: Sequence[_Side], rounds: int) -> dict[str, Timing]:
    """Time the first call of each side, which compiles and warms up, and then `rounds` turns of about TURN_SECONDS.

    Before each turn the threads of the other sides get time to fall asleep, and a call wakes those of this side:
    threads that spin made a small operation ten times slower.
    """

    def seconds(side: _Side, calls: int) -> float:
        began = time.perf_counter()
        for _ in range(calls):
            side.call()
        side.finish()
        return (time.perf_counter() - began) / calls

    def rested(side: _Side, calls: int) -> float:
        time.sleep(REST_SECONDS)
        seconds(side, 1)
        return seconds(side, calls)

    first = [seconds(side, 1) for side in sides]
    calls = [max(1, math.ceil(TURN_SECONDS / rested(side, 1))) for side in sides]
    taken: list[list[float]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, count, times in zip(sides, calls, taken, strict=True):
            times.append(1000 * rested(side, count))
    return {
        side.name: Timing(load_ms=0.0, first_call_ms=1000 * began, wall_ms=tuple(times), device_ms=())
        for side, began, times in zip(sides, first, taken, strict=True)
    }


def _copy_rate(device: torch.device) -> float:
    """Measure a large copy in gigabytes per second, counting the bytes read and the bytes written."""
    source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(6):
        synchronize(device)
        began = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * COPY_BYTES / min(seconds[1:]) / 1e9
