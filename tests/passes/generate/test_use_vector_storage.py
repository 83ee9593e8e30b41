import re

import pytest
from tvm import tirx
from tvm.script import tirx as T

from tests.kernels.webgpu_device import build_wgsl

ROWS, COLUMNS = 8, 16


def copy(offset: int = 0, lanes: int = 4) -> tirx.PrimFunc:
    """y[i] = x[i + offset], so many numbers a thread, through workgroup memory."""
    numbers = ROWS * COLUMNS
    threads = numbers // lanes

    @T.prim_func(s_tir=True)
    def func(x: T.Buffer((numbers + 4,), "float16"), y: T.Buffer((numbers,), "float16")):
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        with T.sblock("root"):
            for tx in T.thread_binding(threads, thread="threadIdx.x"):
                with T.sblock("copy"):
                    held = T.sblock_alloc_buffer((numbers,), "float16", scope="shared")
                    held[T.ramp(tx * lanes, 1, lanes)] = x[T.ramp(tx * lanes + offset, 1, lanes)]
                    y[T.ramp(tx * lanes, 1, lanes)] = held[T.ramp(tx * lanes, 1, lanes)]

    return func


def vectors(wgsl: str) -> set[str]:
    """The tensors in memory that are of vectors of four."""
    return set(re.findall(r"(\w+) : array<vec4<f16>", wgsl))


def test_memory_that_is_read_and_written_in_fours_is_of_vectors() -> None:
    wgsl = build_wgsl(copy())
    assert vectors(wgsl) == {"x_ptr", "y_ptr", "held"}
    assert not re.search(r"\[\w+ \+ \d\]", wgsl)  # no vector is put together from numbers


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_a_vector_that_begins_within_one_stays_numbers(offset: int) -> None:
    assert vectors(build_wgsl(copy(offset))) == {"y_ptr", "held"}


def test_vectors_of_two_stay_numbers() -> None:
    assert not vectors(build_wgsl(copy(lanes=2)))


def test_an_index_is_computed_once() -> None:
    """TVM writes common subexpressions out again after it has eliminated them."""

    @T.prim_func(s_tir=True)
    def func(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32"), z: T.Buffer((64,), "float32")):
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        with T.sblock("root"):
            for tx in T.thread_binding(64, thread="threadIdx.x"):
                with T.sblock("add"):
                    z[tx * 5 % 64] = x[tx * 5 % 64] + y[tx * 5 % 64]

    assert build_wgsl(func).count("* 5i") == 1
