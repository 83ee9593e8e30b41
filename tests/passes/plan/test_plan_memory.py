import itertools

import numpy as np
import pytest
import tvm
from tvm import relax
from tvm.target import Target

from mlc_controlnet.passes.pipeline import Pipeline
from mlc_controlnet.passes.plan.plan_memory import Tensor, liveness_peak, share, tensors_of

LLVM = Target({"kind": "llvm", "num-cores": 2})


def tensors(*lives: tuple[int, int, int]) -> list[Tensor]:
    """Of (bytes, first, last)."""
    return [Tensor(relax.Var(f"t{n}", relax.TensorType((1,), "float32")), *life) for n, life in enumerate(lives)]


def least(planned: list[Tensor]) -> int:
    """What any plan without offsets needs: the largest of any moment, the second largest, ... (2001.03288, 4.1)."""
    ranks: dict[int, int] = {}
    for moment in {tensor.first for tensor in planned}:
        alive = sorted((t.bytes for t in planned if t.first <= moment <= t.last), reverse=True)
        ranks |= {rank: max(ranks.get(rank, 0), size) for rank, size in enumerate(alive)}
    return sum(ranks.values())


def test_a_chain_needs_two_storages() -> None:
    chain = tensors(*((100, n, n + 1) for n in range(20)))
    assert sum(storage.bytes for storage in share(chain)) == liveness_peak(chain) == 200


def test_a_large_one_that_comes_late_is_planned_first() -> None:
    """In order of execution the first three would get storages that the fourth is too large for."""
    planned = tensors((10, 0, 2), (10, 1, 3), (10, 2, 3), (40, 4, 5))
    assert sum(storage.bytes for storage in share(planned)) == 60 == least(planned)


@pytest.mark.parametrize("seed", range(20))
def test_no_two_of_a_storage_are_alive_together(seed: int) -> None:
    rng = np.random.default_rng(seed)
    firsts, sizes, spans = rng.integers(0, 60, 50), rng.integers(1, 9, 50), rng.integers(1, 12, 50)
    planned = tensors(*((64 * int(b), int(f), int(f + d)) for f, b, d in zip(firsts, sizes, spans, strict=True)))
    storages = share(planned)
    assert sorted(t.first for s in storages for t in s.tensors) == sorted(t.first for t in planned)
    for storage in storages:
        lives = sorted((tensor.first, tensor.last) for tensor in storage.tensors)
        assert all(last < first for (_, last), (first, _) in itertools.pairwise(lives))
        assert all(tensor.bytes <= storage.bytes for tensor in storage.tensors)
    assert least(planned) <= sum(storage.bytes for storage in storages) <= 1.2 * least(planned)


def chain_of_products(view: bool = False) -> tvm.IRModule:
    """Six products of [8, 8] matrices, each read by the next; with `view` the second also by the last, reshaped."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((8, 8), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            made = [x]
            for _ in range(5):
                made.append(builder.emit(relax.op.matmul(made[-1], x)))
            last = made[-1]
            if view:
                flat = builder.emit(relax.op.reshape(made[2], (64,)))
                last = builder.emit(relax.op.add(last, relax.op.reshape(relax.op.nn.relu(flat), (8, 8))))
            result = builder.emit_output(relax.op.matmul(last, x))
        builder.emit_func_output(result)
    return builder.get()


def test_the_tensors_of_a_tuple_are_alive_until_the_last_is_read() -> None:
    """One kernel splits x; its second result is read after tensors that could take its place."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((8, 16), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            halves = builder.emit(relax.op.split(x, 2, axis=1))
            left, right = (builder.emit(relax.TupleGetItem(halves, i)) for i in range(2))
            power = left
            for _ in range(4):
                power = builder.emit(relax.op.matmul(power, left))
            result = builder.emit_output(relax.op.matmul(power, right))
        builder.emit_func_output(result)
    planned = Pipeline(LLVM).run(builder.get())
    machine = relax.VirtualMachine(relax.build(planned, LLVM, relax_pipeline=None), tvm.cpu())
    value = np.random.default_rng(0).standard_normal((8, 16), dtype=np.float32) / 3
    wanted = np.linalg.matrix_power(value[:, :8], 5) @ value[:, 8:]
    np.testing.assert_allclose(machine["main"](tvm.runtime.tensor(value)).numpy(), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("view", [False, True])
def test_the_planned_function_computes_the_same(view: bool) -> None:
    x = np.random.default_rng(0).standard_normal((8, 8), dtype=np.float32) / 3
    planned = Pipeline(LLVM).run(chain_of_products(view))
    machine = relax.VirtualMachine(relax.build(planned, LLVM, relax_pipeline=None), tvm.cpu())
    powers = [np.linalg.matrix_power(x, n) for n in range(8)]
    wanted = (powers[6] + np.maximum(powers[3], 0)) @ x if view else powers[7]
    np.testing.assert_allclose(machine["main"](tvm.runtime.tensor(x)).numpy(), wanted, rtol=1e-3, atol=1e-4)


def test_a_result_is_the_callers_and_not_planned() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((8, 8), "float32"))
    alloc = relax.op.builtin.alloc_tensor
    with builder.function("main", [x]):
        inside = builder.emit(alloc(relax.ShapeExpr([8, 8]), "float32", 0))
        first = builder.emit(alloc(relax.ShapeExpr([8, 8]), "float32", 0))
        second = builder.emit(alloc(relax.ShapeExpr([2, 32]), "float32", 0))
        view = builder.emit(relax.op.reshape(second, (64,)))
        builder.emit(relax.op.add(inside, x))
        builder.emit_func_output(relax.Tuple([first, view]))
    planned = tensors_of(builder.get()["main"])
    assert [(tensor.var, tensor.bytes) for tensor in planned] == [(inside, 256)]
