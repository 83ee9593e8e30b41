"""What happens on a server of TVM's RPC: it says which processor it has, and runs and times libraries.

Everything that is sent is a plain value, bytes or a tensor: neither side unpickles.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import rpc, tirx
from tvm.script import tirx as T
from tvm.target import Target

from mlc_controlnet.instruction_sets import host_instruction_sets
from mlc_controlnet.machine import name_with_cores, processor_name
from mlc_controlnet.toolchain.link_foreign import link_foreign
from mlc_controlnet.tuning.processor import compile_kernel, run_and_time
from mlc_controlnet.tuning.runner import Job, Measured

CPUINFO = "/proc/cpuinfo"
CPUINFO_BYTES = 65536


@dataclass(frozen=True)
class RemoteProcessor:
    """A server's processor.

    Attributes:
        device: its name, with the threads that TVM uses there: as `describe_processor` names this machine's.
        instruction_sets: those of INSTRUCTION_SETS that it has, the best first.
        system: LLVM's name of architecture, maker and system.
    """

    device: str
    instruction_sets: tuple[str, ...]
    system: str


def describe_server(session: rpc.RPCSession) -> RemoteProcessor:
    """Ask a server for its processor: LLVM for the system, the system for the rest.

    LLVM's name of a processor does not tell whether a virtual machine has its vectors, and an instruction that it has
    not would end the server. So its /proc/cpuinfo is read, by a kernel that calls the C library.
    """
    system = str(session.get_function("target.llvm_get_system_triple")())
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(system.partition("-")[0], system.partition("-")[0])
    threads = int(session.get_function("runtime.NumThreads")())
    if "linux" not in system:
        return RemoteProcessor(name_with_cores(machine, threads), (), system)
    device = session.cpu()
    text = tvm.runtime.empty((CPUINFO_BYTES,), "uint8", device)
    library = build_library(_read_cpuinfo, Target({"kind": "llvm", "mtriple": system}))
    _load(session, library, "cpuinfo.so")["main"](text)
    found = text.numpy().tobytes().rstrip(b"\0").decode(errors="replace")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "cpuinfo"
        if found:
            file.write_text(found, encoding="utf-8")
        named = "model name" in found  # Arm's processors have none there
        name = processor_name(file) if named else str(session.get_function("target.llvm_get_system_cpu")())
        return RemoteProcessor(name_with_cores(name, threads), host_instruction_sets(file, machine), system)


def build_library(kernel: tirx.PrimFunc, target: Target) -> bytes:
    """Compile a scheduled kernel to a shared library for Linux. Raises ScheduleError or ValueError."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.so"
        compile_kernel(kernel, target).export_library(str(file), fcompile=link_foreign)
        return file.read_bytes()


def measure_on_server(session: rpc.RPCSession, libraries: Sequence[bytes], job: Job) -> Measured:
    """Run and time the libraries of a job's kernels."""
    loaded = [_load(session, library, f"kernel{number}.so") for number, library in enumerate(libraries)]
    return run_and_time(loaded, job, session.cpu())


def _load(session: rpc.RPCSession, library: bytes, name: str) -> tvm.runtime.Module:
    session.upload(bytearray(library), name)
    return session.load_module(name)


@T.prim_func(s_tir=True, private=True)
def _read_cpuinfo(text: T.Buffer((CPUINFO_BYTES,), "uint8")) -> None:  # type: ignore[valid-type]
    T.evaluate(
        T.call_extern("int64", "read", T.call_extern("int32", "open", CPUINFO, 0), text.data, T.uint64(CPUINFO_BYTES))
    )
