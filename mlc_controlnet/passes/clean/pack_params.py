"""Join linear layers that read the same input into one layer with one weight.

Before: main(x, w0, w1, b0, b1): y0 = add(astype(matmul(x, permute_dims(w0))), b0); y1 = the same of w1 and b1
After:  main(x, w, b): y = add(astype(matmul(x, permute_dims(w))), b)
        y0 = strided_slice(y, [-1], [0], [N0]); y1 = strided_slice(y, [-1], [N0], [N0 + N1])

The weights are params of the function, [N, K], that nothing else reads. The cast and the bias are optional, but the
same for all. `param_sources` says which params were joined along axis 0.

Functions can share tensors: a UNet for another picture size, or one that leaves out its deep blocks. Then they also
share the packed params, because only layers whose weights the same functions read are joined.

In Stable Diffusion these are to_q, to_k and to_v of each self-attention, to_k and to_v of all cross-attentions, which
read the same context, and the projections of the time embedding of all residual blocks. This saves launches, and alone
each of these products of 77 rows or of one row is too small to fill a GPU.
"""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from mlc_controlnet.passes.clean.param_sources import (
    inputs_of,
    join,
    param_sources,
    readers_of_tensors,
    tensors_of,
    with_params,
)
from mlc_controlnet.passes.matching import axes_of, is_call, shape_of

log = logging.getLogger(__name__)

LARGEST_WEIGHT = 128 * 2**20 // 4  # numbers: WebGPU's default binding of 128 MiB, in a float32 library


@tvm.transform.module_pass(opt_level=0, name="PackParams")
class PackParams:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        mod = mod.clone()
        readers = readers_of_tensors(mod)
        for global_var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                packs = _find_packs(function, readers)
                mod.update_func(global_var, _pack(function, packs))
                log.info("%s: %d linear layers are %d", global_var.name_hint, sum(map(len, packs)), len(packs))
        return mod


@dataclass(frozen=True)
class Linear:
    """One linear layer and the variables that it binds."""

    x: relax.Var
    weight: relax.Var
    transposed: relax.Var
    product: relax.Var
    cast: relax.Var | None
    bias: relax.Var | None
    output: relax.Var  # the last of them

    @property
    def kind(self) -> tuple[object, ...]:
        """Layers of equal kinds can be packed."""
        return (self.x, shape_of(self.weight)[1], *self.dtypes, self.bias is None)

    @property
    def dtypes(self) -> tuple[str, str]:
        """The dtypes of the product and of the layer's output."""
        return str(self.product.ty.dtype), str(self.output.ty.dtype)

    @property
    def width(self) -> int:
        """Output features."""
        return shape_of(self.weight)[0]


Pack = tuple[Linear, ...]


def _find_packs(function: relax.Function, readers: Mapping[str, frozenset[str]]) -> list[Pack]:
    """Find groups of linear layers that can become one layer, at least two in each."""
    kinds: dict[tuple[object, ...], list[list[Linear]]] = {}
    sources = dict(zip(function.params[inputs_of(function) :], param_sources(function), strict=True))
    for linear in _linears(function):
        (tensor,) = tensors_of(function, sources[linear.weight])
        packs = kinds.setdefault((*linear.kind, readers[tensor]), [[]])
        depth = shape_of(linear.weight)[1]
        if sum(other.width for other in (*packs[-1], linear)) * depth > LARGEST_WEIGHT:
            packs.append([])
        packs[-1].append(linear)
    return [tuple(pack) for packs in kinds.values() for pack in packs if len(pack) > 1]


