import numpy as np
import pytest
import torch
import tvm
from tvm import relax

from mlc_controlnet.capture import Param
from mlc_controlnet.passes.clean.param_sources import ParamSource, Run, param_sources
from mlc_controlnet.passes.clean.split_large_tables import SplitLargeTables
from tests.passes.evaluate import evaluate


def looked_up(read_otherwise: bool = False) -> tvm.IRModule:
    """Three rows of a table of 7 x 4, plus a bias."""
    builder = relax.BlockBuilder()
    shapes = {"ids": ((1, 3), "int32"), "bias": ((4,), "float32"), "table": ((7, 4), "float32")}
    ids, bias, table = (relax.Var(name, relax.TensorType(*kind)) for name, kind in shapes.items())
    with builder.function("main", [ids, bias, table], attrs={"num_input": 1, "global_symbol": "main"}):
        with builder.dataflow():
            y = builder.emit(relax.op.add(relax.op.take(table, ids, axis=0, mode="clip"), bias))
            if read_otherwise:
                y = builder.emit(relax.op.add(y, relax.op.mean(table)))
            result = builder.emit_output(y)
        builder.emit_func_output(result)
    return relax.transform.Normalize()(builder.get())


@pytest.mark.parametrize("ids", [[0, 3, 4], [6, 2, 5], [-1, 7, 99]], ids=str)
def test_two_tables_give_the_rows_of_one(ids: list[int]) -> None:
    before = looked_up()
    after = SplitLargeTables(largest_table=27)(before)
    rng = np.random.default_rng(0)
    bias, table = rng.standard_normal(4, dtype=np.float32), rng.standard_normal((7, 4), dtype=np.float32)
    wanted = table[np.clip(ids, 0, 6)][None] + bias
    tokens = np.array([ids], "int32")
    np.testing.assert_array_equal(evaluate(before, tokens, bias, table), wanted)
    np.testing.assert_array_equal(evaluate(after, tokens, bias, table[:4], table[4:]), wanted)


def test_the_params_are_rows_of_the_old_ones() -> None:
    sources = param_sources(SplitLargeTables(largest_table=27)(looked_up())["main"])
    assert [source.runs for source in sources] == [(Run(0),), (Run(1, range(4)),), (Run(1, range(4, 7)),)]
    table = torch.arange(28).reshape(7, 4)
    read = [Param.whole("tokens").part(source.runs[0].rows).read({"tokens": table}) for source in sources]
    assert torch.equal(read[0], table)
    assert torch.equal(torch.cat(read[1:]), table)


@pytest.mark.parametrize(("largest", "otherwise"), [(28, False), (27, True)], ids=["small", "read by another op"])
def test_any_other_table_stays(largest: int, otherwise: bool) -> None:
    before = looked_up(otherwise)
    after = SplitLargeTables(largest)(before)
    assert param_sources(after["main"]) == [ParamSource((Run(0),)), ParamSource((Run(1),))]
    assert [param.name for param in after["main"].params] == ["ids", "bias", "table"]
