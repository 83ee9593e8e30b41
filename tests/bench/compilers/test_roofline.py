from mlc_controlnet.bench.compilers.amd_isa import Cost
from mlc_controlnet.bench.compilers.chips import W6800, W7900
from mlc_controlnet.bench.compilers.roofline import FEW, limit_microseconds, predict


def test_the_published_rates_are_those_of_the_issue_model():
    """A wave of 64 does 64 multiply-adds a cycle and SIMD on RDNA 3, 32 in float32 on RDNA 2 and 64 packed."""
    for chip, dtype, a_cycle in (
        (W7900, "float32", 64),
        (W7900, "float16", 64),
        (W6800, "float32", 32),
        (W6800, "float16", 64),
    ):
        teraflops = 2 * a_cycle * chip.simds * chip.units * chip.gigahertz / 1000
        assert abs(teraflops / chip.teraflops[dtype] - 1) < 0.01


def test_a_kernel_that_only_multiplies_reaches_the_limit():
    cost = Cost(vector=1000, multiply_adds=2000, vector_cycles=2000)
    workgroups, threads = 96 * 100, 256
    prediction = predict(cost, workgroups, threads // 64, 0, W7900)
    limit = limit_microseconds(2000 * workgroups * threads, 0, "float16", W7900)
    assert prediction.bound == "vector"
    assert abs(limit / prediction.total - 1) < 0.01


def test_one_workgroup_more_than_units_costs_as_much_as_twice_the_units():
    cost = Cost(vector_cycles=1000)
    one, more, twice = (predict(cost, n, 4, 0, W7900) for n in (96, 97, 192))
    assert one.total < more.total == twice.total
    assert more.bound == FEW


def test_bytes_that_must_move_bound_a_copy():
    prediction = predict(Cost(vector_cycles=2, memory_cycles=8), 5120, 4, 864e6, W7900)
    assert (prediction.bound, round(prediction.total)) == ("memory", 1000)


def test_workgroup_memory_is_shared_by_the_simds_of_a_unit():
    prediction = predict(Cost(vector_cycles=100, workgroup_cycles=100), 9600, 4, 0, W7900)
    assert prediction.bound == "workgroup memory"
    assert prediction.microseconds["workgroup memory"] == 2 * prediction.microseconds["vector"]
