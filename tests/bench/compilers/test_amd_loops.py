"""Trip counts and costs out of assembly, without a compiler."""

from mlc_controlnet.bench.compilers.amd_isa import Instruction, cost_of, parse
from mlc_controlnet.bench.compilers.amd_loops import find_loops, trips_of

NESTED = """\
BB0:
	s_mov_b32 s5, 0                                             ; be850080
BB2:
	s_barrier                                                   ; bfbd0000
	s_mov_b32 s6, 0                                             ; be860080
BB3:
	v_fma_f32 v1, v2, v3, v1                                    ; 00000000
	s_add_u32 s6, s6, 2                                         ; 80068106
	s_cmp_ge_i32 s6, 8                                          ; bf038806
	v_fma_f32 v1, v2, v3, v1                                    ; 00000000
	s_cbranch_scc0 BB3                                          ; bfa1fd2d
BB4:
	s_addk_i32 s5, 0x20                                         ; 80058105
	s_cmp_lg_i32 s5, 0x140                                      ; bf03a805
	s_cbranch_scc1 BB2                                          ; bfa1fa04
BB5:
	s_endpgm                                                    ; bfb00000
"""

AT_THE_TOP = """\
BB0:
	s_buffer_load_b128 s[4:7], s[12:15], 0x30                   ; f4280106
	s_bfm_b64 s[10:11], 32, 0                                   ; 958a80a0
	s_add_u32 s27, s7, -1                                       ; 801bc107
	s_lshr_b32 s27, s27, 5                                      ; 851b851b
	s_add_u32 s27, s27, 1                                       ; 801b811b
BB1:
	s_cmp_eq_i32 s0, 0                                          ; bf008000
	s_mov_b32 s16, src_scc                                      ; be9000fd
	s_cmp_ge_i32 s11, s27                                       ; bf031d0b
	s_or_b32 s16, src_scc, s16                                  ; 8c1010fd
	s_cbranch_scc1 BB2                                          ; bfa2048a
BB4:
	s_add_u32 s11, s11, 1                                       ; 800a810a
	s_branch BB1                                                ; bfa0fc9c
BB2:
	s_endpgm                                                    ; bfb00000
"""


def test_counters_of_nested_loops_are_run_until_they_end():
    loops = find_loops(parse(NESTED))
    assert [loop.trips for loop in loops] == [10, 4]
    assert [trips_of(loops, block) for block in range(5)] == [1, 10, 40, 10, 1]


def test_a_bound_in_the_uniform_buffer_decides_a_loop_that_tests_first():
    uniforms = [0] * 15 + [320]
    assert [loop.trips for loop in find_loops(parse(AT_THE_TOP), uniforms)] == [10]
    assert [loop.trips for loop in find_loops(parse(AT_THE_TOP), [0] * 15 + [77])] == [3]


def test_a_counter_that_is_not_constant_gives_no_count():
    assert [loop.trips for loop in find_loops(parse(AT_THE_TOP))] == [None]
    endless = NESTED.replace("s_add_u32 s6, s6, 2", "s_add_u32 s6, s6, s9")
    assert [loop.trips for loop in find_loops(parse(endless))] == [10, None]


def cost(opcode: str, *operands: str, dual_issue: bool = True):
    return cost_of(Instruction(opcode, operands), wave=64, dual_issue=dual_issue)


def test_packed_and_single_multiply_adds_have_the_same_rate_on_rdna_3_only():
    packed, single = cost("v_pk_fma_f16", "v1", "v2", "v3", "v1"), cost("v_fmac_f32", "v1", "v2", "v3")
    assert (packed.multiply_adds, packed.vector_cycles) == (2, 2)
    assert (single.multiply_adds, single.vector_cycles) == (1, 1)
    assert cost("v_fmac_f32", "v1", "v2", "v3", dual_issue=False).vector_cycles == 2
    assert cost("v_fma_mix_f32", "v1", "v2", "v3", "v1 op_sel_hi:[1,1,0]").vector_cycles == 2


def test_a_matrix_instruction_has_twice_the_rate_of_packed_ones_in_waves_of_either_size():
    for wave in (32, 64):
        of_a_wave = cost_of(Instruction("v_wmma_f32_16x16x16_f16", ("v[0:3]", "v[4:11]")), wave, dual_issue=True)
        assert of_a_wave.multiply_adds * wave / of_a_wave.vector_cycles == 128  # v_pk_fma_f16: 2 * 64 in 2 cycles


def test_conversions_and_scales_are_no_multiply_adds():
    assert cost("v_fma_mixlo_f16", "v2", "1.0", "v10", "neg(0) op_sel_hi:[0,0,1]").multiply_adds == 0
    assert cost("v_mul_f32", "v1", "0x3e000000", "v1").multiply_adds == 0
    assert cost("v_mul_f32", "v1", "s4", "v1").multiply_adds == 0
    assert cost("v_pk_mul_f16", "v1", "v2", "v3").multiply_adds == 2


def test_memory_is_counted_in_bytes_of_all_lanes():
    load = cost("ds_load_b128", "v[4:7]", "v1 offset:1600")
    assert (load.workgroup_loads, load.workgroup_cycles) == (1, 8)
    assert cost("ds_load_2addr_b64", "v[4:7]", "v1").workgroup_cycles == 8
    assert cost("ds_store_b64", "v1", "v[4:5]").workgroup_loads == 0
    assert cost("buffer_load_b128", "v[4:7]", "v5", "s[8:11]", "0 offen").memory_bytes == 1024
    assert cost("buffer_load_d16_b16", "v4", "v5", "s[8:11]", "0 offen").memory_bytes == 128


def test_two_instructions_in_one_are_counted_apart():
    block = parse("BB0:\n\tv_dual_fmac_f32 v1, v2, v3 :: v_dual_mov_b32 v4, 0 ; 00000000\n")[0]
    assert [i.opcode for i in block.instructions] == ["v_dual_fmac_f32", "v_dual_mov_b32"]
    assert cost_of(block.instructions[0], wave=32, dual_issue=True).vector_cycles == 0.5


def test_a_bound_may_be_loaded_in_each_trip() -> None:
    listing = """\
BB0:
	s_mov_b32 s5, 0                                             ; be850080
BB1:
	s_lshl_b32 s19, s4, 8                                       ; 84138804
	v_fma_f32 v1, v2, s19, v1                                   ; 00000000
	s_movk_i32 s19, 0xa0                                        ; b01300a0
	s_add_u32 s5, s5, 1                                         ; 80058105
	s_cmp_ge_i32 s5, s19                                        ; bf031305
	s_cbranch_scc0 BB1                                          ; bfa1fa04
BB2:
	s_endpgm                                                    ; bfb00000
"""
    (loop,) = find_loops(parse(listing), ())
    assert loop.trips == 160
