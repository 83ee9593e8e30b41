"""The passes in order, by phase.

clean      removes what torch says twice, packs weights that are multiplied together and stores convolution weights in
           the layout that kernels read. It runs once: all libraries of a bundle share their weights
replace    puts our kernels in place of convolution, attention and norms. On GPUs it also folds large norms, upsampling,
           gates and changes of layout into the next convolution or matrix product
lower      turns every other operator into a PrimFunc and fuses neighbours
schedule   applies tuning records if there are any, and rules to all other PrimFuncs
check      rejects a kernel that exceeds what a WebGPU device grants by default
plan       plans memory statically and lowers to what the virtual machine runs
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import tvm
from tvm import relax

from mlc_controlnet.capture import CapturedModel, Param
from mlc_controlnet.components import OF_WEIGHTS_OF
from mlc_controlnet.passes.check.check_webgpu_limits import CheckWebGPULimits
from mlc_controlnet.passes.clean.cancel_permutes import CancelPermutes
from mlc_controlnet.passes.clean.drop_identities import DropIdentities
from mlc_controlnet.passes.clean.fold_pad_into_conv2d import FoldPadIntoConv2d
from mlc_controlnet.passes.clean.lay_out_weights import LayOutWeights
from mlc_controlnet.passes.clean.pack_params import PackParams
from mlc_controlnet.passes.clean.param_sources import ParamSource, param_sources
from mlc_controlnet.passes.clean.split_large_tables import SplitLargeTables
from mlc_controlnet.passes.lower.end_wide_kernels import EndWideKernels
from mlc_controlnet.passes.lower.fuse_decoding import FuseDecoding
from mlc_controlnet.passes.plan.plan_memory import PlanMemory
from mlc_controlnet.passes.plan.write_over_operands import MarkOverwritable, WriteOverOperands
from mlc_controlnet.passes.replace.fold_group_norm_into_conv2d import FoldGroupNormIntoConv2d
from mlc_controlnet.passes.replace.fold_resize_into_conv2d import FoldResizeIntoConv2d
from mlc_controlnet.passes.replace.read_elements_in_place import ReadElementsInPlace
from mlc_controlnet.passes.replace.read_slices_in_place import ReadSlicesInPlace
from mlc_controlnet.passes.replace.reshape_decoding import ReshapeDecoding
from mlc_controlnet.passes.replace.split_deep_attention import SplitDeepAttention
from mlc_controlnet.passes.replace.split_deep_conv2d import SplitDeepConv2d
from mlc_controlnet.passes.replace.split_large_planes import SplitLargePlanes
from mlc_controlnet.passes.replace.use_direct_conv2d import UseDirectConv2d
from mlc_controlnet.passes.replace.use_flash_attention import UseFlashAttention
from mlc_controlnet.passes.replace.use_gated_matmul import UseGatedMatmul
from mlc_controlnet.passes.replace.use_group_norm import UseGroupNorm
from mlc_controlnet.passes.replace.use_layer_norm import UseLayerNorm
from mlc_controlnet.passes.replace.use_pointwise_matmul import UsePointwiseMatmul
from mlc_controlnet.passes.replace.use_winograd_conv2d import UseWinogradConv2d
from mlc_controlnet.passes.replace.widen_weights import WidenWeights
from mlc_controlnet.passes.schedule.apply_tuning_records import ApplyTuningRecords
from mlc_controlnet.passes.schedule.keep_loops_rolled import KeepLoopsRolled
from mlc_controlnet.passes.schedule.schedule_for_cpu import ScheduleForCPU
from mlc_controlnet.passes.schedule.schedule_for_gpu import ScheduleForGPU
from mlc_controlnet.passes.schedule.share_kernels import ShareKernels
from mlc_controlnet.passes.schedule.shorten_names import ShortenNames
from mlc_controlnet.passes.schedule.tuning_records import TuningRecords
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

# These save launches and memory.
GPU_FUSIONS = (
    SplitLargePlanes(),
    SplitDeepAttention(),
    FoldGroupNormIntoConv2d(),
    FoldResizeIntoConv2d(on_gpu=True),
    UseGatedMatmul(),
    UsePointwiseMatmul(),
    SplitDeepConv2d(),
    ReadSlicesInPlace(),
    ReadElementsInPlace(),
)


@dataclass(frozen=True)
class Phase:
    """A name and the passes that run under it."""

    name: str
    passes: tuple[tvm.transform.Pass, ...]


def clean(captured: CapturedModel) -> CapturedModel:
    """Run phase clean, which is the same for every target; the params returned are those of the new functions."""
    module = tvm.transform.Sequential(CLEAN, opt_level=3)(captured.module)

    def params_of(function: str, component: str) -> tuple[Param, ...]:
        return tuple(_param(source, captured.params[component]) for source in param_sources(module[function]))

    params = {name: params_of(captured.function_of(name), name) for name in captured.params}
    for function, component in captured.others.items():
        assert params_of(function, component) == params[component], f"{function} takes the params of {component}"
    for component, owner in OF_WEIGHTS_OF.items():
        strange = set(params.get(component, ())) - set(params.get(owner, ()))
        assert not strange, f"{component} reads params that {owner} has not: {sorted(map(str, strange))}"
    return dataclasses.replace(captured, module=module, params=params)


def _param(source: ParamSource, captured: tuple[Param, ...]) -> Param:
    """Return the param that `source` describes, made of the checkpoint's tensors that the captured params are."""
    rows = [row for run in source.runs for row in captured[run.number].part(run.rows).rows]
    return Param(tuple(rows), source.axes)


