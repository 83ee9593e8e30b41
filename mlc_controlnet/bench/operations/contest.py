"""Our library against onnxruntime-web's WebGPU provider: the same computations on one adapter, in turns.

What both run is one torch module: captured and compiled by us, exported by torch for the peer. They get the same
numbers, and their outputs are compared. web/bench/contest/ holds the contest, in Chromium or in Node on Dawn.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tvm

from mlc_controlnet.bench.operations.cases import Case, Cases
from mlc_controlnet.bench.operations.onnx_peer import export_onnx
from mlc_controlnet.bundle.json_record import from_json
from mlc_controlnet.compile.library import compile_library
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.errors import UserError
from mlc_controlnet.locations import TUNING_DB, WEB

ALIGNMENT = 16
LEAST_DB = {"float32": 60.0, "float16": 35.0}  # of outputs against torch in float32
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Rules:
    """How a contest is held.

    Attributes:
        host: `chromium` or `node`.
        gpu: in Chromium the machine's own GPU, not the software adapter.
        rounds: turns of each contestant at each case.
        turn_ms: a turn repeats its call until it takes about this long.
        gpu_clock: passes are timed on the GPU's own clock too.
        copy_bytes: of the copy that the ceiling of memory is measured with.
    """

    host: Literal["chromium", "node"]
    gpu: bool
    dtype: str
    rounds: int
    turn_ms: float
    gpu_clock: bool
    copy_bytes: int


@dataclass(frozen=True)
class Timing:
    """Milliseconds, as web/bench/contest/job.ts has them."""

    load_ms: float
    first_call_ms: float
    wall_ms: tuple[float, ...]
    gpu_ms: tuple[float, ...]
    calls_a_turn: int


@dataclass(frozen=True)
class CaseOutcome:
    """One case as both contestants ran it: their times, and each output against torch's in dB."""

    name: str
    ours: Timing
    peer: Timing
    ours_db: float
    peer_db: float
    peer_optimizations: str


@dataclass(frozen=True)
class Adapter:
    """The WebGPU adapter that the browser or Node gave."""

    name: str
    is_software: bool
    has_float16: bool


@dataclass(frozen=True)
class Outcome:
    """What one contest measured."""

    adapter: Adapter
    host: str
    copy_gigabytes_per_second: float
    cases: tuple[CaseOutcome, ...]


def find_adapter(host: str, gpu: bool) -> Adapter:
    """The adapter that a contest would be held on: its shapes and its dtype depend on it."""
    with_options = ["--host", host, *(["--gpu"] if gpu else []), "--adapter"]
    return from_json(Adapter, json.loads(_node(with_options, capture=True)), "the adapter")


def hold_contest(what: Cases, rules: Rules, folder: Path, tell: Tell) -> Outcome:
    """Compile the cases in `folder`, export each for the peer, and let both run.

    Raises RuntimeError where our outputs are not torch's.
    """
    cases = what.cases
    tell(f"compiling {len(cases)} cases for WebGPU")
    library = _compile(what.module, rules.dtype, folder)
    entries = []
    for number, case in enumerate(cases, 1):
        tell(f"exporting {case.name} for onnxruntime ({number} of {len(cases)})")
        export_onnx(case.module, case.inputs, folder / f"{case.name}.onnx")
        entries.append(_write_case(case, folder))
    job = {
        "library": library.name,
        "cases": entries,
        "rounds": rules.rounds,
        "turn_ms": rules.turn_ms,
        "least_db": LEAST_DB[rules.dtype],
        "gpu_clock": rules.gpu_clock,
        "copy_bytes": rules.copy_bytes,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    _node(["--host", rules.host, *(["--gpu"] if rules.gpu else []), "--job", str(folder)])
    outcome = from_json(Outcome, json.loads((folder / "outcome.json").read_bytes()), "outcome.json")
    wanted = LEAST_DB[rules.dtype]
    if different := [f"{case.name} {case.ours_db:.1f} dB" for case in outcome.cases if not case.ours_db >= wanted]:
        raise RuntimeError(f"our outputs are not torch's, wanted {wanted} dB: {', '.join(different)}")
    return outcome


def note_on(case: CaseOutcome, dtype: str) -> str:
    """What a reader must know of the peer's figure; empty where there is nothing."""
    if not case.peer_db >= LEAST_DB[dtype]:
        return f"the peer computes something else: {case.peer_db:.0f} dB"
    if case.peer_optimizations != "all":
        return f"the peer's graph optimizations are {case.peer_optimizations}: with all it computes something else"
    return ""


def build_contest_module() -> None:
    """Bundle web/bench/contest for a page and for Node. Raises UserError where npm's packages are missing."""
    if not (WEB / "node_modules" / "onnxruntime-web").is_dir():
        raise UserError("web/node_modules", "no onnxruntime-web", "npm's packages", "run npm --prefix web ci")
    command = ["npx", "vite", "build", "--config", "vite.bench.config.ts", "--logLevel", "error"]
    subprocess.run(command, cwd=WEB, check=True)


def _compile(module: tvm.IRModule, dtype: str, folder: Path) -> Path:
    config = BuildConfig(model="bench", target="webgpu", dtypes=(dtype,), out=folder, tuning_db=TUNING_DB)
    return compile_library(module, "bench", dtype, config, folder)[0]


def _write_case(case: Case, folder: Path) -> Mapping[str, Any]:
    """Inputs, params and outputs in one file; returns what the job says of the case."""
    content = bytearray()

    def add(tensor: torch.Tensor) -> Mapping[str, Any]:
        array = np.ascontiguousarray(tensor.detach().numpy())
        content.extend(bytes(-len(content) % ALIGNMENT))
        offset = len(content)
        content.extend(array.tobytes())
        return {"dtype": str(array.dtype), "shape": array.shape, "byte_offset": offset, "bytes": array.nbytes}

    inputs, params = [add(tensor) for tensor in case.inputs], [add(tensor) for tensor in case.params]
    outputs = [add(tensor) for tensor in case.reference()]
    (folder / f"{case.name}.values").write_bytes(content)
    files = {"values": f"{case.name}.values", "onnx": f"{case.name}.onnx"}
    return {"name": case.name, "inputs": inputs, "params": params, "outputs": outputs, **files}


def _node(arguments: Sequence[str], capture: bool = False) -> bytes:
    command = ["node", "bench/contest.mjs", *arguments]
    process = subprocess.run(command, cwd=WEB, check=False, stdout=subprocess.PIPE if capture else sys.stderr)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} in web/ exited with {process.returncode}")
    return process.stdout or b""


def peer_version() -> str:
    """Return the version of the onnxruntime-web that is installed."""
    return json.loads((WEB / "node_modules" / "onnxruntime-web" / "package.json").read_bytes())["version"]
