"""Flash attention against torch: compiled for the processor, and as WGSL on a software WebGPU device."""

from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.target import Target

from mlc_controlnet.instruction_sets import ALL_INSTRUCTION_SETS, INSTRUCTION_SETS, host_instruction_sets
from mlc_controlnet.kernels.attention import Attention
from mlc_controlnet.kernels.flash_attention import flash_attention
from mlc_controlnet.kernels.flash_attention_plan import factors
from mlc_controlnet.kernels.flash_attention_tile import THREADS, choose_tile, span
from mlc_controlnet.kernels.flash_attention_tile_cpu import KEYS, Tile, default_tile, query_tiles_of_task
from mlc_controlnet.kernels.registers_cpu import registers_of
from mlc_controlnet.kernels.workgroups import WORKGROUP_BYTES
from mlc_controlnet.parity.parity import signal_to_noise_db
from tests.kernels.torch_references import attend_in_torch, attention_inputs, lay_out
from tests.kernels.webgpu_device import WEBGPU, run_on_webgpu

LLVM = Target({"kind": "llvm", "num-cores": 2})

CASES = {
    "self attention": Attention(1, 64, 64, 4, 16, "float32", 0.25),
    "cross attention over 77 tokens": Attention(1, 64, 77, 4, 24, "float32", 24**-0.5),
    "queries that do not fill a tile": Attention(1, 50, 33, 3, 12, "float32", 0.3),
    "fewer keys than a tile, batch 2": Attention(2, 17, 3, 2, 40, "float32", 40**-0.5),
    "head size 80": Attention(1, 40, 77, 2, 80, "float32", 80**-0.5),
    "head size 160 in four chunks": Attention(1, 36, 77, 2, 160, "float32", 160**-0.5),
    "the VAE's head of 64": Attention(1, 256, 256, 1, 64, "float32", 0.125),
    "the VAE's head of 512": Attention(1, 48, 48, 1, 512, "float32", 512**-0.5),
    "one tile of keys, one chunk": Attention(1, 16, 16, 4, 24, "float32", 24**-0.5),
    "one tile of keys, eight chunks": Attention(1, 16, 16, 1, 512, "float32", 512**-0.5),
    "shared mask": Attention(1, 77, 77, 4, 16, "float32", 0.25, bias_shape=(1, 1, 77, 77)),
    "mask per batch and head": Attention(2, 20, 77, 2, 16, "float32", 0.25, bias_shape=(2, 2, 20, 77)),
    "mask per key": Attention(2, 20, 77, 2, 16, "float32", 0.25, bias_shape=(2, 1, 1, 77)),
    "causal from the first key": Attention(1, 77, 77, 2, 16, "float32", 0.25, causal="TopLeft"),
    "causal to the last key": Attention(1, 20, 77, 2, 16, "float32", 0.25, causal="BottomRight"),
    # 32 heads are workgroups enough for the tiles that 4096 tokens have: values come in other chunks than keys.
    "many heads of 64": Attention(1, 40, 33, 32, 64, "float32", 0.125),
    "many heads of 160": Attention(1, 40, 33, 32, 160, "float32", 160**-0.5),
    "many heads of 512": Attention(1, 40, 33, 32, 512, "float32", 512**-0.5),
    "many heads of 512, float16": Attention(1, 40, 33, 32, 512, "float16", 512**-0.5),
    "float16": Attention(1, 64, 77, 2, 40, "float16", 40**-0.5),
    "float16 with mask": Attention(1, 77, 77, 2, 64, "float16", 0.125, bias_shape=(1, 1, 77, 77)),
    "float16 in chunks": Attention(1, 36, 77, 2, 160, "float16", 160**-0.5),
    "one tensor, batch 2": Attention(2, 50, 50, 3, 12, "float32", 0.3, layout="together"),
    "one tensor, causal": Attention(1, 77, 77, 2, 16, "float32", 0.25, causal="TopLeft", layout="together"),
    "one tensor, float16": Attention(1, 64, 64, 2, 40, "float16", 40**-0.5, layout="together"),
    "shared keys and values, batch 2": Attention(2, 20, 77, 2, 16, "float32", 0.25, layout="shared"),
    "shared keys and values in chunks": Attention(1, 36, 33, 2, 160, "float32", 160**-0.5, layout="shared"),
    "shared keys and values, float16": Attention(1, 64, 77, 2, 40, "float16", 40**-0.5, layout="shared"),
}


