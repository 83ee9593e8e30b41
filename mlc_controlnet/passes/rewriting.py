"""What all passes do that rewrite Relax functions call by call."""

import tvm
from tvm import relax


def rewrite(mod: tvm.IRModule, mutator: relax.PyExprMutator) -> tvm.IRModule:
    """`mod` with each Relax function as `mutator`, which was made for it, has it; without what nobody reads then."""
    for global_var, function in mod.functions_items():
        if isinstance(function, relax.Function):
            rewritten = relax.analysis.remove_all_unused(mutator.visit_expr(function))
            mutator.builder_.update_func(global_var, rewritten)
    return mutator.builder_.get()
