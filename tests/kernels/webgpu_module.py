"""Runs a scheduled Relax function for real, kernel by kernel, on a software WebGPU device."""

from pathlib import Path

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx

from tests.kernels.webgpu_device import run_on_webgpu


def run_module_on_webgpu(mod: tvm.IRModule, inputs: list[np.ndarray], folder: Path) -> np.ndarray:
    """What `main` returns: one tensor. Its bindings are reshapes and calls of scheduled PrimFuncs."""
    function = mod["main"]
    buffers = {var: f"buffer{index}" for index, var in enumerate(function.params)}
    arrays = dict(zip(buffers.values(), inputs, strict=True))
    kernels, written = [], {}
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if value.op == tvm.ir.Op.get("relax.reshape"):
                buffers[binding.var] = buffers[value.args[0]]
                continue
            in_place = value.op == tvm.ir.Op.get("relax.call_tir_inplace")
            assert in_place or value.op == tvm.ir.Op.get("relax.call_tir"), value
            kernel, arguments = value.args[0], list(value.args[1])
            if in_place:
                (index,) = value.attrs.inplace_indices
                buffers[binding.var] = buffers[arguments[int(index)]]
            else:
                buffers[binding.var] = f"buffer{len(buffers)}"
                shape = tuple(int(size) for size in binding.var.ty.shape)
                written[buffers[binding.var]] = np.full(shape, np.nan, str(binding.var.ty.dtype))
                arguments.append(binding.var)
            kernels.append(_renamed(mod[kernel], [buffers[argument] for argument in arguments]))
    result = function.body.body
    run_on_webgpu(kernels, arrays, written, folder)
    return written[buffers[result]]


def _renamed(func: tirx.PrimFunc, names: list[str]) -> tirx.PrimFunc:
    """The same kernel with its parameters called `names`."""
    new = {old: tvm.ir.Var(name, old.ty) for old, name in zip(func.params, names, strict=True)}
    return tvm_ffi.structural_map(func, (tvm.ir.Var, lambda var: new.get(var, var)))
