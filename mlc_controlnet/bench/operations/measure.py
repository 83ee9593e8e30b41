"""Run a benchmark in a browser, in Node or natively, and return its figures."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

from mlc_controlnet import __version__
from mlc_controlnet.bench.operations.cases import (
    DTYPES,
    Cases,
    Computation,
    Log,
    component_cases,
    operation_cases,
)
from mlc_controlnet.bench.operations.figures import (
    KERNELS,
    OURS,
    Device,
    Figures,
    ReferenceRates,
    Row,
    Timing,
    median_ms,
)
from mlc_controlnet.bench.operations.native_contest import NativeRules, native_peers, run_native_contest
from mlc_controlnet.bench.operations.onnx_runtimes import installed_runtimes, runtime_versions
from mlc_controlnet.bench.operations.operations import OPERATIONS
from mlc_controlnet.bench.operations.web_contest import (
    CaseTimes,
    ContestOutcome,
    Rules,
    build_contest_module,
    check_node,
    find_adapter,
    note_on,
    peer_version,
    run_web_contest,
)
from mlc_controlnet.bench.packed_weights import WEIGHTS
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import BROWSER_PROCESSOR, TARGETS
from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.instruction_sets import BROWSER_INSTRUCTION_SETS, host_instruction_sets
from mlc_controlnet.machine import describe_processor, processor_name
from mlc_controlnet.quantize.formats import FLOAT16

PEER = "onnxruntime-web"
OURS_IN_FLOAT16 = "ours, --weights float16"  # the peer of ours with packed weights
# A GPU's clocks rise only under load, so a turn on a GPU repeats its call. On a software adapter one call is enough.
SOFTWARE_TURN_MS, GPU_TURN_MS = 1.0, 50.0
SOFTWARE_COPY_BYTES, GPU_COPY_BYTES = 64 << 20, 256 << 20
PROCESSOR_TURN_MS = 50.0  # WebAssembly calls of a millisecond differ by a tenth


@dataclass(frozen=True)
class ContestSettings:
    """The cases to measure, and the device to measure them on.

    Attributes:
        subject: KERNELS or MODEL.
        host: chromium, node or native.
        gpu: use the machine's GPU in Chromium, not the software adapter.
        target: target of the native library, a key of TARGETS.
        dtype: float32 or float16; None: float16 on a GPU that has it, else float32.
        rounds: turns of each contestant.
        only: parts of operations' names; empty: all operations.
        peers: of native_contest.native_peers(); empty: all of them. For the host native only.
        cpu: instruction set of the library for llvm; None: the best of this machine's processor. In a browser or Node
            one of BROWSER_INSTRUCTION_SETS, to measure on the processor; None: WebGPU.
        threads: of each contestant on a browser's processor; None: one there.
        model, components: the model and the components that MODEL measures.
        weights: for MODEL on WebGPU, formats of packed weights, of WEIGHTS; the peer is then ours with FLOAT16, which
            may stand among them. Empty: the peer is onnxruntime-web.
        command: the command line that produces the same figures again.
    """

    subject: str
    host: str
    gpu: bool
    target: str
    dtype: str | None
    rounds: int
    only: tuple[str, ...]
    peers: tuple[str, ...]
    cpu: str | None
    threads: int | None
    model: str
    components: tuple[str, ...]
    command: str
    weights: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UserError("--rounds", str(self.rounds), "1 or more", "choose another number")
        if self.dtype is not None:
            check_one_of("--dtype", self.dtype, DTYPES)
        check_one_of("--target", self.target, TARGETS)
        for name in self.components:
            check_one_of("--component", name, COMPONENTS)
        if self.peers and self.host != "native":
            raise UserError("--peer", f"with --host {self.host}", "--host native", "leave --peer out")
        if self.cpu is not None:
            self._check_cpu(self.cpu)
        if self.threads is not None:
            self._check_threads(self.threads)
        if self.weights:
            self._check_weights()

    @property
    def on_browser_processor(self) -> bool:
        """Whether WebAssembly is measured, not WebGPU."""
        return self.host != "native" and self.cpu is not None

    def _check_cpu(self, cpu: str) -> None:
        if self.host != "native":
            check_one_of("--cpu", cpu, tuple(BROWSER_INSTRUCTION_SETS))
            if self.gpu:
                raise UserError("--cpu", "with --gpu", "one of them", "leave one out")
            if self.dtype not in (None, *BROWSER_PROCESSOR.dtypes):
                raise UserError("--cpu", f"with --dtype {self.dtype}", "--dtype float32", "leave --dtype out")
        elif TARGETS[self.target].device != "llvm":
            raise UserError("--cpu", f"with --target {self.target}", "--target llvm", "leave --cpu out")
        else:
            check_one_of("--cpu", cpu, host_instruction_sets())

    def _check_threads(self, threads: int) -> None:
        if not self.on_browser_processor:
            wanted = f"--cpu {' or '.join(BROWSER_INSTRUCTION_SETS)} in Chromium or Node"
            raise UserError("--threads", f"with --host {self.host}", wanted, "set TVM_NUM_THREADS for --host native")
        if threads < 1:
            raise UserError("--threads", str(threads), "1 or more", "choose another number")
        if threads > 1 and self.host == "node":
            raise UserError("--threads", f"{threads} with --host node", "1", "pass --host chromium for more")

    def _check_weights(self) -> None:
        for name in self.weights:
            check_one_of("--weights", name, WEIGHTS)
        if not self.packed:
            raise UserError("--weights", "float16 alone", "a packed format beside it", "add --weights palette6")
        if self.host == "native":
            raise UserError("--weights", "with --host native", "--host chromium or --host node", "leave one out")
        if self.cpu is not None:
            raise UserError("--weights", f"with --cpu {self.cpu}", "WebGPU, whose kernels unpack them", "leave one out")

    @property
    def packed(self) -> tuple[str, ...]:
        """The packed formats of `weights`, each once."""
        return tuple(name for name in dict.fromkeys(self.weights) if name != FLOAT16)

    def cases(self, reduced: bool, dtype: str) -> Cases:
        """Return the computations to measure. reduced: at the smaller sizes for slow devices."""
        if self.subject == KERNELS:
            return operation_cases(self.only, reduced, dtype)
        return component_cases(self.model, self.components, reduced, dtype, self.packed)


def measure_on_webgpu(settings: ContestSettings, folder: Path, log: Log) -> Figures:
    """Measure our library against onnxruntime-web on a WebGPU adapter. folder: for intermediate files."""
    build_contest_module()
    adapter = find_adapter(settings.host, settings.gpu)
    dtype = settings.dtype or ("float16" if adapter.has_float16 and not adapter.is_software else "float32")
    if dtype == "float16" and not adapter.has_float16:
        raise UserError("--dtype", f"float16 on {adapter.name}", "an adapter with shader-f16", "pass --dtype float32")
    log(f"{adapter.name}, {'software' if adapter.is_software else 'GPU'}, {dtype}")
    cases = settings.cases(adapter.is_software, dtype)
    rules = Rules(
        host="node" if settings.host == "node" else "chromium",
        gpu=settings.gpu,
        dtype=dtype,
        rounds=settings.rounds,
        turn_ms=SOFTWARE_TURN_MS if adapter.is_software else GPU_TURN_MS,
        gpu_clock=settings.subject == KERNELS,
        copy_bytes=SOFTWARE_COPY_BYTES if adapter.is_software else GPU_COPY_BYTES,
    )
    outcome = run_web_contest(cases, rules, folder, log)
    device = Device(
        kind="software GPU" if adapter.is_software else "GPU",
        name=adapter.name,
        host=outcome.host,
        processor=describe_processor(),
    )
    return _web_figures(settings, device, dtype, cases, outcome)


def measure_on_browser_processor(settings: ContestSettings, folder: Path, log: Log) -> Figures:
    """Measure our library against onnxruntime-web, both in WebAssembly. folder: for intermediate files."""
    assert settings.cpu is not None
    build_contest_module()
    if settings.host == "node":
        check_node(settings.cpu)
    (dtype,) = BROWSER_PROCESSOR.dtypes
    threads = 1 if settings.threads is None else settings.threads
    cases = settings.cases(True, dtype)
    rules = Rules(
        host="node" if settings.host == "node" else "chromium",
        gpu=False,
        dtype=dtype,
        rounds=settings.rounds,
        turn_ms=PROCESSOR_TURN_MS,
        gpu_clock=False,
        copy_bytes=SOFTWARE_COPY_BYTES,
        instruction_set=settings.cpu,
        threads=threads,
    )
    outcome = run_web_contest(cases, rules, folder, log)
    device = Device(
        kind="processor",
        name=f"{settings.cpu} on {threads} {'thread' if threads == 1 else 'threads'}: {processor_name()}",
        host=outcome.host,
        processor=describe_processor(),
    )
    return _web_figures(settings, device, dtype, cases, outcome)


def measure_natively(settings: ContestSettings, folder: Path, log: Log) -> Figures:
    """Measure our library against torch, eager and compiled, on a processor or GPU.

    On a processor, onnxruntime and OpenVINO are measured too where they are installed.

    folder: for intermediate files, of up to three times the weights' size.
    """
    preset = TARGETS[settings.target]
    if preset.device == "webgpu":
        raise UserError("--target", "webgpu natively", "a native target", "pass --host chromium or --host node instead")
    on_gpu = preset.device != "llvm"
    dtype = settings.dtype or ("float16" if on_gpu else "float32")
    possible = native_peers(settings.target)
    for name in settings.peers:
        check_one_of("--peer", name, possible)
    peers = [name for name in possible if name in settings.peers or not settings.peers]
    rules = NativeRules(settings.target, dtype, settings.rounds, tuple(peers), settings.cpu)
    outcome = run_native_contest(partial(settings.cases, False, dtype), rules, folder, log)
    device = Device(
        kind="GPU" if on_gpu else "processor",
        name=outcome.device,
        host="Python",
        processor=describe_processor(),
    )
    rows = make_rows(
        list(outcome.cases),
        [case.times for case in outcome.cases.values()],
        [case.ours_db for case in outcome.cases.values()],
        ["; ".join(case.failures) for case in outcome.cases.values()],
        outcome.copy_gigabytes_per_second,
    )
    versions = runtime_versions([name for name in peers if name in installed_runtimes()])
    return _figures(settings, device, dtype, rows, versions)


def row_order(subject: str) -> tuple[str, ...]:
    """List the names of all rows of KERNELS or MODEL in their order, except the large matmul, which comes first."""
    return tuple(operation.name for operation in OPERATIONS) if subject == KERNELS else COMPONENTS


def make_rows(
    cases: Sequence[Computation],
    times: Sequence[Mapping[str, Timing]],
    decibels: Iterable[float],
    notes: Iterable[str],
    copy_rate: float,
) -> tuple[Row, ...]:
    """Make one row per case. The first case is the large matmul; its fastest contestant gives the reference rate.

    copy_rate: gigabytes per second of a large copy.
    """
    fastest = min(median_ms(timing, _clock(times)) for timing in times[0].values())
    reference = ReferenceRates(1000 * cases[0].work.gflop / fastest, copy_rate)
    return tuple(
        Row(
            name=case.name,
            title=case.title,
            is_reduced=case.is_reduced,
            gflop=case.work.gflop,
            megabytes=case.work.megabytes,
            reference=reference,
            times=of_case,
            ours_db=round(db, 1),
            note=note,
        )
        for case, of_case, db, note in zip(cases, times, decibels, notes, strict=True)
    )


def _web_figures(
    settings: ContestSettings, device: Device, dtype: str, cases: Cases, outcome: ContestOutcome
) -> Figures:
    rows = make_rows(
        cases.cases,
        [
            {OURS: _timing(times.ours), OURS_IN_FLOAT16 if case.against else PEER: _timing(times.peer)}
            for case, times in zip(cases.cases, outcome.cases, strict=True)
        ],
        [case.ours_db for case in outcome.cases],
        [note_on(case, dtype) for case in outcome.cases],
        outcome.copy_gigabytes_per_second,
    )
    return _figures(settings, device, dtype, rows, {PEER: peer_version()})


def _timing(times: CaseTimes) -> Timing:
    return Timing(times.load_ms, times.first_call_ms, times.wall_ms, times.gpu_ms)


def _clock(times: Iterable[Mapping[str, Timing]]) -> str:
    """Return `device` if every contestant has device times at every row, else `wall`."""
    return "device" if all(timing.device_ms for row in times for timing in row.values()) else "wall"


def _figures(
    settings: ContestSettings, device: Device, dtype: str, rows: tuple[Row, ...], peer_versions: dict[str, str]
) -> Figures:
    versions = {name: version(name) for name in ("apache-tvm", "torch")}
    return Figures(
        subject=settings.subject,
        command=settings.command,
        date=datetime.date.today().isoformat(),
        device=device,
        dtype=dtype,
        versions={"mlc-controlnet": __version__, **versions, **peer_versions},
        clock=_clock(row.times for row in rows),
        rows=rows,
    )
