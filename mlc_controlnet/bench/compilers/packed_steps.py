"""Tables of a step with packed weights beside the same step with float16's: its time by resource and by kernel."""

from collections.abc import Iterator, Sequence

from mlc_controlnet.bench.compilers.chips import CHIPS
from mlc_controlnet.bench.compilers.figures import OURS, CompilerFigures, find
from mlc_controlnet.bench.compilers.full_size import name_of_step
from mlc_controlnet.bench.compilers.judgement import Judgement, KernelJudgement
from mlc_controlnet.bench.packed_weights import WEIGHTS
from mlc_controlnet.quantize.formats import FLOAT16

KINDS = {  # part of a kernel's name -> what it computes; the first part that is there counts
    "upsampled_conv2d": "convolutions 3x3 of a doubled picture",
    "conv2d": "convolutions 3x3",
    "pointwise_matmul": "convolutions 1x1",
    "gated_matmul": "GEGLU",
    "NT_matmul": "products of one row",
    "matmul": "other matrix products",
}
NO_WEIGHTS = "kernels without weights"
VECTOR, MEMORY = "vector", "memory"  # of roofline.Prediction.microseconds


def packed_tables(kept: Sequence[CompilerFigures]) -> Iterator[str]:
    """Yield the tables of the first chip in float16; nothing unless a step with packed weights is kept."""
    ours = find(kept, OURS, next(iter(CHIPS)), "float16")
    rows = {name: ours.row(name_of_step(name)) for name in WEIGHTS} if ours else {}
    steps = {name: row for name, row in rows.items() if row is not None and row.kernels}
    if ours is None or FLOAT16 not in steps or len(steps) == 1:
        return
    plain = steps.pop(FLOAT16)
    yield ""
    yield f"The same step with [weights of few bits](#weights-of-few-bits) on the {CHIPS[ours.chip].title}, float16:"
    yield ""
    yield "| weights | predicted, ms | of float16's | in kernels bound by vector instructions, ms | by memory, ms |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, step in ((FLOAT16, plain), *steps.items()):
        bounds = (_milliseconds(step, resource) for resource in (VECTOR, MEMORY))
        total = f"{step.microseconds / 1000:.1f} | {step.microseconds / plain.microseconds:.2f}x"
        yield f"| {name} | {total} | {' | '.join(f'{value:.2f}' for value in bounds)} |"
    yield ""
    yield f"| predicted, ms | {FLOAT16} | {' | '.join(f'{name} | vector instructions' for name in steps)} |"
    yield f"| --- | {' | '.join(['---:'] * (1 + 2 * len(steps)))} |"
    for kind in (*KINDS.values(), NO_WEIGHTS):
        before = _of_kind(plain, kind)
        if not before:
            continue
        cells = [f"{_total(before):.2f}"]
        for step in steps.values():
            after = _of_kind(step, kind)
            ratios = _total(after) / _total(before), _vector_instructions(after) / _vector_instructions(before)
            cells += [f"{_total(after):.2f}, {ratios[0]:.2f}x", f"{ratios[1]:.2f}x"]
        yield f"| {kind} | {' | '.join(cells)} |"


def _milliseconds(step: Judgement, resource: str) -> float:
    """Return the time of the kernels in which a resource takes longest."""
    bound = (k for k in step.kernels if max(k.microseconds, key=lambda name: k.microseconds[name]) == resource)
    return _total(list(bound))


def _of_kind(step: Judgement, kind: str) -> list[KernelJudgement]:
    return [kernel for kernel in step.kernels if _kind(kernel.name) == kind]


def _kind(name: str) -> str:
    return next((kind for part, kind in KINDS.items() if part in name), NO_WEIGHTS)


def _total(kernels: Sequence[KernelJudgement]) -> float:
    return sum(kernel.total_microseconds for kernel in kernels) / 1000


def _vector_instructions(kernels: Sequence[KernelJudgement]) -> float:
    """Return what all threads of all launches execute: waves of 32 threads and of 64 compare."""
    return sum(kernel.launches * kernel.workgroups * kernel.threads * kernel.cost.vector for kernel in kernels)
