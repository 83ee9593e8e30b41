"""Pack the weights of functions: each becomes two params, and is decoded before it is read.

Before: main(x, params): w = params[3]; y = matmul(x, w)
After:  main(x, params): words = params[3]; table = params[4]; w = call_tir(decode, (words, table)); y = matmul(x, w)

`FuseDecoding` makes each decoding a part of the kernel that reads the weight. Params after a packed one move up.
"""

import dataclasses
from collections.abc import Mapping

import tvm
from tvm import relax
from tvm.relax.expr_functor import mutator

from mlc_controlnet.capture import CapturedModel, Param, Quantizer, packed
from mlc_controlnet.passes.matching import shape_of
from mlc_controlnet.passes.quantize.decoding_calls import emit_decoding
from mlc_controlnet.passes.quantize.param_rewriter import ParamRewriter, param_types
from mlc_controlnet.quantize.scheme import Scheme


def pack_weights(captured: CapturedModel, schemes: Mapping[Param, Scheme], quantizer: Quantizer) -> CapturedModel:
    """Return the model with packed weights.

    Args:
        captured: after phase clean.
        schemes: of the params to pack, of those that `find_weights` names; components that share a function have the
            same ones.
        quantizer: shared by the models of all dtypes of a build.
    """
    module = captured.module.clone()
    of_functions = {captured.function_of(name): own for name, own in captured.params.items()}
    of_functions |= {function: captured.params[component] for function, component in captured.others.items()}
    for name, own in of_functions.items():
        numbered = {number: schemes[param] for number, param in enumerate(own) if param in schemes}
        if numbered:
            module = tvm.transform.Sequential([_PackWeights(name, numbered)])(module)

    def parts(param: Param) -> tuple[Param, ...]:
        return packed(param, schemes[param], quantizer) if param in schemes else (param,)

    params = {name: tuple(part for param in own for part in parts(param)) for name, own in captured.params.items()}
    return dataclasses.replace(captured, module=module, params=params)


@tvm.transform.module_pass(opt_level=0, name="PackWeights")
class _PackWeights:
    """`schemes`: number of a param -> its scheme."""

    def __init__(self, function: str, schemes: Mapping[int, Scheme]) -> None:
        self.function = function
        self.schemes = dict(schemes)

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        global_var = mod.get_global_var(self.function)
        packer = _Packer(mod, mod[global_var], self.schemes)
        packer.builder_.update_func(global_var, packer.rewritten())
        return packer.builder_.get()


@mutator
class _Packer(ParamRewriter):
    def __init__(self, mod: tvm.IRModule, function: relax.Function, schemes: Mapping[int, Scheme]) -> None:
        self.schemes = schemes
        types: list[relax.Type] = []
        self.first: dict[int, int] = {}  # number of an old param -> of its first part
        for number, ty in enumerate(param_types(function)):
            self.first[number] = len(types)
            scheme = schemes.get(number)
            types += [ty] if scheme is None else _types(scheme, ty.dtype)
        super().__init__(mod, function, types)

    def replacement(self, number: int, var: relax.Var) -> relax.Expr:
        first = relax.TupleGetItem(self.bundled, self.first[number])
        if number not in self.schemes:
            return first
        words = self.builder_.emit(first)
        table = self.builder_.emit(relax.TupleGetItem(self.bundled, self.first[number] + 1))
        return emit_decoding(self.builder_, words, table, self.schemes[number], shape_of(var))


def _types(scheme: Scheme, dtype: object) -> list[relax.TensorType]:
    """Return the types of a packed weight's words and table; a table has the dtype of the library."""
    return [relax.TensorType((scheme.words,), "uint32"), relax.TensorType(scheme.table_shape, dtype)]
