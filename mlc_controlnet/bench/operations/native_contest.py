"""Time our native library against torch on the same device, eager and with torch.compile, in turns.

On a processor, onnxruntime and OpenVINO take part where they are installed. Each contestant has a process of its own,
as have the compiler and the exporter. Whole models need gigabytes in each of them; this process holds none of these.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import tvm

from mlc_controlnet.bench.operations.case_files import CaseFiles, write_arrays
from mlc_controlnet.bench.operations.cases import LEAST_DB, Cases, Computation, Log
from mlc_controlnet.bench.operations.contestant import Entrant
from mlc_controlnet.bench.operations.figures import OURS
from mlc_controlnet.bench.operations.onnx_peer import export_case
from mlc_controlnet.bench.operations.onnx_runtimes import installed_runtimes, load_runtime
from mlc_controlnet.bench.operations.own_library import load_ours
from mlc_controlnet.bench.operations.torch_peers import COMPILED, EAGER, load_torch
from mlc_controlnet.bench.operations.turns import CaseOutcome, take_turns
from mlc_controlnet.bench.own_process import OwnProcess, ProcessFailed
from mlc_controlnet.bench.torch_device import synchronize
from mlc_controlnet.compile.library import keeps_float16, plan_library, write_library
from mlc_controlnet.config import TARGETS, BuildConfig
from mlc_controlnet.locations import TUNING_DB
from mlc_controlnet.machine import processor_name, set_up_threads

COPY_BYTES = 256 << 20


@dataclass(frozen=True)
class NativeRules:
    """The options of a contest.

    Attributes:
        target: of our library, a native key of config.TARGETS.
        rounds: turns of ours and of each peer at each case.
        peers: of `native_peers(target)`.
        instruction_set: of our library for llvm, as in `plan_library`; the peers choose theirs.
    """

    target: str
    dtype: str
    rounds: int
    peers: tuple[str, ...]
    instruction_set: str | None = None

    @property
    def device_kind(self) -> str:
        """The device as TVM names it."""
        device = TARGETS[self.target].device
        return "cpu" if device == "llvm" else device

    @property
    def torch_device(self) -> str:
        """The device as torch names it.

        torch calls GPUs of both vendors cuda. It has neither Vulkan nor OpenCL: for these it runs on the processor, and
        the outcome's description of the device says so.
        """
        return {"cuda": "cuda", "rocm": "cuda", "metal": "mps"}.get(self.device_kind, "cpu")


@dataclass(frozen=True)
class Prepared:
    """What the contestants read. cases: their files are CaseFiles of the library's folder."""

    library: Path
    cases: tuple[Computation, ...]


@dataclass(frozen=True)
class NativeOutcome:
    """The result of a contest.

    Attributes:
        device: its name, with torch's device and the threads of each contestant.
        cases: those at which our library could run.
    """

    device: str
    copy_gigabytes_per_second: float
    cases: dict[Computation, CaseOutcome]


def native_peers(target: str) -> tuple[str, ...]:
    """Return the peers that can take part on this machine against a library for `target`, a key of config.TARGETS."""
    return (EAGER, COMPILED, *(installed_runtimes() if TARGETS[target].device == "llvm" else ()))


