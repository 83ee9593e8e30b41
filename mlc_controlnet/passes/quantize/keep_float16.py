"""Leave weights in float16, as a bundle stores them, in the memory of a library that computes in float32.

Before: main(x, params): w = params[3]; y = matmul(x, w)                        # params[3] in float32
After:  main(x, params): w16 = params[3]; w = astype(w16, "float32"); y = matmul(x, w)

`WidenWeights` and `FuseDecoding` make each widening a part of the kernel that reads the weight. The numbers are the
same, in half of the bytes. It is for processors that convert vectors of float16, as all of INSTRUCTION_SETS do.
Vectors stay in float32, such as biases and those of norms: they are a thousandth of a model. So do the tables of packed
weights, which kernels read one number at a time.
"""

import dataclasses
import logging
from collections.abc import Collection, Mapping

import tvm
from tvm import relax
from tvm.relax.expr_functor import mutator

from mlc_controlnet.capture import CapturedModel, PackedParam
from mlc_controlnet.capture.merge import merge_module
from mlc_controlnet.components import is_matrix
from mlc_controlnet.passes.quantize.param_rewriter import ParamRewriter, param_types

log = logging.getLogger(__name__)


def keep_float16(captured: CapturedModel) -> CapturedModel:
    """Return the model, captured in float32, whose functions read its matrices in float16.

    captured: after phase clean, with the Control-LoRAs' shared weights and with packed weights. Functions that make
        weights of others read and write float16 too.
    """
    assert captured.dtype == "float32" and not captured.memory_dtype, "narrow the weights of a float32 model once"
    functions = {captured.function_of(name): own for name, own in captured.params.items()}
    functions |= {function: captured.params[component] for function, component in captured.others.items()}
    present = {global_var.name_hint for global_var in captured.module.get_global_vars()}
    module = read_float16(
        captured.module,
        {
            name: {number for number, param in enumerate(own) if isinstance(param, PackedParam)}
            for name, own in functions.items()
            if name in present
        },
    )
    merges = merge_module((merge.shape for merge in captured.merges.values()), "float16")
    for made, function in merges.functions_items():
        module.update_func(module.get_global_var(made.name_hint), function)
    return dataclasses.replace(captured, module=module, memory_dtype="float16")


def read_float16(module: tvm.IRModule, packed: Mapping[str, Collection[int]]) -> tvm.IRModule:
    """Return the module, after phase clean, whose functions read their matrices in float16.

    packed: function -> the numbers of its params that are words or tables, which stay as they are.
    """
    return tvm.transform.Sequential([_KeepFloat16(name, numbers) for name, numbers in packed.items()])(module.clone())


@tvm.transform.module_pass(opt_level=0, name="KeepFloat16")
class _KeepFloat16:
    """`packed`: numbers of the params that are words or tables."""

    def __init__(self, function: str, packed: Collection[int]) -> None:
        self.function = function
        self.packed = packed

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        global_var = mod.get_global_var(self.function)
        narrower = _Narrower(mod, mod[global_var], self.packed)
        narrower.builder_.update_func(global_var, narrower.rewritten())
        log.info("%s: %d weights are read in float16", self.function, len(narrower.narrowed))
        return narrower.builder_.get()


@mutator
class _Narrower(ParamRewriter):
    def __init__(self, mod: tvm.IRModule, function: relax.Function, packed: Collection[int]) -> None:
        old = param_types(function)
        self.narrowed = {number for number, ty in enumerate(old) if number not in packed and is_matrix(ty.shape)}
        new = [relax.TensorType(ty.shape, "float16") if n in self.narrowed else ty for n, ty in enumerate(old)]
        super().__init__(mod, function, new)

    def replacement(self, number: int, var: relax.Var) -> relax.Expr:
        value: relax.Expr = relax.TupleGetItem(self.bundled, number)
        return relax.op.astype(self.builder_.emit(value), "float32") if number in self.narrowed else value