class Pipeline:
    """The phases after clean for one target, in order.

    Args:
        target: the device that the kernels run on.
        tuning_records: what searches decided; None to schedule only by rules.
        dump_ir: a folder that gets `0-clean.py`, `1-replace.py`, ...: the module as TVMScript after each phase.
    """

    def __init__(
        self, target: tvm.target.Target, tuning_records: TuningRecords | None = None, dump_ir: Path | None = None
    ) -> None:
        self.target = target
        self.tuning_records = tuning_records
        self.phases = _phases(target, tuning_records)
        self.dump_ir = dump_ir

    def walk(self, cleaned: tvm.IRModule) -> Iterator[tuple[str, tvm.IRModule]]:
        """Yield the name of each phase and the module after it, from phase clean to phase plan.

        A phase runs when its result is asked for.

        Raises:
            ValueError: in phase check, a kernel exceeds what a WebGPU device grants by default.
        """
        module = cleaned
        for index, phase in enumerate((Phase("clean", ()), *self.phases)):
            with self.target, tvm.transform.PassContext(opt_level=3):
                for one_pass in phase.passes:
                    module = one_pass(module)
            if self.dump_ir is not None:
                _dump(module, self.dump_ir / f"{index}-{phase.name}.py")
            yield phase.name, module

    def run(self, cleaned: tvm.IRModule, until: str = "plan") -> tvm.IRModule:
        """Return the module after phase `until`. Raises ValueError as `walk` does."""
        for name, module in self.walk(cleaned):
            if name == until:
                return module
        raise KeyError(until)


def _phases(target: tvm.target.Target, tuning_records: TuningRecords | None) -> list[Phase]:
    """List the phases after clean for `target`."""
    transform = relax.transform
    on_gpu = "gpu" in target.keys
    return [
        Phase(
            "replace",
            (
                UseLayerNorm(target),
                *(GPU_FUSIONS if on_gpu else _for_processor(target)),
                UseDirectConv2d(),
                UseFlashAttention(target),
                UseGroupNorm(target),
                ReshapeDecoding(),
            ),
        ),
        Phase(
            "lower",
            (
                transform.FuseTransposeMatmul(),
                transform.LegalizeOps(),
                transform.AnnotateTIROpPattern(),
                FuseDecoding(),
                transform.FoldConstant(),
                *((EndWideKernels(),) if on_gpu else ()),
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


def _for_processor(target: tvm.target.Target) -> tuple[tvm.transform.Pass, ...]:
    return WidenWeights(), FoldResizeIntoConv2d(on_gpu=False), UseWinogradConv2d(target)


def _schedule(on_gpu: bool, tuning_records: TuningRecords | None) -> tuple[tvm.transform.Pass, ...]:
    tuned = () if tuning_records is None else (ApplyTuningRecords(tuning_records),)
    if not on_gpu:
        return (*tuned, ScheduleForCPU(), UseVectorExponentials())
    return (*tuned, ScheduleForGPU(), KeepLoopsRolled(), ShortenNames(), ShareKernels())


def _dump(mod: tvm.IRModule, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(mod.script(), encoding="utf-8")
