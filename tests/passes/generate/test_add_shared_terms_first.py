import tvm
from tvm import tirx
from tvm.script import tirx as T

from mlc_controlnet.passes.generate.add_shared_terms_first import AddSharedTermsFirst


def rewritten(function: tirx.PrimFunc) -> tirx.PrimFunc:
    return AddSharedTermsFirst()(tvm.IRModule({"main": function}))["main"]


def test_what_is_a_threads_own_is_added_last() -> None:
    @T.prim_func
    def before(words: T.Buffer((8192,), "uint32"), y: T.Buffer((8192,), "uint32")):
        bx = T.launch_thread("blockIdx.x", 16)
        tx = T.launch_thread("threadIdx.x", 64)
        own: T.let[T.int32] = tx % 8
        for n in range(4):
            y[n * 2048 + tx * 2 + bx * 128 - 1] = words[tx * 2 + n * 2048 - own + bx * 128]

    @T.prim_func
    def expected(words: T.Buffer((8192,), "uint32"), y: T.Buffer((8192,), "uint32")):
        bx = T.launch_thread("blockIdx.x", 16)
        tx = T.launch_thread("threadIdx.x", 64)
        own: T.let[T.int32] = tx % 8
        for n in range(4):
            y[n * 2048 + tx * 2 + bx * 128 - 1] = words[(n * 2048 + bx * 128) + (tx * 2 - own)]

    tvm.ir.assert_structural_equal(rewritten(before).body, expected.body, map_free_vars=True)


def test_an_index_of_other_numbers_stays() -> None:
    @T.prim_func
    def func(x: T.Buffer((64,), "float32"), y: T.Buffer((64,), "float32")):
        bx = T.launch_thread("blockIdx.x", 4)
        tx = T.launch_thread("threadIdx.x", 16)
        y[tx + bx * 16] = x[tx + bx * 16]

    tvm.ir.assert_structural_equal(rewritten(func), func)


def test_an_index_without_shared_terms_or_own_ones_stays() -> None:
    @T.prim_func
    def func(words: T.Buffer((64,), "uint32"), y: T.Buffer((64,), "uint32")):
        bx = T.launch_thread("blockIdx.x", 4)
        tx = T.launch_thread("threadIdx.x", 16)
        y[tx * 3 % 64] = words[bx * 16]

    tvm.ir.assert_structural_equal(rewritten(func), func)
