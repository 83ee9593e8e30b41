"""Write a kernel's result over an operand that nothing reads afterwards.

Before: y = call_tir(conv2d_add, (x, weight, residual)), the last reader of residual
After:  y = call_tir_inplace(conv2d_add, (x, weight, residual), inplace_indices=[2])

A residual is read where the sum is stored, so both can be one tensor, and the plan needs one plane less. These are two
passes, because a schedule needs its result apart from its operands: `MarkOverwritable` looks at the lowered kernels
before they are scheduled, and `WriteOverOperands` rewrites the scheduled ones.
"""

import logging
from collections.abc import Iterator

import tvm
import tvm_ffi
from tvm import relax, tirx
from tvm.s_tir import SBlock, SBlockRealize

from mlc_controlnet.kernels.marks import is_scheduled, mark_overwritable, overwritable
from mlc_controlnet.passes.matching import is_call
from mlc_controlnet.passes.rewriting import Site, rewrite_calls

log = logging.getLogger(__name__)


@tvm.transform.module_pass(opt_level=0, name="MarkOverwritable")
class MarkOverwritable:
    """Mark on each PrimFunc the params that its result may be written over, element by element."""

    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        mod = mod.clone()  # assigning below would change the caller's module
        for global_var, function in mod.functions_items():
            if isinstance(function, tirx.PrimFunc) and not is_scheduled(function):
                mod[global_var] = mark_overwritable(function, _overwritable_params(function))
        return mod


def _overwritable_params(function: tirx.PrimFunc) -> list[int]:
    """List the params of the result's type whose element [i] is read only for the result's element [i]."""
    *params, result = function.params
    blocks = list(_blocks(function))

    def only_into_result(buffer: tvm.ir.Var) -> bool:
        if buffer.same_as(result):
            return True
        reading = [block for block in blocks if any(region.source.same_as(buffer) for region in block.reads)]
        return bool(reading) and all(
            _is_pointwise(block, buffer) and only_into_result(block.writes[0].source) for block in reading
        )

    return [
        index
        for index, param in enumerate(params)
        if tvm_ffi.structural_equal(param.ty, result.ty) and only_into_result(param)
    ]


def _blocks(function: tirx.PrimFunc) -> Iterator[SBlock]:
    """List all blocks but the root."""
    found: list[SBlock] = []
    tvm_ffi.structural_walk(function.body, (SBlock, found.append), order="pre")
    return (block for block in found if block.iter_vars)


def _is_pointwise(block: SBlock, buffer: tvm.ir.Var) -> bool:
    """Return whether the block reads the buffer only at the indices at which it writes its one result."""
    if len(block.writes) != 1 or any(axis.iter_type != tirx.IterVar.DataPar for axis in block.iter_vars):
        return False
    written = [dim.min for dim in block.writes[0].region]
    places = [[dim.min for dim in region.region] for region in block.reads if region.source.same_as(buffer)]
    extents = [dim.extent for region in (*block.reads, *block.writes) for dim in region.region]
    return all(tvm_ffi.structural_equal(place, written) for place in places) and all(
        isinstance(extent, tirx.IntImm) and int(extent) == 1 for extent in extents
    )


@tvm.transform.module_pass(opt_level=0, name="WriteOverOperands")
class WriteOverOperands:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        rule = _Rule(mod)
        rewritten, fired = rewrite_calls(mod, rule, rule.begin)
        log.info("wrote %d results over an operand", fired)
        return relax.transform.DeadCodeElimination()(rewritten)


