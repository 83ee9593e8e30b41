"""Trip counts and costs out of NVIDIA's assembly, without a compiler."""

from mlc_controlnet.bench.compilers.amd_isa import Instruction
from mlc_controlnet.bench.compilers.nvidia_isa import cost_of, find_loops, parse

NESTED = """\
.text.kernel:
        /*0030*/                   MOV R98, RZ ;
.L_x_3:
        /*04e0*/                   IADD3 R98, R98, 0x1, RZ ;
        /*0500*/                   ISETP.GE.U32.AND P1, PT, R98, 0xa, PT ;
        /*05f0*/                   MOV R64, 0x920 ;
.L_x_1:
        /*0660*/                   LDS.64 R58, [R66+-0x100] ;
        /*0670*/                   IADD3 R64, R64, 0x8, RZ ;
        /*0690*/                   ISETP.NE.AND P0, PT, R64, 0x960, PT ;
        /*1b50*/                   FFMA R87, R63.reuse, R60, R87 ;
        /*1ba0*/              @!P0 CALL.REL.NOINC `(.L_x_0) ;
        /*1bb0*/                   BRA `(.L_x_1) ;
.L_x_0:
        /*1bc0*/               @P1 CALL.REL.NOINC `(.L_x_2) ;
        /*1bd0*/                   BRA `(.L_x_3) ;
.L_x_2:
        /*1be0*/                   EXIT ;
.L_x_4:
        /*1bf0*/                   BRA `(.L_x_4);
"""


def test_counters_of_nested_loops_are_run_until_their_compare_changes():
    (blocks,) = parse(NESTED).values()
    assert [loop.trips for loop in find_loops(blocks)] == [10, 8]


def test_a_constant_that_is_written_as_two_halves_is_read():
    text = NESTED.replace("MOV R98, RZ", "HFMA2.MMA R98, -RZ, RZ, 0, 1.1920928955078125e-07")  # the integer 2
    (blocks,) = parse(text).values()
    assert [loop.trips for loop in find_loops(blocks)] == [8, 8]


def test_a_counter_that_is_not_constant_gives_no_count():
    (blocks,) = parse(NESTED.replace("MOV R98, RZ", "S2R R98, SR_TID.X")).values()
    assert [loop.trips for loop in find_loops(blocks)] == [None, 8]


def test_a_counter_that_is_spilled_to_the_stack_is_followed():
    text = NESTED.replace("MOV R98, RZ ;", 'STL [R1+0x8], RZ     (*"SpillRefill"*);').replace(
        "        /*04e0*/                   IADD3 R98, R98, 0x1, RZ ;",
        "        /*04d0*/                   LDS.128 R98, [R3] ;\n"
        '        /*04d8*/                   LDL.LU R98, [R1+0x8]     (*"SpillRefill"*);\n'
        "        /*04e0*/                   IADD3 R98, R98, 0x1, RZ ;\n"
        '        /*04e8*/                   STL [R1+0x8], R98     (*"SpillRefill"*);',
    )
    (blocks,) = parse(text).values()
    assert [loop.trips for loop in find_loops(blocks)] == [10, 8]
    (blocks,) = parse(text.replace("STL [R1+0x8], R98", "STL.64 [R1+0x8], R98")).values()
    assert [loop.trips for loop in find_loops(blocks)] == [None, 8]


def test_a_counter_of_two_trips_becomes_a_constant():
    two = NESTED.replace("R98, 0xa, PT", "R98, 0x2, PT").replace(
        "@P1 CALL", "MOV R98, 0x1 ;\n        /*1bc8*/              @P1 CALL"
    )
    (blocks,) = parse(two).values()
    assert [loop.trips for loop in find_loops(blocks)] == [2, 8]


def test_a_compare_that_never_changes_gives_no_count():
    (blocks,) = parse(NESTED.replace("IADD3 R98, R98, 0x1, RZ", "IADD3 R98, RZ, 0x1, RZ")).values()
    assert [loop.trips for loop in find_loops(blocks)] == [None, 8]


def cost(opcode: str, *operands: str, architecture: str = "sm_89"):
    return cost_of(Instruction(opcode, operands), architecture)


def test_packed_halves_have_the_published_rates():
    assert [cost("HFMA2", "R1", "R2", "R3", "R1", architecture=a).vector_cycles for a in ("sm_80", "sm_89")] == [1, 2]
    assert [cost("FFMA", "R1", "R2", "R3", "R1", architecture=a).vector_cycles for a in ("sm_80", "sm_89")] == [2, 1]
    assert cost("HFMA2", "R1", "R2.H0_H0", "R3.reuse", "R1").multiply_adds == 2
    assert cost("HFMA2.MMA", "R1", "-RZ", "RZ", "0", "0").multiply_adds == 0


def test_shared_memory_is_counted_in_bytes_of_all_lanes():
    assert cost("LDS.128", "R4", "[R66]").workgroup_cycles == 4
    assert cost("LDS.U16", "R4", "[R66]").workgroup_cycles == 1
    assert cost("STS.64", "[R66]", "R4").workgroup_loads == 0
    assert cost("LDG.E.64.CONSTANT", "R4", "[R102.64+0x2800]").memory_bytes == 256
