"""One weight: from float16 or float32 to codes and a table, and back."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from mlc_controlnet.quantize.error_feedback import Nearest, round_with_feedback
from mlc_controlnet.quantize.input_moments import InputMoments
from mlc_controlnet.quantize.linear import choose_scales, nearest_steps
from mlc_controlnet.quantize.packing import pack, unpack
from mlc_controlnet.quantize.palette import choose_palettes, nearest_entries
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


def quantize(
    weight: torch.Tensor, scheme: Scheme, moments: InputMoments | None = None, feedback: bool = True
) -> QuantizedWeight:
    """Code a weight; its numbers, in the order of memory, are those of the scheme's matrix.

    Args:
        moments: of what its layer reads; None: all inputs count the same.
        feedback: whether an input's rounding makes good what others' do, for which each is a little worse by itself.
    """
    matrix = weight.detach().float().reshape(scheme.rows, scheme.columns)
    by_output = matrix.t().contiguous() if scheme.outputs_last else matrix
    choose = choose_palettes if scheme.method == PALETTE else choose_scales
    importance = None if moments is None else moments.importance[None]
    codes, table = choose(by_output, scheme.bits, scheme.group, importance=importance)
    if moments is not None and moments.are_enough and feedback:
        codes = round_with_feedback(by_output, moments.hessians(), _nearest(scheme, table.float()))
    if scheme.outputs_last:
        codes = codes.t()
        if scheme.method == LINEAR:
            table = table.t()
    assert tuple(table.shape) == scheme.table_shape
    return QuantizedWeight(scheme, pack(codes.numpy(), scheme), np.ascontiguousarray(table.numpy()))


def _nearest(scheme: Scheme, table: torch.Tensor) -> Nearest:
    """Return what rounds the weights of one input with the scales [N, K / group] or tables [N / group, entries]."""

    def step(place: int, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return nearest_steps(scheme.bits, table[:, place // scheme.group], values)

    def entry(_place: int, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes, decoded = nearest_entries(table, values.reshape(len(table), scheme.group))
        return codes.flatten(), decoded.flatten()

    return entry if scheme.method == PALETTE else step


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
