"""Compares compiled components with torch: signal to noise in decibels."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tvm
from tvm import relax

from mlc_controlnet.capture import CapturedModel, Param, build_references, example_inputs
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.components import ComponentSpec
from mlc_controlnet.errors import UserError
from mlc_controlnet.quantize.formats import FLOAT16, LEAST_DB

# The signal to noise ratio in dB that every component must reach against torch in float32, by the library's dtype.
THRESHOLD_DB = {"float32": 60.0, "float16": 40.0}
SEED = 1

Drawn = Mapping[str, Sequence[torch.Tensor]]  # component -> its inputs, float32 and int32


def signal_to_noise_db(reference: np.ndarray, got: np.ndarray) -> float:
    """Return 10 log10(sum r^2 / sum (r - g)^2), at most 200; -inf if a number is NaN."""
    reference, got = reference.astype(np.float64), got.astype(np.float64)
    noise = float(np.square(reference - got).sum())
    if not math.isfinite(noise):
        return -math.inf
    signal = float(np.square(reference).sum())
    return 200.0 if noise == 0 else min(10 * math.log10(signal / noise), 200.0)


def run_references(checkpoint: Checkpoint, drawn: Drawn | None = None) -> dict[str, list[np.ndarray]]:
    """Run each component of the build in torch in float32, on `compared_inputs`, for each of its functions.

    Returns:
        The outputs, by the function's name.
    """
    outputs = {}
    for component, calls in itertools.groupby(checkpoint.call_specs.items(), lambda call: call[1].name):
        own = build_references(
            dataclasses.replace(checkpoint, components=(component,))
        )  # widened weights are in memory
        for name, spec in calls:
            with torch.no_grad():
                output = own[component](*compared_inputs(spec, drawn))
            outputs[name] = [tensor.numpy() for tensor in _as_list(output)]
    return outputs


def compared_inputs(spec: ComponentSpec, drawn: Drawn | None = None) -> tuple[torch.Tensor, ...]:
    """Return what a function is compared on: `example_inputs` of SEED, or what its component read as it drew.

    For another picture size or a longer prompt than was drawn, that is repeated and cut.
    """
    if drawn is None or spec.name not in drawn:
        return example_inputs(spec, "float32", SEED)
    return tuple(_fitted(value, tensor.shape) for value, tensor in zip(drawn[spec.name], spec.inputs, strict=True))


def _fitted(value: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    repeats = [-(-wanted // got) for wanted, got in zip(shape, value.shape, strict=True)]
    return value.repeat(repeats)[tuple(slice(size) for size in shape)]


def measure_parity(
    checkpoint: Checkpoint,
    captured: CapturedModel,
    library: Path,
    references: Mapping[str, Sequence[np.ndarray]],
    drawn: Drawn | None = None,
) -> dict[str, float]:
    """Run every function of an exported llvm `library` and compare it with the results of `run_references`.

    drawn: as for those.

    Returns:
        The dB of the worst output of each function, rounded to a tenth. Params that the device makes are made by the
        library, so they are measured with the component that reads them.
    """
    vm = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    weights = _Weights(vm, captured, checkpoint.stored_tensors())
    result = {}
    for name, wanted in references.items():
        component = checkpoint.call_specs[name]
        inputs = compared_inputs(component, drawn)
        specs = [spec.resolved(captured.dtype) for spec in component.inputs]
        arguments = [_tensor(value, spec.dtype) for value, spec in zip(inputs, specs, strict=True)]
        got = _as_list(weights.call(name, component.name, arguments))
        result[name] = round(min(signal_to_noise_db(w, g.numpy()) for w, g in zip(wanted, got, strict=True)), 1)
    return result


@dataclass(frozen=True)
class _Weights:
    """The params of a model, those that the device makes by the library's own functions."""

    vm: relax.VirtualMachine
    captured: CapturedModel
    tensors: Mapping[str, torch.Tensor]

    def call(self, function: str, component: str, inputs: Sequence[tvm.runtime.Tensor]) -> object:
        """Call a component's function. Its params are in memory only meanwhile: two components' would not fit."""
        params = tuple(map(self.on_device, self.captured.params[component]))
        return self.vm[self.captured.function_of(function)](*inputs, params)

    def on_device(self, param: Param) -> tvm.runtime.Tensor:
        values = []
        for source in self.captured.sources(param):
            value = source.read(self.tensors).detach()
            values.append(_tensor(value, self.captured.dtype_on_device(source, value.ndim)))
            source.give_back(self.tensors)
        merge = self.captured.merges.get(param)
        return values[0] if merge is None else self.vm[merge.shape.function](*values)


class ParityError(Exception):
    """A compiled component does not compute what torch computes: a failure of ours, not of the user's."""


def check_parity(
    measured: Mapping[str, float],
    dtype: str,
    weights_of: Callable[[str], str] = lambda _: FLOAT16,
    remedy: Callable[[str], str] = lambda name: f"give {name} more bits",
) -> None:
    """Check every component against the threshold of `dtype`, or of its weights' format.

    Args:
        weights_of: the format of the weights that a function reads, FLOAT16 or a key of LEAST_DB.
        remedy: what the user can do for a function whose weights have too few bits.

    Raises:
        ParityError: it names every component with weights in float16 that is too low.
        UserError: the weights of a component have too few bits for it.
    """
    packed = {name: LEAST_DB[weights_of(name)] for name in measured if weights_of(name) in LEAST_DB}
    low = {name: db for name, db in measured.items() if name not in packed and not db >= THRESHOLD_DB[dtype]}
    if low:
        raise ParityError(f"parity with torch: {low} dB, wanted at least {THRESHOLD_DB[dtype]} dB in {dtype}")
    below = {name: least for name, least in packed.items() if not measured[name] >= least}
    if below:
        worst = min(below, key=lambda name: measured[name] - below[name])
        others = f", and {len(below) - 1} more below theirs" if len(below) > 1 else ""
        got = f"{measured[worst]} dB against torch in float32{others}"
        subject = f"--weights {weights_of(worst)}: {worst}"
        raise UserError(subject, got, f"{below[worst]:g} dB at least", remedy(worst))


def _tensor(value: torch.Tensor, dtype: str) -> tvm.runtime.Tensor:
    return tvm.runtime.tensor(value.numpy().astype(dtype))


def _as_list(output: object) -> Sequence:
    """Return one tensor or several, torch's or TVM's, as a sequence."""
    return [output] if hasattr(output, "numpy") else list(output)  # type: ignore[call-overload]
