"""Time our library against onnxruntime-web: the same computations on one WebGPU adapter or on the processor, in turns.

Both contestants run the same torch modules: we capture and compile them, torch exports them to ONNX for the peer. Both
get the same inputs, and their outputs are compared. The code in web/bench/contest/ runs the contest, either in Chromium
or in Node, which has WebGPU by Dawn. On the processor both are WebAssembly, with as many threads for each. Packed
weights take turns with ours in float16, not with the peer.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tvm

from mlc_controlnet.bench.operations.cases import LEAST_DB, Case, Cases, Log
from mlc_controlnet.bench.operations.onnx_peer import export_onnx
from mlc_controlnet.bundle.json_record import from_json
from mlc_controlnet.compile.library import plan_library, write_library
from mlc_controlnet.config import BuildConfig
from mlc_controlnet.errors import UserError
from mlc_controlnet.instruction_sets import BROWSER_INSTRUCTION_SETS
from mlc_controlnet.locations import TUNING_DB, WEB

ALIGNMENT = 16
NODE = ("node",)  # the program that runs bench/contest.mjs, with its own options


@dataclass(frozen=True)
class Rules:
    """The options of a contest.

    Attributes:
        host: `chromium` or `node`.
        gpu: use the machine's own GPU in Chromium, not the software adapter.
        rounds: turns of each contestant at each case.
        turn_ms: a turn repeats its call until it takes about this long.
        gpu_clock: also time passes on the GPU's own clock.
        copy_bytes: size of the copy that measures the rate of memory.
        instruction_set: a key of BROWSER_INSTRUCTION_SETS: the contest is on the processor; None: on a WebGPU adapter.
        threads: of each contestant on the processor; None on an adapter.
    """

    host: Literal["chromium", "node"]
    gpu: bool
    dtype: str
    rounds: int
    turn_ms: float
    gpu_clock: bool
    copy_bytes: int
    instruction_set: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class CaseTimes:
    """Times of one contestant at one case in milliseconds: `Timing` of web/bench/contest/job.ts."""

    load_ms: float
    first_call_ms: float
    wall_ms: tuple[float, ...]
    gpu_ms: tuple[float, ...]
    calls_a_turn: int


@dataclass(frozen=True)
class CaseOutcome:
    """One case: `CaseOutcome` of web/bench/contest/job.ts.

    Attributes:
        ours_db, peer_db: signal-to-noise ratio of the outputs against torch's in float32.
        peer_optimizations: level of graph optimizations that the peer ran with.
    """

    name: str
    ours: CaseTimes
    peer: CaseTimes
    ours_db: float
    peer_db: float
    peer_optimizations: str


@dataclass(frozen=True)
class Adapter:
    """A WebGPU adapter. is_software: the processor computes what a GPU would."""

    name: str
    is_software: bool
    has_float16: bool


@dataclass(frozen=True)
class ContestOutcome:
    """The content of outcome.json, which the contest writes."""

    host: str
    copy_gigabytes_per_second: float
    cases: tuple[CaseOutcome, ...]


def find_adapter(host: str, gpu: bool) -> Adapter:
    """Return the adapter that a contest on `host` uses. The contest's shapes and dtype depend on it."""
    with_options = ["--host", host, *(["--gpu"] if gpu else []), "--adapter"]
    return from_json(Adapter, json.loads(_node(with_options, capture=True)), "the adapter")


def check_node(instruction_set: str) -> None:
    """Raise UserError unless this machine's Node runs code of one of BROWSER_INSTRUCTION_SETS."""
    found = json.loads(_node(["--instruction-set", instruction_set], capture=True))
    if not found["runs"]:
        lacks = f"{found['host']}, which lacks {BROWSER_INSTRUCTION_SETS[instruction_set].description}"
        remedy = "update Node, or pass --cpu wasm-simd128 or --host chromium"
        raise UserError(f"--cpu {instruction_set}", lacks, "a Node that has it: 22.12 or newer", remedy)