class _Rule:
    def __init__(self, mod: tvm.IRModule) -> None:
        self.mod = mod
        self.free: dict[relax.Var, set[relax.Var]] = {}
        self.kernels: dict[tuple[tvm.ir.GlobalVar, int], tvm.ir.GlobalVar] = {}

    def begin(self, function: relax.Function) -> None:
        self.free = _free_operands(function)

    def __call__(self, call: relax.Call, site: Site) -> relax.Expr | None:
        if not is_call(call, "relax.call_tir") or _threads_share_a_sum(self.mod[call.args[0]]):
            return None
        kernel, operands = site.original.args[:2]
        free = self.free.get(site.variable, set())
        indices = [index for index in overwritable(self.mod[kernel]) if operands[index] in free]
        if not indices:
            return None
        index = indices[0]
        if (kernel, index) not in self.kernels:
            in_place = _in_place(self.mod[kernel], index)
            self.kernels[kernel, index] = site.builder.add_func(in_place, f"{kernel.name_hint}_in_place")
        return relax.op.call_tir_inplace(self.kernels[kernel, index], call.args[1], index, call.ty)


def _threads_share_a_sum(function: tirx.PrimFunc) -> bool:
    """Return whether threads reduce together: then all of them store the result, some of them after others."""
    threads: set[tvm.ir.Var] = set()
    shared: list[SBlockRealize] = []

    def note_thread(loop: tirx.For) -> None:
        if loop.thread_binding is not None and loop.thread_binding.thread_tag.startswith("threadIdx"):
            threads.add(loop.loop_var)

    def note_sum(realize: SBlockRealize) -> None:
        axes = zip(realize.block.iter_vars, realize.iter_values, strict=True)
        summed = [value for axis, value in axes if axis.iter_type == tirx.IterVar.CommReduce]
        if any(variable in threads for value in summed for variable in tirx.analysis.undefined_vars(value)):
            shared.append(realize)

    tvm_ffi.structural_walk(function.body, (tirx.For, note_thread), order="pre")
    tvm_ffi.structural_walk(function.body, (SBlockRealize, note_sum), order="pre")
    return bool(shared)


def _in_place(function: tirx.PrimFunc, index: int) -> tirx.PrimFunc:
    """Return the kernel with its result in param `index`, without the attributes of its own name."""
    *params, result = function.params
    operand = params[index]
    body = tvm_ffi.structural_map(function.body, (tvm.ir.Var, lambda var: operand if var.same_as(result) else var))
    return tirx.PrimFunc(params, body, function.ret_type, function.attrs).without_attr("global_symbol")


def _free_operands(function: relax.Function) -> dict[relax.Var, set[relax.Var]]:
    """Map each variable that stays inside the function to the operands of its value that nothing reads later.

    Those are tensors that kernels made, not params; a reshape is the same tensor.
    """
    bindings = [binding for block in function.body.blocks for binding in block.bindings]
    tensor_of: dict[relax.Var, relax.Var] = {}  # view -> the tensor that it shows
    last_reader: dict[relax.Var, relax.Var | None] = {}  # tensor -> the variable of its last reader; None: the caller
    made = set()
    for binding in bindings:
        read = _variables(binding.value)
        same = is_call(binding.value, "relax.reshape") or isinstance(binding.value, relax.Var)
        tensor_of[binding.var] = tensor_of.get(read[0], read[0]) if same else binding.var
        if is_call(binding.value, "relax.call_tir"):
            made.add(binding.var)
        reader = None if isinstance(binding.value, relax.Tuple) else binding.var
        last_reader |= {tensor_of.get(variable, variable): reader for variable in read}
    last_reader |= {tensor_of.get(variable, variable): None for variable in _variables(function.body.body)}

    free: dict[relax.Var, set[relax.Var]] = {}
    for binding in bindings:
        if binding.var not in made or last_reader.get(binding.var, binding.var) is None:
            continue
        operands = [operand for operand in binding.value.args[1] if isinstance(operand, relax.Var)]
        tensors = [tensor_of.get(operand, operand) for operand in operands]
        free[binding.var] = {
            operand
            for operand, tensor in zip(operands, tensors, strict=True)
            if tensor in made and last_reader[tensor] == binding.var and tensors.count(tensor) == 1
        }
    return free


def _variables(expr: relax.Expr) -> list[relax.Var]:
    """List the variables that `expr` reads, each once."""
    return list(relax.analysis.free_vars(expr))