def assert_close(attention: Attention, got: np.ndarray, want: np.ndarray) -> None:
    assert signal_to_noise_db(want, got.astype("float64")) > (110 if attention.dtype == "float32" else 60)


@pytest.mark.parametrize("attention", CASES.values(), ids=CASES)
def test_compiled_for_the_processor_it_agrees_with_torch(attention):
    check_on_processor(attention, LLVM)


@pytest.mark.parametrize("name", host_instruction_sets())
@pytest.mark.parametrize("case", ["head size 80", "cross attention over 77 tokens", "queries that do not fill a tile"])
def test_with_every_vector_of_this_machine_it_agrees_with_torch(case, name):
    check_on_processor(CASES[case], Target(INSTRUCTION_SETS[name].tvm_target))


@pytest.mark.parametrize("name", host_instruction_sets())
def test_with_four_vectors_of_queries_it_agrees_with_torch(name):
    many = Attention(1, 120, 128, 16, 24, "float32", 24**-0.5)
    assert rules_for(many, name).vectors == 4
    check_on_processor(many, Target(INSTRUCTION_SETS[name].tvm_target))


MANY_TILES = {
    "whole tiles of keys": Attention(1, 256, 128, 32, 24, "float32", 24**-0.5),
    "keys past the end": Attention(1, 250, 77, 32, 24, "float32", 24**-0.5),
    "a mask": Attention(2, 256, 33, 16, 12, "float32", 0.3, bias_shape=(2, 1, 256, 33)),
    "causal, one tensor": Attention(1, 256, 256, 32, 16, "float32", 0.25, causal="TopLeft", layout="together"),
    "shared keys, float16": Attention(1, 256, 77, 32, 16, "float16", 0.25, layout="shared"),
    "rows that collide": Attention(1, 256, 72, 20, 256, "float32", 1 / 16),
}


@pytest.mark.parametrize("name", host_instruction_sets())
@pytest.mark.parametrize("attention", MANY_TILES.values(), ids=MANY_TILES)
def test_with_tiles_of_queries_that_share_copies_of_keys_it_agrees_with_torch(attention, name):
    target = Target(INSTRUCTION_SETS[name].tvm_target)
    assert query_tiles_of_task(attention, registers_of(target), rules_for(attention, name)) > 1
    check_on_processor(attention, target)


def test_large_heads_and_few_tasks_have_one_tile_of_queries():
    registers = registers_of(Target(INSTRUCTION_SETS["x86-64-v3"].tvm_target))
    for attention in [Attention(1, 256, 256, 8, 160, "float32", 1.0), Attention(1, 64, 64, 4, 40, "float32", 1.0)]:
        assert query_tiles_of_task(attention, registers, default_tile(attention, registers)) == 1
    rows_collide = Attention(1, 4096, 4096, 1, 512, "float32", 1.0)
    assert query_tiles_of_task(rows_collide, registers, default_tile(rows_collide, registers)) > 1


@pytest.mark.skipif("x86-64-v3" not in host_instruction_sets(), reason="this processor has no AVX2")
def test_with_three_vectors_of_queries_the_last_of_which_is_partly_empty_it_agrees_with_torch():
    attention = Attention(1, 100, 256, 2, 160, "float32", 160**-0.5)
    assert rules_for(attention, "x86-64-v3").vectors == 3
    check_on_processor(attention, Target(INSTRUCTION_SETS["x86-64-v3"].tvm_target))


def rules_for(attention: Attention, name: str) -> Tile:
    return default_tile(attention, registers_of(Target(ALL_INSTRUCTION_SETS[name].tvm_target)))


@pytest.mark.parametrize("name", ["x86-64-v4", "x86-64-v3"])
def test_wide_vectors_have_four_of_queries_where_heads_are_small_and_tasks_are_many(name):
    def vectors(queries: int, keys: int, heads: int, head_size: int) -> int:
        return rules_for(Attention(1, queries, keys, heads, head_size, "float32", 1.0), name).vectors

    assert vectors(4096, 4096, 8, 40) == vectors(1024, 1024, 8, 80) == vectors(1024, 1024, 20, 64) == 4
    assert vectors(256, 256, 8, 160) == (2 if name == "x86-64-v4" else 3), "three by four sums fill AVX2's registers"
    assert vectors(256, 77, 8, 160) == 2, "no faster, or slower"
    assert vectors(4096, 4096, 1, 512) == (4 if name == "x86-64-v4" else 2), "registers for four keys by four vectors"
    assert vectors(1024, 77, 8, 80) == 2, "no micro-tile of four vectors divides 77 keys"
    assert vectors(80, 64, 32, 40) == 2, "lanes would be empty"
    assert vectors(64, 64, 4, 16) == 2, "threads would have no task"


