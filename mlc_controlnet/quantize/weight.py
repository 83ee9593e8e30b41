"""One weight: from float16 or float32 to codes and a table, and back."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from mlc_controlnet.quantize.linear import choose_scales
from mlc_controlnet.quantize.packing import pack, unpack
from mlc_controlnet.quantize.palette import choose_palettes
from mlc_controlnet.quantize.scheme import LINEAR, PALETTE, Scheme


@dataclass(frozen=True)
class QuantizedWeight:
    """What a bundle stores of a weight.

    Attributes:
        words: the codes, uint32 [scheme.words].
        table: float16 [scheme.table_shape].
    """

    scheme: Scheme
    words: np.ndarray
    table: np.ndarray


def quantize(weight: torch.Tensor, scheme: Scheme) -> QuantizedWeight:
    """Code a weight; its numbers, in the order of memory, are those of the scheme's matrix."""
    matrix = weight.detach().float().reshape(scheme.rows, scheme.columns)
    by_output = matrix.t().contiguous() if scheme.outputs_last else matrix
    choose = choose_palettes if scheme.method == PALETTE else choose_scales
    codes, table = choose(by_output, scheme.bits, scheme.group)
    if scheme.outputs_last:
        codes = codes.t()
        if scheme.method == LINEAR:
            table = table.t()
    assert tuple(table.shape) == scheme.table_shape
    return QuantizedWeight(scheme, pack(codes.numpy(), scheme), np.ascontiguousarray(table.numpy()))


def dequantize(quantized: QuantizedWeight) -> np.ndarray:
    """Return the weight as kernels read it: float32 [rows, columns]. It is the reference of their decoding."""
    scheme = quantized.scheme
    codes, table = unpack(quantized.words, scheme), quantized.table.astype(np.float32)
    if scheme.method == PALETTE:
        outputs = np.arange(scheme.outputs) // scheme.group
        return table[outputs[None, :] if scheme.outputs_last else outputs[:, None], codes]
    scales = table.repeat(scheme.group, axis=0 if scheme.outputs_last else 1)
    return (codes.astype(np.float32) - 2 ** (scheme.bits - 1)) * scales


def signal_to_noise_db(weight: torch.Tensor, quantized: QuantizedWeight) -> float:
    """Return 10 log10(sum w^2 / sum (w - w')^2) of a weight and its coded form w', at most 200."""
    wanted = weight.detach().double().reshape(quantized.scheme.rows, quantized.scheme.columns).numpy()
    noise = float(np.square(wanted - dequantize(quantized)).sum())
    return 200.0 if noise == 0 else min(10 * math.log10(float(np.square(wanted).sum()) / noise), 200.0)
