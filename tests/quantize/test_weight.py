import numpy as np
import pytest
import torch

from mlc_controlnet.quantize.linear import choose_scales
from mlc_controlnet.quantize.packing import pack, unpack
from mlc_controlnet.quantize.palette import choose_palettes
from mlc_controlnet.quantize.scheme import LINEAR, PALETTE, PLANES, choose_scheme
from mlc_controlnet.quantize.weight import dequantize, quantize, signal_to_noise_db

KINDS = [(LINEAR, 8), (LINEAR, 4), (PALETTE, 8), (PALETTE, 6), (PALETTE, 4), (PALETTE, 2)]


def gaussian(rows: int = 320, columns: int = 320) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) / 30


@pytest.mark.parametrize("bits", PLANES)
@pytest.mark.parametrize("rows", [1, 5, 8])
def test_codes_survive_the_way_through_words(bits: int, rows: int) -> None:
    scheme = choose_scheme(PALETTE, bits, rows, 12)
    codes = np.random.default_rng(0).integers(0, 2**bits, (rows, 12)).astype(np.uint8)
    words = pack(codes, scheme)
    assert words.shape == (scheme.words,)
    np.testing.assert_array_equal(unpack(words, scheme), codes)


# Lloyd's and Max's quantizer of a Gaussian has 9.30, 20.22 and 31.89 dB with 2, 4 and 6 bits (Max 1960, table I).
@pytest.mark.parametrize(("bits", "best"), [(2, 9.30), (4, 20.22), (6, 31.89)])
def test_palettes_are_as_good_as_the_best_quantizer_of_a_gaussian(bits: int, best: float) -> None:
    weight = gaussian()
    got = signal_to_noise_db(weight, quantize(weight, choose_scheme(PALETTE, bits, 320, 320)))
    assert best - 0.7 < got < best + 0.3


@pytest.mark.parametrize(("bits", "gain"), [(8, 0.1), (4, 0.5)])
def test_least_squares_scales_are_better_than_rounding_to_the_largest_number(bits: int, gain: float) -> None:
    weight = gaussian()
    errors = []
    for least_squares in (False, True):
        codes, scales = choose_scales(weight, bits, 32, least_squares)
        decoded = (codes.float() - 2 ** (bits - 1)) * scales.float().repeat_interleave(32, 1)
        errors.append((weight - decoded).square().sum())
    assert 10 * torch.log10(errors[0] / errors[1]) > gain


@pytest.mark.parametrize(("method", "bits"), KINDS)
def test_either_layout_of_a_weight_is_quantized_alike(method: str, bits: int) -> None:
    weight = gaussian(64, 48)
    last = dequantize(quantize(weight, choose_scheme(method, bits, 64, 48)))
    first = dequantize(quantize(weight.t(), choose_scheme(method, bits, 48, 64, outputs_last=False)))
    np.testing.assert_array_equal(last, first.T)


@pytest.mark.parametrize(("method", "bits"), KINDS)
def test_zeros_stay_zeros(method: str, bits: int) -> None:
    scheme = choose_scheme(method, bits, 64, 32)
    assert not dequantize(quantize(torch.zeros(64, 32), scheme)).any()


@pytest.mark.parametrize(("method", "bits", "least"), [(LINEAR, 8, 8.25), (LINEAR, 4, 4.5), (PALETTE, 6, 6.05)])
def test_scales_and_tables_add_few_bits(method: str, bits: int, least: float) -> None:
    scheme = choose_scheme(method, bits, 2880, 320)
    assert 8 * scheme.bytes / (2880 * 320) <= least


def test_a_weight_of_few_different_numbers_is_kept_as_it_is() -> None:
    weight = torch.tensor([-0.5, 0.25, 1.0, 2.0])[torch.randint(0, 4, (64, 64))]
    codes, tables = choose_palettes(weight, 4, 64)
    assert torch.equal(tables.float()[0][codes.long()], weight)
