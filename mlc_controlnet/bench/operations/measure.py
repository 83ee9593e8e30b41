"""Cases, measured in a browser or natively -> figures."""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from mlc_controlnet import __version__
from mlc_controlnet.bench.operations import contest, native_contest
from mlc_controlnet.bench.operations.cases import DTYPES, Case, Cases, component_cases, operation_cases
from mlc_controlnet.bench.operations.figures import KERNELS, OURS, Ceiling, Device, Figures, Row, Timing, median_ms
from mlc_controlnet.bench.operations.operations import OPERATIONS
from mlc_controlnet.components import COMPONENTS
from mlc_controlnet.config import TARGETS
from mlc_controlnet.errors import UserError
from mlc_controlnet.machine import describe_processor

PEER = "onnxruntime-web"
# A turn on a GPU repeats its call until the clocks have risen; on a processor one call is long enough.
TURN_MS = {True: 1.0, False: 50.0}
COPY_BYTES = {True: 64 << 20, False: 256 << 20}
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What is measured, and where.

    Attributes:
        subject: KERNELS or MODEL.
        host: chromium, node or native.
        gpu: in Chromium the machine's GPU.
        target: of the native library.
        dtype: None: float16 on a GPU that has it, else float32.
        only: parts of operations' names; none: all.
        model, components: what MODEL measures.
        command: the words that started it.
    """

    subject: str
    host: str
    gpu: bool
    target: str
    dtype: str | None
    rounds: int
    only: tuple[str, ...]
    model: str
    components: tuple[str, ...]
    command: str

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise UserError("--rounds", str(self.rounds), "1 or more", "choose another number")
        for option, value, allowed in (("--dtype", self.dtype, DTYPES), ("--target", self.target, TARGETS)):
            if value is not None and value not in allowed:
                raise UserError(option, repr(value), f"one of {', '.join(allowed)}", "pass one of these")

    def cases(self, reduced: bool, dtype: str) -> Cases:
        """Return what to run: single operations or a model's components."""
        if self.subject == KERNELS:
            return operation_cases(self.only, reduced, dtype)
        return component_cases(self.model, self.components, reduced, dtype)


def measure_in_browser(settings: Settings, folder: Path, tell: Tell) -> Figures:
    """Ours against onnxruntime-web on a WebGPU adapter; `folder` is for files in between."""
    contest.build_contest_module()
    adapter = contest.find_adapter(settings.host, settings.gpu)
    dtype = settings.dtype or ("float16" if adapter.has_float16 and not adapter.is_software else "float32")
    if dtype == "float16" and not adapter.has_float16:
        raise UserError("--dtype", f"float16 on {adapter.name}", "an adapter with shader-f16", "pass --dtype float32")
    tell(f"{adapter.name}, {'software' if adapter.is_software else 'GPU'}, {dtype}")
    what = settings.cases(adapter.is_software, dtype)
    rules = contest.Rules(
        host="node" if settings.host == "node" else "chromium",
        gpu=settings.gpu,
        dtype=dtype,
        rounds=settings.rounds,
        turn_ms=TURN_MS[adapter.is_software],
        gpu_clock=settings.subject == KERNELS,
        copy_bytes=COPY_BYTES[adapter.is_software],
    )
    outcome = contest.hold_contest(what, rules, folder, tell)
    times = [{OURS: _timing(case.ours), PEER: _timing(case.peer)} for case in outcome.cases]
    device = Device(
        kind="software GPU" if adapter.is_software else "GPU",
        name=adapter.name,
        host=outcome.host,
        processor=describe_processor(),
    )
    decibels, notes = [case.ours_db for case in outcome.cases], [contest.note_on(case, dtype) for case in outcome.cases]
    rows = _rows(what.cases, times, decibels, notes, outcome.copy_gigabytes_per_second)
    return _figures(settings, device, dtype, rows, {PEER: contest.peer_version()})


def measure_natively(settings: Settings, folder: Path, tell: Tell) -> Figures:
    """Ours against torch, eager and compiled, on a processor or GPU."""
    preset = TARGETS[settings.target]
    if preset.device == "webgpu":
        raise UserError("--target", "webgpu natively", "a native target", "pass --host chromium or --host node instead")
    on_gpu = preset.device != "llvm"
    dtype = settings.dtype or ("float16" if on_gpu else "float32")
    what = settings.cases(not on_gpu, dtype)
    contestants = native_contest.hold_contest(what, settings.target, dtype, settings.rounds, folder, tell)
    notes, copy_rate = [""] * len(what.cases), contestants.copy_gigabytes_per_second
    rows = _rows(what.cases, contestants.times, contestants.ours_db, notes, copy_rate)
    device = Device(
        kind="GPU" if on_gpu else "processor",
        name=contestants.device,
        host="Python",
        processor=describe_processor(),
    )
    return _figures(settings, device, dtype, rows, {})


def row_order(subject: str) -> tuple[str, ...]:
    """The names of all rows that are ever measured but the ceiling's."""
    return tuple(operation.name for operation in OPERATIONS) if subject == KERNELS else COMPONENTS


def _timing(timing: contest.Timing) -> Timing:
    return Timing(timing.load_ms, timing.first_call_ms, timing.wall_ms, timing.gpu_ms)


def _rows(
    cases: Sequence[Case],
    times: Sequence[dict[str, Timing]],
    decibels: Iterable[float],
    notes: Iterable[str],
    copy_rate: float,
) -> tuple[Row, ...]:
    """The ceiling is what the fastest contestant reaches at the first case, the large matrix product."""
    fastest = min(median_ms(timing, _clock(times)) for timing in times[0].values())
    ceiling = Ceiling(1000 * cases[0].work.gflop / fastest, copy_rate)
    return tuple(
        Row(
            name=case.name,
            title=case.title,
            is_reduced=case.is_reduced,
            gflop=case.work.gflop,
            megabytes=case.work.megabytes,
            ceiling=ceiling,
            times=of_case,
            ours_db=round(db, 1),
            note=note,
        )
        for case, of_case, db, note in zip(cases, times, decibels, notes, strict=True)
    )


def _clock(times: Iterable[Mapping[str, Timing]]) -> str:
    """The device's, where every contestant has it at every row."""
    return "device" if all(timing.device_ms for row in times for timing in row.values()) else "wall"


def _figures(settings: Settings, device: Device, dtype: str, rows: tuple[Row, ...], more: dict[str, str]) -> Figures:
    versions = {name: version(name) for name in ("apache-tvm", "torch")}
    return Figures(
        subject=settings.subject,
        command=settings.command,
        date=datetime.date.today().isoformat(),
        device=device,
        dtype=dtype,
        versions={"mlc-controlnet": __version__, **versions, **more},
        clock=_clock(row.times for row in rows),
        rows=rows,
    )
