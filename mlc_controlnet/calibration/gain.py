"""What calibration gains: each component with packed weights in torch, against the same component with its own.

Its inputs are those of pictures with noise that calibration has not seen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import nn

from mlc_controlnet.calibration.biases import bias_of, decode, packed_weights
from mlc_controlnet.calibration.moments import layers_of
from mlc_controlnet.calibration.torch_engine import Tensors
from mlc_controlnet.capture import CapturedModel, PackedParam, Quantizer, build_references
from mlc_controlnet.capture.reference import Layer
from mlc_controlnet.checkpoint import Checkpoint
from mlc_controlnet.parity.parity import signal_to_noise_db


@dataclass(frozen=True)
class Gain:
    """The signal to noise ratio of a component's worst output, in dB."""

    component: str
    plain: float  # without calibration
    rounded: float  # for what layers read
    corrected: float  # and biases take the mean error

    def __str__(self) -> str:
        figures = f"{self.plain:.1f} dB without calibration, {self.rounded:.1f} with rounding for what layers read"
        return f"{self.component}: {figures}, {self.corrected:.1f} with corrected biases, too"


def measure_gains(
    checkpoint: Checkpoint,
    captured: CapturedModel,
    calls: Mapping[str, Sequence[tuple[Tensors, Tensors]]],
) -> list[Gain]:
    """Measure each component that has packed weights and was called.

    Args:
        checkpoint: with corrected biases.
        captured: with packed weights.
        calls: inputs and outputs with the weights as they are.
    """
    weights = DecodedWeights(checkpoint, captured)
    gains = []
    for name, module in build_references(checkpoint).items():
        layers = [(path, tensor) for path, tensor in layers_of(name, checkpoint) if tensor in weights.of_tensor]
        if not layers or name not in calls:
            continue
        for path, tensor in layers:
            _replace(module.get_submodule(path), tensor, weights)
        decibels = []
        for calibrated, biases in ((False, {}), (True, {}), (True, checkpoint.corrected_biases)):
            weights.change(calibrated, biases)
            decibels.append(_decibels(module, calls[name]))
        gains.append(Gain(name, *decibels))
    return gains


@dataclass
class DecodedWeights:
    """The weights of layers as kernels read them, each decoded when it is read."""

    checkpoint: Checkpoint
    captured: CapturedModel
    of_tensor: dict[str, list[PackedParam]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tensors = self.checkpoint.tensors()
        for packed in packed_weights(self.captured):
            for rows in packed.rows:
                self.of_tensor.setdefault(rows.tensor, []).append(packed)
        self._last: tuple[PackedParam, torch.Tensor] | None = None
        self._plain = Quantizer()
        self.change(calibrated=True, biases={})

    def change(self, calibrated: bool, biases: Mapping[str, torch.Tensor]) -> None:
        """Choose how weights are rounded, and which biases take the place of others."""
        self._calibrated, self._biases, self._last = calibrated, biases, None

    def weight(self, tensor: str) -> torch.Tensor:
        """Return a tensor of the checkpoint with the rows that are packed in their decoded form, float32."""
        whole = self.tensors[tensor].float()
        for packed in self.of_tensor[tensor]:
            for rows, values in packed.weight.parts(self._decoded(packed), self.tensors):
                if rows.tensor == tensor:
                    whole[rows.start : rows.stop] = values
        return whole

    def bias(self, weight: str, layer: Layer) -> torch.Tensor | None:
        """Return the bias of a weight's layer, float32."""
        corrected = self._biases.get(bias_of(weight))
        return layer.bias if corrected is None else corrected.float()

    def _decoded(self, packed: PackedParam) -> torch.Tensor:
        """Decode a packed weight; layers that share one ask for it one after another."""
        if self._last is None or self._last[0] != packed:
            quantizer = packed.quantizer if self._calibrated else self._plain
            quantized = quantizer.quantize(packed.weight, packed.scheme, self.tensors)
            self._last = packed, decode(quantized, torch.Size(packed.weight.shape(self.tensors)))
        return self._last[1]


def _replace(layer: Layer, tensor: str, weights: DecodedWeights) -> None:
    """Make a layer compute with decoded weights."""

    def forward(x: torch.Tensor) -> torch.Tensor:
        weight, bias = weights.weight(tensor), weights.bias(tensor, layer)
        return layer._conv_forward(x, weight, bias) if isinstance(layer, nn.Conv2d) else F.linear(x, weight, bias)

    layer.forward = forward


def _decibels(module: nn.Module, calls: Sequence[tuple[Tensors, Tensors]]) -> float:
    """Return the dB of the worst output over all calls."""
    wanted = [outputs for _, outputs in calls]
    got = []
    with torch.no_grad():
        for inputs, _ in calls:
            result = module(*inputs)
            got.append((result,) if isinstance(result, torch.Tensor) else tuple(result))
    return min(
        signal_to_noise_db(torch.stack(one).numpy(), torch.stack(other).numpy())
        for one, other in zip(zip(*wanted, strict=True), zip(*got, strict=True), strict=True)
    )
