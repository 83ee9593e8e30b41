"""What a tab is asked to do, and what it answers: the two ends of page/measure.mjs."""

import base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from mlc_controlnet.bundle.json_record import from_json
from mlc_controlnet.errors import UserError
from mlc_controlnet.kernels.integers import ceil_div
from mlc_controlnet.kernels.tunable import params_of
from mlc_controlnet.passes.check.check_webgpu_limits import LIMITS
from mlc_controlnet.tuning.browser.board import Answer, Message
from mlc_controlnet.tuning.shader import Shader

LONGEST_PROBLEM = 300  # characters
SAMPLE_MS = 20.0  # of launches between two readings of a clock: browsers round a GPU's clock to 0.1 ms
_BINDING = re.compile(r"@binding\((\d+)\) var<storage, \w+> (\w+)_ptr")
_UNIFORM = re.compile(r"@binding\((\d+)\) var<uniform> podArgs")


class NoAnswer(ValueError):
    """A tab sent something that is no answer; its text is the reason."""


@dataclass(frozen=True)
class KernelAnswer:
    """What a tab found out about one kernel.

    Attributes:
        seconds: of one launch, once for each round.
        values: those of the output that are looked at, one run after the other, in base64.
        not_finite: how many elements of the whole output are infinite, no numbers, or were never written.
        problem: why there are no times; empty if there are some.
    """

    seconds: tuple[float, ...]
    values: str
    not_finite: int
    problem: str


@dataclass(frozen=True)
class WorkAnswer:
    """What a tab found out about all kernels of a piece of work, and what took it how long."""

    kernels: tuple[KernelAnswer, ...]
    load_ms: float
    pipeline_ms: float
    run_ms: float


def describe_work(shaders: Sequence[Shader], known: Sequence[tuple[int, int]], rounds: int, ms: float) -> Message:
    """Describe kernels that compute one operation, to be timed in turns on the same numbers.

    known: of runner.Job. rounds: of which no new one begins after `ms` milliseconds.
    """
    function = shaders[0].function
    types = [parameter.ty for parameter in function.params]
    names = [str(parameter.name) for parameter in function.params]
    return {
        "title": " x ".join(params_of(function)[:-1]) + f" -> {params_of(function)[-1]}",
        "buffers": [_buffer(one, seed) for seed, one in enumerate(types)],  # the output is the last
        "kernels": [_kernel(shader, names) for shader in shaders],
        "runs": known,
        "rounds": rounds,
        "sample_ms": SAMPLE_MS,
        "budget_ms": ms,
    }


def read_answer(answer: Answer, kernels: int) -> WorkAnswer:
    """Read what a tab sent. Raises NoAnswer if it is something else."""
    try:
        read: WorkAnswer = from_json(WorkAnswer, answer, "answer")
    except UserError as error:
        raise NoAnswer(str(error)) from error
    if len(read.kernels) != kernels:
        raise NoAnswer(f"{len(read.kernels)} kernels instead of {kernels}")
    if any(not 0 < seconds < math.inf for kernel in read.kernels for seconds in kernel.seconds):
        raise NoAnswer("a time that cannot be")
    if len({len(kernel.seconds) for kernel in read.kernels if not kernel.problem}) > 1:
        raise NoAnswer("other rounds for other kernels")
    return read


def output_of(kernel: KernelAnswer, known: Sequence[tuple[int, int]], like: np.ndarray) -> np.ndarray:
    """Return a kernel's output in the shape and dtype of `like`, NaN outside of `known`. Raises NoAnswer."""
    try:
        values = np.frombuffer(base64.b64decode(kernel.values, validate=True), like.dtype)
    except (binascii.Error, ValueError) as error:
        raise NoAnswer("values that are not in base64") from error
    if len(values) != sum(length for _, length in known):
        raise NoAnswer(f"{len(values)} values of its output")
    output = np.full(like.size, np.nan, like.dtype)
    place = 0
    for first, length in known:
        output[first : first + length] = values[place : place + length]
        place += length
    return output.reshape(like.shape)


def problem_of(kernel: KernelAnswer) -> str:
    """Say why a kernel has no times; empty if it has some."""
    if kernel.problem:
        return "".join(letter for letter in kernel.problem if letter.isprintable())[:LONGEST_PROBLEM]
    if kernel.not_finite:
        return f"{kernel.not_finite} elements of its output are no finite numbers, or not written"
    return "" if kernel.seconds else "no time"


def _buffer(tensor: tirx.Buffer, seed: int) -> Message:
    return {"dtype": str(tensor.dtype), "count": math.prod(int(size) for size in tensor.shape), "seed": seed}


def _kernel(shader: Shader, names: Sequence[str]) -> Mapping[str, Any]:
    x, y, z = shader.facts.grid
    folded = ceil_div(x, LIMITS["maxComputeWorkgroupsPerDimension"])  # a larger x goes on in z, as in the runtime
    bindings = [{"binding": int(at), "buffer": names.index(name)} for at, name in _BINDING.findall(shader.wgsl)]
    uniform = _UNIFORM.search(shader.wgsl)
    assert uniform is not None, "TVM passes a grid's width"
    return {
        "wgsl": shader.wgsl,
        "workgroups": [min(x, LIMITS["maxComputeWorkgroupsPerDimension"]), y, z * folded],
        "bindings": bindings,
        "uniform": {"binding": int(uniform[1]), "words": [x - 1, 0, 0, 0]},
    }