@pytest.mark.parametrize("name", ALL_INSTRUCTION_SETS)
@pytest.mark.parametrize("keys", [33, 64, 77, 1024])
@pytest.mark.parametrize("head_size", [16, 40, 80, 160, 512])
def test_micro_tiles_stay_in_registers_and_tiles_of_keys_are_even(head_size, keys, name):
    registers = registers_of(Target(ALL_INSTRUCTION_SETS[name].tvm_target))
    tile = rules_for(Attention(1, 1024, keys, 8, head_size, "float32", 1.0), name)
    for rows in (tile.rows, tile.depth_rows):
        assert tile.vectors * rows + tile.vectors + 1 <= registers.count, "sums, the vectors' operands and a number"
    assert registers.lanes >= 8 or tile.vectors == 2
    groups = -(-keys // tile.rows)
    tiles = -(-groups // tile.groups)
    assert tile.groups * tile.rows <= KEYS and tiles * tile.groups - groups < tiles


def check_on_processor(attention: Attention, target: Target) -> None:
    inputs = attention_inputs(attention)
    library = tvm.compile(
        tvm.IRModule({"f": flash_attention(attention, target).with_attr("global_symbol", "f")}), target=target
    )
    output = tvm.runtime.tensor(np.full(attention.query_shape, np.nan, attention.dtype))
    library["f"](*(tvm.runtime.tensor(array) for array in lay_out(attention, inputs).values()), output)
    assert_close(attention, output.numpy(), attend_in_torch(attention, inputs))


@pytest.mark.parametrize("attention", CASES.values(), ids=CASES)
def test_as_wgsl_it_agrees_with_torch(attention, tmp_path):
    inputs = attention_inputs(attention)
    output = np.full(attention.query_shape, np.nan, attention.dtype)
    run_on_webgpu([flash_attention(attention, WEBGPU)], lay_out(attention, inputs), {"output": output}, tmp_path)
    assert_close(attention, output, attend_in_torch(attention, inputs))


LARGE = Attention(1, 30, 77, 2, 40, "float16", 40**-0.5)


def run_on_gpu(attention: Attention, inputs: dict[str, np.ndarray], folder: Path) -> np.ndarray:
    output = np.full(attention.query_shape, np.nan, attention.dtype)
    run_on_webgpu([flash_attention(attention, WEBGPU)], inputs, {"output": output}, folder)
    return output.astype("float64")


def test_scores_of_several_hundred_are_exact_enough_in_float16(tmp_path):
    """The rounding of operands that large to float16 alone moves scores by some hundredths."""
    inputs = attention_inputs(LARGE, spread=12)
    scores = inputs["q"][0, :, :40].astype("float64") @ inputs["k"][0, :, :40].T.astype("float64") * LARGE.scale
    assert abs(scores).max() > 400
    assert signal_to_noise_db(attend_in_torch(LARGE, inputs), run_on_gpu(LARGE, inputs, tmp_path)) > 40


def test_values_of_thousands_do_not_overflow_a_run(tmp_path):
    """Equal keys: every weight is 1, and the sum of a run is eight values."""
    inputs = attention_inputs(LARGE) | {"k": np.zeros(LARGE.key_shape, "float16")}
    inputs["v"] = (inputs["v"] + 30000).astype("float16")
    assert signal_to_noise_db(attend_in_torch(LARGE, inputs), run_on_gpu(LARGE, inputs, tmp_path)) > 60


def test_queries_and_keys_of_thousands_give_the_key_with_the_highest_score(tmp_path):
    """A run of 10 products of 2000 by 2000 fits float16 with the queries' factor, and so does the maximum."""
    inputs = attention_inputs(LARGE)
    inputs["q"] = np.full(LARGE.query_shape, 2000, "float16")
    inputs["k"] = np.full(LARGE.key_shape, -2000, "float16")
    inputs["k"][:, 33] = 100
    want = np.broadcast_to(inputs["v"][:, 33:34], LARGE.query_shape).astype("float64")
    assert np.array_equal(run_on_gpu(LARGE, inputs, tmp_path), want)


@pytest.mark.parametrize("dtype,element_bytes", [("float16", 2), ("float32", 4)])
@pytest.mark.parametrize("head_size", [8, 12, 16, 24, 40, 48, 64, 72, 80, 96, 128, 160, 256, 512])
def test_tile_fits_workgroup_memory_and_256_threads(head_size, dtype, element_bytes):
    tile = choose_tile(Attention(1, 4096, 4096, 8, head_size, dtype, 1.0))
    assert tile.workgroup_bytes(element_bytes) <= WORKGROUP_BYTES
    assert tile.threads_x * tile.threads_y <= 256
    assert tile.depth == head_size // 4 and tile.depth % tile.chunk == 0
    assert tile.value_chunk % tile.threads_x == 0 and tile.depth % tile.value_chunk == 0
    assert tile.threads_x % tile.value_threads == 0
    assert tile.queries >= 16, "so many FMAs for each key that is brought"


@pytest.mark.parametrize("head_size", [40, 64, 80, 160, 512])
def test_in_float16_the_threads_fill_whole_groups_of_64(head_size):
    tile = choose_tile(Attention(1, 4096, 4096, 8, head_size, "float16", 1.0))
    assert 0.9 * THREADS < tile.threads_x * tile.threads_y <= THREADS
    assert tile.rows == tile.columns == 4, "the FMAs of a vector that is read"


@pytest.mark.parametrize("head_size", [40, 64, 80, 96, 128, 160])
def test_in_float32_a_vector_that_is_read_serves_four_queries_or_keys(head_size):
    tile = choose_tile(Attention(1, 256, 256, 8, head_size, "float32", 1.0))
    assert tile.rows == tile.columns == 4


def test_a_tile_of_values_lies_where_keys_were():
    for head_size in (40, 64, 80):
        tile = choose_tile(Attention(1, 4096, 4096, 8, head_size, "float16", 1.0))
        assert tile.keeps_queries
        assert span(tile.values, tile.columns, tile.value_chunk) <= tile.first_query
    deep = choose_tile(Attention(1, 4096, 4096, 1, 512, "float16", 1.0))
    assert not deep.keeps_queries and (deep.value_chunk, deep.values) == (128, 8), "whole values of a few keys"


def test_few_workgroups_have_fewer_queries_each():
    few, many = (choose_tile(Attention(1, tokens, tokens, 8, 160, "float16", 1.0)) for tokens in (256, 4096))
    assert few.queries * 2 == many.queries and few.threads_y == many.threads_y


def test_many_heads_have_the_tile_of_many_tokens():
    for head_size, dtype in [(64, "float32"), (160, "float32"), (512, "float32"), (512, "float16")]:
        tile = choose_tile(Attention(1, 40, 33, 64, head_size, dtype, 1.0))
        assert tile == choose_tile(Attention(1, 4096, 4096, 1, head_size, dtype, 1.0))


def test_the_factors_of_scores_are_exact_and_leave_room():
    for head_size in (40, 64, 80, 160, 512):
        query_factor, score_factor = factors(head_size**-0.5)
        assert np.log2(query_factor) % 1 == 0 and 16 <= score_factor < 32
        assert query_factor * score_factor == pytest.approx(head_size**-0.5 * np.log2(np.e))


def test_attentions_that_share_keys_in_rows_of_any_length_share_one_kernel():
    attention = Attention(1, 64, 77, 4, 16, "float32", 0.25, layout="shared")
    assert isinstance(flash_attention(attention, WEBGPU).params[1].ty.shape[0], tirx.Var)


def test_a_bias_has_operands_apart():
    with pytest.raises(ValueError, match="together"):
        flash_attention(Attention(1, 8, 8, 1, 4, "float32", 1.0, bias_shape=(1, 1, 8, 8), layout="together"), LLVM)


def test_head_of_half_vectors_is_refused():
    with pytest.raises(ValueError, match="head_size=10"):
        flash_attention(Attention(1, 64, 64, 4, 10, "float32", 1.0), LLVM)
