"""What a module computes, and of which ops it is made."""

import numpy as np
import tvm
from tvm import relax
from tvm.relax import transform

from tests.kernels.webgpu_device import WEBGPU


def evaluate(mod: tvm.IRModule, *inputs: np.ndarray) -> np.ndarray:
    """The result of `main` on this machine's processor, without any pass of ours."""
    vm = relax.VirtualMachine(tvm.compile(mod, target="llvm"), tvm.cpu())
    return vm["main"](*(tvm.runtime.tensor(value) for value in inputs)).numpy()


def fuse(mod: tvm.IRModule) -> tvm.IRModule:
    """Take a module to fused PrimFuncs for WebGPU, as phase lower does, without a pass of ours."""
    passes = [
        transform.LegalizeOps(),
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.DeadCodeElimination(),
    ]
    with WEBGPU:
        return tvm.transform.Sequential(passes)(mod)


def ops(function: relax.Function) -> set[str]:
    names = set()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
            names.add(expr.op.name)

    relax.analysis.post_order_visit(function, visit)
    return names