def run_web_contest(cases: Cases, rules: Rules, folder: Path, log: Log) -> ContestOutcome:
    """Compile the cases into `folder`, export each for the peer, and run both.

    Raises RuntimeError if our outputs differ from torch's.
    """
    count = len(cases.cases)
    log(f"compiling {count} cases for {rules.instruction_set or 'WebGPU'}")
    library = _compile(cases.module, rules, folder)
    entries = []
    for number, case in enumerate(cases.cases, 1):
        if case.against is None:
            log(f"exporting {case.name} for onnxruntime ({number} of {count})")
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
        "threads": rules.threads,
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    _node(["--host", rules.host, *(["--gpu"] if rules.gpu else []), "--job", str(folder)])
    outcome = from_json(ContestOutcome, json.loads((folder / "outcome.json").read_bytes()), "outcome.json")
    different = [
        f"{case.name} has {got.ours_db:.1f} dB, wanted {case.least_db(rules.dtype)} dB at least"
        for case, got in zip(cases.cases, outcome.cases, strict=True)
        if not got.ours_db >= case.least_db(rules.dtype)
    ]
    if different:
        raise RuntimeError(f"our outputs differ from torch's: {'; '.join(different)}")
    return outcome


def note_on(case: CaseOutcome, dtype: str) -> str:
    """Return a warning for readers of the peer's figure; empty if it needs none."""
    if not case.peer_db >= LEAST_DB[dtype]:
        return f"the peer's result is wrong ({case.peer_db:.0f} dB)"
    if case.peer_optimizations != "all":
        return f"the peer ran with {case.peer_optimizations} graph optimizations, because its result is wrong with all"
    return ""


def build_contest_module() -> None:
    """Bundle web/bench/contest for a page and for Node. Raises UserError if npm's packages are missing."""
    if not (WEB / "node_modules" / "onnxruntime-web").is_dir():
        raise UserError("web/node_modules", "no onnxruntime-web", "npm's packages", "run npm --prefix web ci")
    command = ["npx", "vite", "build", "--config", "vite.bench.config.ts", "--logLevel", "error"]
    subprocess.run(command, cwd=WEB, check=True)


def _compile(module: tvm.IRModule, rules: Rules, folder: Path) -> Path:
    config = BuildConfig(model="bench", target="webgpu", dtypes=(rules.dtype,), out=folder, tuning_db=TUNING_DB)
    planned = plan_library(module, rules.dtype, config, rules.instruction_set)
    return write_library(planned, "bench", folder)[0]


def _write_case(case: Case, folder: Path) -> Mapping[str, Any]:
    """Write inputs, params and torch's outputs into one file; return the case's entry of job.json."""
    content = bytearray()

    def add(tensor: torch.Tensor) -> Mapping[str, Any]:
        array = np.ascontiguousarray(tensor.detach().numpy())
        content.extend(bytes(-len(content) % ALIGNMENT))
        offset = len(content)
        content.extend(array.tobytes())
        return {"dtype": str(array.dtype), "shape": array.shape, "byte_offset": offset, "bytes": array.nbytes}

    inputs, params = [add(tensor) for tensor in case.inputs], [add(tensor) for tensor in case.params]
    outputs = [add(tensor) for tensor in case.reference()]
    against = None
    if case.against is not None:
        against = {"name": case.against.name, "params": [add(tensor) for tensor in case.against.params]}
    (folder / f"{case.name}.values").write_bytes(content)
    files = {"values": f"{case.name}.values", "onnx": f"{case.name}.onnx"}
    return {"name": case.name, "inputs": inputs, "params": params, "outputs": outputs, "against": against, **files}


def _node(arguments: Sequence[str], capture: bool = False) -> bytes:
    command = [*NODE, "bench/contest.mjs", *arguments]
    process = subprocess.run(command, cwd=WEB, check=False, stdout=subprocess.PIPE if capture else sys.stderr)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} in web/ exited with {process.returncode}")
    return process.stdout or b""


def peer_version() -> str:
    """Return the installed version of onnxruntime-web."""
    return json.loads((WEB / "node_modules" / "onnxruntime-web" / "package.json").read_bytes())["version"]
