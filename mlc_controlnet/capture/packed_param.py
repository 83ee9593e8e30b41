"""A quantized weight of a component: two params, its words and its table, made from one param of the checkpoint."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from mlc_controlnet.capture.param import Param
from mlc_controlnet.quantize.input_moments import InputMoments
from mlc_controlnet.quantize.scheme import Scheme
from mlc_controlnet.quantize.weight import QuantizedWeight, dequantize, quantize

WORDS, TABLE = "words", "table"
PARTS = (WORDS, TABLE)


class Quantizer:
    """Quantizes each weight once: libraries of several dtypes and the bundle's files share the result.

    moments: tensor of the checkpoint -> of what the layer reads whose weight it is; other weights are rounded without.
    """

    def __init__(self, moments: Mapping[str, InputMoments] | None = None) -> None:
        self._moments = moments or {}
        self._done: dict[tuple[Param, Scheme], QuantizedWeight] = {}

    def quantize(self, weight: Param, scheme: Scheme, tensors: Mapping[str, torch.Tensor]) -> QuantizedWeight:
        """Return the quantized form of a param of the checkpoint's `tensors`."""
        key = weight, scheme
        if key not in self._done:
            self._done[key] = quantize(weight.read(tensors), scheme, self._moments_of(weight))
            weight.give_back(tensors)
        return self._done[key]

    def try_out(self, weight: Param, rows: torch.Tensor, scheme: Scheme) -> torch.Tensor:
        """Return how some outputs of a weight, float32 [N, K], are read back, and keep nothing.

        Without error feedback: its errors have little correlation with each other.

        scheme: of the whole weight. The outputs are whole groups of it.
        """
        columns = scheme.outputs_last
        own = replace(scheme, columns=len(rows)) if columns else replace(scheme, rows=len(rows))
        quantized = quantize(rows.t() if columns else rows, own, self._moments_of(weight), feedback=False)
        decoded = torch.from_numpy(dequantize(quantized))
        return decoded.t() if columns else decoded

    def _moments_of(self, weight: Param) -> InputMoments | None:
        """Layers whose weights are joined in one param read the same."""
        known = [self._moments.get(rows.tensor) for rows in weight.rows]
        return None if None in known else known[0]


@dataclass(frozen=True, kw_only=True)
class PackedParam(Param):
    """One of PARTS of a quantized weight, whose rows and axes these are."""

    scheme: Scheme
    stores: str
    quantizer: Quantizer = field(compare=False, repr=False)

    @property
    def weight(self) -> Param:
        """The weight itself."""
        return Param(self.rows, self.axes)

    @property
    def name(self) -> str:
        """Unique within a bundle: `unet.mid_block.resnets.0.conv1.weight words`."""
        return f"{self.weight.name} {self.stores}"

    @property
    def dtype(self) -> str:
        """The dtype of what a bundle stores."""
        return "uint32" if self.stores == WORDS else "float16"

    def read(self, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Quantize the weight, unless it is already, and return this part of it: uint32 words or a float16 table."""
        quantized = self.quantizer.quantize(self.weight, self.scheme, tensors)
        return torch.from_numpy(quantized.words if self.stores == WORDS else quantized.table)

    def shape(self, _tensors: Mapping[str, torch.Tensor]) -> tuple[int, ...]:
        """Return the part's shape, without making it."""
        return (self.scheme.words,) if self.stores == WORDS else self.scheme.table_shape

    def bytes(self, tensors: Mapping[str, torch.Tensor]) -> int:
        """Return how many bytes a bundle stores of it."""
        return (4 if self.stores == WORDS else 2) * math.prod(self.shape(tensors))


def packed(weight: Param, scheme: Scheme, quantizer: Quantizer) -> tuple[PackedParam, ...]:
    """Return both parts of a quantized weight, in the order in which functions take them."""
    return tuple(
        PackedParam(weight.rows, weight.axes, scheme=scheme, stores=part, quantizer=quantizer) for part in PARTS
    )