def run_native_contest(make_cases: Callable[[], Cases], rules: NativeRules, folder: Path, log: Log) -> NativeOutcome:
    """Compile the cases into `folder` and time them.

    A contestant that fails gets a line of the log, and the others' rows are made.

    Args:
        make_cases: picklable.

    Raises:
        UserError: `make_cases` raised it.
        ProcessFailed: the compilation failed, or our library at the first case, which gives the reference rate, or at
            every other one.
        RuntimeError: our library computed something else than torch.
    """
    threads = _same_threads()
    log(f"compiling for {rules.target}")
    with OwnProcess("the compilation") as process:
        prepared: Prepared = process.call(prepare_cases, make_cases, rules, folder)
    outcomes: dict[Computation, CaseOutcome] = {}
    for number, case in enumerate(prepared.cases, 1):
        files = CaseFiles(folder, case.name)
        place = f"({number} of {len(prepared.cases)})"
        try:
            outcomes[case] = run_case(files, prepared.library, rules, threads)
        except ProcessFailed as failure:
            if not outcomes or (number == len(prepared.cases) and len(outcomes) == 1):
                raise
            log(f"{case.name}: left out, {failure} {place}")
            continue
        finally:
            files.remove()
        for line in outcomes[case].failures:
            log(f"{case.name}: {line}")
        times = outcomes[case].times.items()
        log(f"{case.name}: {', '.join(f'{name} {statistics.median(t.wall_ms):.2f} ms' for name, t in times)} {place}")
    on_processor = rules.device_kind == "cpu"
    name = processor_name() if on_processor else tvm.device(rules.device_kind).device_name
    return NativeOutcome(
        f"{name}, torch on {rules.torch_device}, {threads} {'thread' if threads == 1 else 'threads'} each",
        _copy_rate(torch.device(rules.torch_device)),
        outcomes,
    )


def prepare_cases(make_cases: Callable[[], Cases], rules: NativeRules, folder: Path) -> Prepared:
    """Write the files of each case but ONNX's into `folder`, and compile our library there."""
    made = make_cases()
    if keeps_float16(rules.dtype, rules.target, rules.instruction_set is not None):
        made = made.with_float16_weights()
    cases, library_module = _write_cases(made, folder)
    config = BuildConfig(model="bench", target=rules.target, dtypes=(rules.dtype,), out=folder, tuning_db=TUNING_DB)
    planned = plan_library(library_module, rules.dtype, config, rules.instruction_set)
    library, _ = write_library(planned, "bench", folder)
    return Prepared(library, cases)


def _write_cases(cases: Cases, folder: Path) -> tuple[tuple[Computation, ...], tvm.IRModule]:
    """Return what is left to hold in memory while the library is compiled."""
    for case in cases.cases:
        files = CaseFiles(folder, case.name)
        write_arrays(files.inputs, (value.numpy() for value in case.inputs))
        write_arrays(files.params, (value.numpy() for value in case.params))
        write_arrays(files.reference, (value.numpy() for value in case.reference()))
        torch.save((case.module, case.inputs), files.module)
    return tuple(case.without_tensors for case in cases.cases), cases.module


def run_case(files: CaseFiles, library: Path, rules: NativeRules, threads: int) -> CaseOutcome:
    """Time one case, on as many threads for each contestant. Raises as `take_turns`; peers may fail."""
    ours = Entrant(OURS, partial(load_ours, library, rules.device_kind, files))
    torch_names = [name for name in rules.peers if name in (EAGER, COMPILED)]
    peers = [
        Entrant(name, partial(load_torch, name, rules.torch_device, threads, files), needs_torch=True)
        for name in torch_names
    ]
    failures: tuple[str, ...] = ()
    if runtimes := [name for name in rules.peers if name not in torch_names]:
        try:
            with OwnProcess(f"the export for {' and '.join(runtimes)}") as process:
                process.call(export_case, files)
            peers += [Entrant(name, partial(load_runtime, name, threads, files)) for name in runtimes]
        except ProcessFailed as failure:
            failures = (str(failure),)
    outcome = take_turns(ours, peers, rules.rounds, files, LEAST_DB[rules.dtype])
    return CaseOutcome(outcome.times, outcome.ours_db, failures + outcome.failures)


def _same_threads() -> int:
    """Give every contestant as many threads as TVM has, and return how many. Left alone, TVM takes half of the
    processors. Contestants inherit what this sets in the environment."""
    set_up_threads()
    threads = int(tvm.get_global_func("runtime.NumThreads")())
    torch.set_num_threads(threads)
    return threads


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
