"""Give weights a short name before kernels are made of their readers.

Before: p_model_down_blocks_0_resnets_0_conv1_weight1 = model_params[3]
After:  w = model_params[3]

A kernel's buffers are called as the variables that it was fused from, and each load spells the name out: 0.2 MB of the
2.7 MB of Stable Diffusion 1.5's WGSL, which a browser fetches and parses.
"""

import logging

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

log = logging.getLogger(__name__)

NAME = "w"


@tvm.transform.module_pass(opt_level=0, name="ShortenNames")
class ShortenNames:
    def transform_module(self, mod: tvm.IRModule, _context: tvm.transform.PassContext) -> tvm.IRModule:
        renamer = _Renamer(mod)
        for global_var, function in mod.functions_items():
            if isinstance(function, relax.Function):
                renamer.params = function.params[-1]
                renamer.builder_.update_func(global_var, renamer.visit_expr(function))
        log.info("shortened the names of %d weights", renamer.fired)
        return renamer.builder_.get()


@mutator
class _Renamer(PyExprMutator):
    def __init__(self, mod: tvm.IRModule) -> None:
        super().__init__(mod)
        self.params: relax.Var | None = None
        self.fired = 0

    def visit_var_binding_(self, binding: relax.VarBinding) -> None:
        value = binding.value
        if not isinstance(value, relax.TupleGetItem) or not value.tuple_value.same_as(self.params):
            super().visit_var_binding_(binding)
            return
        self.fired += 1
        self.set_var_remap(binding.var, self.builder_.emit(value, NAME))
