"""Generate WGSL from scheduled PrimFuncs with TVM's pipeline, vectors in memory and every index computed once.

TVM eliminates common subexpressions before it splits kernels from their host, and then simplifies kernels once more,
which writes every subexpression out again: a quarter of the text. Here they are eliminated at the end.
"""

import re
from collections.abc import Iterator

import tvm
from tvm import tirx

from mlc_controlnet.passes.generate.add_shared_terms_first import AddSharedTermsFirst
from mlc_controlnet.passes.generate.drop_unused_bindings import DropUnusedBindings
from mlc_controlnet.passes.generate.shorten_broadcasts import ShortenBroadcasts
from mlc_controlnet.passes.generate.shorten_decoding import ShortenDecoding
from mlc_controlnet.passes.generate.use_vector_storage import UseVectorStorage

PIPELINE = "webgpu"  # the pipeline's name for `relax.build` and `tirx.build` of scheduled PrimFuncs


def _pipeline() -> tuple[tvm.transform.Pass, object, object]:
    lower, finalize_host, finalize_device = tirx.get_tir_pipeline("s_tir")

    @tvm.transform.module_pass(opt_level=0)
    def lower_without_elimination(mod: tvm.IRModule, context: tvm.transform.PassContext) -> tvm.IRModule:
        with tvm.transform.PassContext(context.opt_level, config={**context.config, "tirx.disable_cse_tir": True}):
            return lower(mod)

    def finalize_kernels() -> tvm.transform.Pass:
        eliminate = tirx.transform.CommonSubexprElim()
        shorten = [DropUnusedBindings(), ShortenDecoding(), ShortenBroadcasts()]
        return tvm.transform.Sequential(
            [UseVectorStorage(), finalize_device(), AddSharedTermsFirst(), eliminate, *shorten]
        )

    return lower_without_elimination, finalize_host, finalize_kernels


tirx.register_tir_pipeline(PIPELINE, _pipeline)


def shaders_of(module: tvm.runtime.Module) -> Iterator[tuple[str, str]]:
    """Yield the name and the WGSL of each kernel of a compiled module."""
    if module.kind == "webgpu":
        for source in re.split(r"(?=//-+\n// Function: )", module.inspect_source()):
            if found := re.search(r"// Function: (\w+)", source):
                yield found[1], source
    for imported in module.imports:
        yield from shaders_of(imported)