def _linears(function: relax.Function) -> Iterator[Linear]:
    params = set(function.params)
    for block in function.body.blocks:
        if not isinstance(block, relax.DataflowBlock):
            continue
        value_of = {binding.var: binding.value for binding in block.bindings}
        readers = relax.analysis.udchain(block)

        def only_reader(
            variable: relax.Var, op: str, value_of: dict = value_of, readers: dict = readers
        ) -> relax.Var | None:
            """Return the variable bound to the only call that reads `variable`, if that call is of this op."""
            users = list(readers.get(variable, ()))
            inside = variable in params or isinstance(variable, relax.DataflowVar)
            return users[0] if inside and len(users) == 1 and is_call(value_of.get(users[0]), op) else None

        for product, value in value_of.items():
            if not is_call(value, "relax.matmul") or not all(isinstance(operand, relax.Var) for operand in value.args):
                continue
            x, transposed = value.args
            permute = value_of.get(transposed)
            if not is_call(permute, "relax.permute_dims") or axes_of(permute) != [1, 0] or x == transposed:
                continue
            (weight,) = permute.args
            if weight not in params or only_reader(weight, "relax.permute_dims") is None:
                continue
            if only_reader(transposed, "relax.matmul") is None:
                continue
            cast = only_reader(product, "relax.astype")
            unbiased = product if cast is None else cast
            output = only_reader(unbiased, "relax.add")
            bias = value_of[output].args[1] if output is not None else None
            if bias not in params or len(shape_of(bias)) != 1 or only_reader(bias, "relax.add") is None:
                output, bias = unbiased, None
            yield Linear(x, weight, transposed, product, cast, bias, output)


def _pack(function: relax.Function, packs: list[Pack]) -> relax.Function:
    joined = [[linear.weight for linear in pack] for pack in packs]
    joined += [
        [linear.bias for linear in pack if linear.bias is not None] for pack in packs if pack[0].bias is not None
    ]
    parts = {params[0]: params for params in joined}
    packed = {first: _join(params) for first, params in parts.items()}
    gone = {param for params in joined for param in params[1:]}
    source_of = dict(zip(function.params[inputs_of(function) :], param_sources(function), strict=True))
    params = {
        packed.get(param, param): join(source_of[part] for part in parts.get(param, [param]))
        for param in source_of
        if param not in gone
    }
    return with_params(function, _Packer(packs, packed).visit_expr(function), params)


def _join(params: list[relax.Var]) -> relax.Var:
    rows = sum(shape_of(param)[0] for param in params)
    return relax.Var(params[0].name, relax.TensorType((rows, *shape_of(params[0])[1:]), params[0].ty.dtype))


@mutator
class _Packer(PyExprMutator):
    """`packed`: the first weight and the first bias of each pack -> the param that replaces it."""

    def __init__(self, packs: list[Pack], packed: dict[relax.Var, relax.Var]) -> None:
        super().__init__()
        self.packed = packed
        self.first_at = {pack[0].transposed: pack for pack in packs}
        self.inside = {
            variable
            for pack in packs
            for linear in pack
            for variable in (linear.transposed, linear.product, linear.cast)
            if variable is not None and variable != linear.output
        }
        self.slices: dict[relax.Var, relax.Call] = {}  # output -> the slice that replaces it

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        pack = self.first_at.get(binding.var)
        if pack is not None:
            self._emit(pack)
        if binding.var in self.slices:
            value = self.builder_.normalize(self.slices[binding.var])
            self.builder_.emit_normalized(relax.VarBinding(binding.var, value))
        elif binding.var not in self.inside:
            super().visit_var_binding_(binding)

    def _emit(self, pack: Pack) -> None:
        """Emit all layers of a group at once, at the place of its first layer."""
        emit, first = self.builder_.emit, pack[0]
        transposed = emit(relax.op.permute_dims(self.packed[first.weight]))
        y = emit(relax.op.matmul(self.visit_expr(first.x), transposed, out_dtype=first.dtypes[0]))
        if first.cast is not None:
            y = emit(relax.op.astype(y, first.dtypes[1]))
        if first.bias is not None:
            y = emit(relax.op.add(y, self.packed[first.bias]))
        start, axis = 0, len(y.ty.shape) - 1
        for linear in pack:
            stop = start + linear.width
            self.slices[linear.output] = relax.op.strided_slice(y, axes=[axis], begin=[start], end=[stop])
            start = stop
