"""Codes in words of 32 bits, and back: see `scheme.py` for the order."""

import numpy as np

from mlc_controlnet.quantize.scheme import BYTE_BITS, LANES, Plane, Scheme


def pack(codes: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Return uint32 [words] of uint8 codes [rows, columns]."""
    return np.concatenate([_pack_plane(codes, plane) for plane in scheme.planes])


def unpack(words: np.ndarray, scheme: Scheme) -> np.ndarray:
    """Return uint8 codes [rows, columns] of uint32 [words]."""
    codes = np.zeros((scheme.rows, scheme.columns), np.uint8)
    for plane in scheme.planes:
        own = words[plane.first_word :][: scheme.words_of(plane)].reshape(-1, 1, scheme.columns // LANES, 1)
        part = own >> _shifts(plane) & np.uint32(2**plane.bits - 1)
        codes |= part.reshape(-1, scheme.columns)[: scheme.rows].astype(np.uint8) << plane.first_bit
    return codes


def _pack_plane(codes: np.ndarray, plane: Plane) -> np.ndarray:
    rows, columns = codes.shape
    part = codes >> plane.first_bit & (2**plane.bits - 1)
    part = np.pad(part, ((0, -rows % plane.rows), (0, 0))).reshape(-1, plane.rows, columns // LANES, LANES)
    words = np.zeros((part.shape[0], columns // LANES), np.uint32)
    shifts = _shifts(plane)
    for row in range(plane.rows):
        for lane in range(LANES):
            words |= part[:, row, :, lane].astype(np.uint32) << shifts[0, row, 0, lane]
    return words.ravel()


def _shifts(plane: Plane) -> np.ndarray:
    """Return the first bit of each number of a word, uint32 [1, rows, 1, lanes]."""
    rows, lanes = np.arange(plane.rows, dtype=np.uint32), np.arange(LANES, dtype=np.uint32)
    return (rows[:, None] * plane.bits + lanes * BYTE_BITS).reshape(1, plane.rows, 1, LANES)
