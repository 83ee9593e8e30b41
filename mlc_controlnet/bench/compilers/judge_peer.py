"""Judges onnxruntime-web's shaders of single operations and of a whole step, in the forms that are fastest there."""

import copy
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import nn

from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.full_size import stable_diffusion, subject_of_step
from mlc_controlnet.bench.compilers.judge import Subject, judge, launched_by_peer
from mlc_controlnet.bench.compilers.judgement import Judgement
from mlc_controlnet.bench.compilers.peer import PeerLaunch, PeerModel, record_peer
from mlc_controlnet.bench.compilers.peer_operators import export_fused, export_without_values, fuse
from mlc_controlnet.bench.operations.cases import DTYPES, operation_cases
from mlc_controlnet.bench.operations.onnx_peer import export_onnx
from mlc_controlnet.capture import example_inputs, wrap
from mlc_controlnet.checkpoint import Checkpoint

FUSED = "_fused"  # after the name of an operation in the provider's own operators
LEAST_DONE = 0.95  # of the multiply-adds that an operation needs
PRODUCT, SOFTMAX, OF_ATTENTION = "MatMul", "Softmax", "AttentionMatMul"


def judge_peer_operations(only: tuple[str, ...], dtype: str, chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
    """Judge the operations with a part of `only` in their name, or all: as exported and fused; the faster one counts.

    Raises UserError if no operation matches, or if a program is missing.
    """
    cases = operation_cases(only, False, dtype).cases[1:]  # the first is the large matmul
    models = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            plain, fused = (PeerModel(name, f"{name}.onnx", case.inputs) for name in (case.name, case.name + FUSED))
            export_onnx(case.module, case.inputs, Path(folder) / plain.onnx)
            export_fused(fuse(copy.deepcopy(case.module)), case.inputs, Path(folder) / fused.onnx)
            models += [plain, fused]
        recorded = record_peer(models, Path(folder))
    for case in cases:
        forms = [recorded[name] for name in (case.name, case.name + FUSED) if name in recorded]
        judged = [list(judge(Subject.of(case), launched_by_peer(form), dtype, chips)) for form in forms]
        for of_chip in zip(*judged, strict=True):
            yield min(of_chip, key=lambda found: rank(found[1]))


def rank(form: Judgement) -> tuple[bool, float]:
    """Rank a form of an operation: one that a compiler rejects comes last, and so does one with a loop that is misread.

    Such a loop counts once. Then less is executed than the operation needs.
    """
    done = sum(kernel.launches * kernel.multiply_adds for kernel in form.kernels)
    return bool(form.errors) or done < LEAST_DONE * form.multiply_adds, form.microseconds


def judge_peer_step(dtype: str, chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
    """Judge every launch of a step of Stable Diffusion 1.5, as full_size has it: minutes, most of them for the export.

    Raises RuntimeError if the peer refuses a component.
    """
    checkpoint = stable_diffusion()
    subject = subject_of_step(checkpoint, dtype)
    launches = record_step(checkpoint, dtype)
    yield from judge(subject, launched_by_peer(launches), dtype, chips)


def record_step(checkpoint: Checkpoint, dtype: str) -> list[PeerLaunch]:
    """Return the launches of a call of each component. The checkpoint's modules are changed.

    Raises RuntimeError if the peer refuses a component.
    """
    models = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for component, module in wrap(checkpoint).items():
            inputs = example_inputs(checkpoint.specs[component], dtype)
            onnx = folder / f"{component}.onnx"
            weights = export_without_values(_fused(module, dtype), inputs, onnx)
            models.append(PeerModel(component, onnx.name, inputs, (weights.name,)))
        recorded = record_peer(models, folder)
    refused = [model.name for model in models if model.name not in recorded]
    if refused:
        raise RuntimeError(f"onnxruntime-web refused {', '.join(refused)}")
    return [launch for model in models for launch in with_attention_named(recorded[model.name])]


def _fused(module: nn.Module, dtype: str) -> nn.Module:
    return fuse(module.to(DTYPES[dtype]).eval())


def with_attention_named(launches: Sequence[PeerLaunch]) -> list[PeerLaunch]:
    """Rename the products on both sides of each softmax: they are attention's, and no layer's."""
    named = list(launches)
    products = [number for number, launch in enumerate(launches) if launch.program == PRODUCT]
    for number, launch in enumerate(launches):
        if launch.program == SOFTMAX:
            before = max((one for one in products if one < number), default=number)
            after = min((one for one in products if one > number), default=number)
            for one in {before, after} - {number}:
                named[one] = dataclasses.replace(launches[one], program=OF_ATTENTION)
    return named
