"""The passes in order, by phase.

clean      what torch says twice or in pieces is said once, weights that work together are packed, and those of
           convolutions lie as kernels read them: once for all libraries of a bundle, which share their params
replace    for GPUs, large norms, upsampling, gates and changes of layout become part of the convolution or product
           beside them, and very deep attention two products; convolution, attention and norms become kernels of ours
lower      every other op becomes a PrimFunc; neighbours are fused
schedule   tuning records where there are any, rules for the rest
check      no kernel exceeds what a WebGPU device grants by default
plan       memory is planned statically; what is left is what the virtual machine runs
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax
from tvm.s_tir import dlight

from mlc_controlnet.capture import CapturedModel, Param
from mlc_controlnet.kernels.convolution_gpu import Convolution
from mlc_controlnet.kernels.matmul_gpu import MatrixProduct
from mlc_controlnet.passes.check.check_webgpu_limits import CheckWebGPULimits
from mlc_controlnet.passes.clean.cancel_permutes import CancelPermutes
from mlc_controlnet.passes.clean.drop_identities import DropIdentities
from mlc_controlnet.passes.clean.fold_pad_into_conv2d import FoldPadIntoConv2d
from mlc_controlnet.passes.clean.lay_out_weights import LayOutWeights, param_axes
from mlc_controlnet.passes.clean.pack_params import PackParams, packed_params
from mlc_controlnet.passes.clean.split_large_tables import SplitLargeTables, split_params
from mlc_controlnet.passes.plan.plan_memory import PlanMemory
from mlc_controlnet.passes.plan.write_over_operands import MarkOverwritable, WriteOverOperands
from mlc_controlnet.passes.replace.fold_group_norm_into_conv2d import FoldGroupNormIntoConv2d
from mlc_controlnet.passes.replace.fold_resize_into_conv2d import FoldResizeIntoConv2d
from mlc_controlnet.passes.replace.read_slices_in_place import ReadSlicesInPlace
from mlc_controlnet.passes.replace.split_deep_attention import SplitDeepAttention
from mlc_controlnet.passes.replace.split_large_planes import SplitLargePlanes
from mlc_controlnet.passes.replace.use_direct_conv2d import UseDirectConv2d
from mlc_controlnet.passes.replace.use_flash_attention import UseFlashAttention
from mlc_controlnet.passes.replace.use_gated_matmul import UseGatedMatmul
from mlc_controlnet.passes.replace.use_group_norm import UseGroupNorm
from mlc_controlnet.passes.replace.use_layer_norm import UseLayerNorm
from mlc_controlnet.passes.replace.use_pointwise_matmul import UsePointwiseMatmul
from mlc_controlnet.passes.schedule.apply_tuning_records import ApplyTuningRecords
from mlc_controlnet.passes.schedule.keep_loops_rolled import KeepLoopsRolled
from mlc_controlnet.passes.schedule.schedule_for_cpu import ScheduleForCPU
from mlc_controlnet.passes.schedule.share_kernels import ShareKernels
from mlc_controlnet.passes.schedule.shorten_names import ShortenNames
from mlc_controlnet.passes.schedule.use_vector_exponentials import UseVectorExponentials

CLEAN = (
    FoldPadIntoConv2d(),
    CancelPermutes(),
    DropIdentities(),
    relax.transform.CanonicalizeBindings(),
    relax.transform.EliminateCommonSubexpr(call_only=True),
    SplitLargeTables(),
    PackParams(),
    LayOutWeights(),
    relax.transform.BundleModelParams(),
)

# What saves a GPU launches and memory; a processor's schedules want convolutions and gates as they are.
GPU_FUSIONS = (
    SplitLargePlanes(),
    SplitDeepAttention(),
    FoldGroupNormIntoConv2d(),
    FoldResizeIntoConv2d(),
    UseGatedMatmul(),
    UsePointwiseMatmul(),
    ReadSlicesInPlace(),
)


@dataclass(frozen=True)
class Phase:
    name: str
    passes: tuple[tvm.transform.Pass, ...]


def phases(target: tvm.target.Target, tuning_records: Path | None) -> list[Phase]:
    """The ordered list for `target`, after phase clean; `tuning_records` is a MetaSchedule database folder."""
    transform = relax.transform
    on_gpu = "gpu" in target.keys
    return [
        Phase(
            "replace",
            (
                UseLayerNorm(target),
                *(GPU_FUSIONS if on_gpu else ()),
                UseDirectConv2d(),
                UseFlashAttention(target),
                UseGroupNorm(target),
            ),
        ),
        Phase(
            "lower",
            (
                transform.FuseTransposeMatmul(),
                transform.LegalizeOps(),
                transform.AnnotateTIROpPattern(),
                transform.FoldConstant(),
                transform.FuseOps(),
                transform.FuseTIR(),
                transform.DeadCodeElimination(),
                *((MarkOverwritable(),) if on_gpu else ()),
            ),
        ),
        Phase("schedule", _schedule(on_gpu, tuning_records)),
        Phase("check", (CheckWebGPULimits(),) if target.kind.name == "webgpu" else ()),
        Phase(
            "plan",
            (
                transform.RewriteDataflowReshape(),
                *((WriteOverOperands(),) if on_gpu else ()),
                transform.ToNonDataflow(),
                transform.RemovePurityChecking(),
                transform.CallTIRRewrite(),
                PlanMemory(),
                transform.LowerAllocTensor(),
                transform.KillAfterLastUse(),
                transform.LowerRuntimeBuiltin(),
                transform.ComputePrimValue(),
                transform.VMShapeLower(),
                transform.AttachGlobalSymbol(),
            ),
        ),
    ]


def _schedule(on_gpu: bool, tuning_records: Path | None) -> tuple[tvm.transform.Pass, ...]:
    tuned = () if tuning_records is None else (ApplyTuningRecords(tuning_records),)
    if not on_gpu:
        return (*tuned, ScheduleForCPU(), UseVectorExponentials())
    rules = dlight.ApplyDefaultSchedule(
        Convolution(),
        MatrixProduct(),
        dlight.gpu.Matmul(),
        dlight.gpu.GEMV(),
        dlight.gpu.Reduction(),
        dlight.gpu.GeneralReduction(),
        dlight.gpu.Fallback(),
    )
    return (*tuned, rules, KeepLoopsRolled(), ShortenNames(), ShareKernels())


def clean(captured: CapturedModel) -> CapturedModel:
    """Phase clean, the same for every target. The params of what it returns are those of its functions."""
    module = tvm.transform.Sequential(CLEAN, opt_level=3)(captured.module)
    params = {}
    for name, old in captured.params.items():
        parts = [old[number].part(rows) for number, rows in split_params(module[name])]
        params[name] = tuple(
            Param(tuple(rows for number in numbers for rows in parts[number].rows), axes)
            for numbers, axes in zip(packed_params(module[name]), param_axes(module[name]), strict=True)
        )
    return dataclasses.replace(captured, module=module, params=params)


def run(
    mod: tvm.IRModule,
    target: tvm.target.Target,
    tuning_records: Path | None = None,
    dump_ir: Path | None = None,
    after: str = "clean",
    until: str = "plan",
) -> tvm.IRModule:
    """Take `mod` through the phases that follow `after`, up to and including `until`: by default through all.

    Args:
        dump_ir: a folder that gets `0-clean.py`, `1-replace.py`, ... : the module as TVMScript after each phase.
    """
    ordered = [Phase("clean", ()), *phases(target, tuning_records)]
    names = [phase.name for phase in ordered]
    with target, tvm.transform.PassContext(opt_level=3):
        for index in range(names.index(after), names.index(until) + 1):
            if index > names.index(after):
                for one_pass in ordered[index].passes:
                    mod = one_pass(mod)
            if dump_ir is not None:
                _dump(mod, dump_ir / f"{index}-{names[index]}.py")
    return mod


def _dump(mod: tvm.IRModule, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(mod.script(), encoding="utf-8")
