"""A table of a step beside onnxruntime-web's: time and launches by what the kernels compute."""

from collections.abc import Iterator, Mapping, Sequence

from mlc_controlnet.bench.compilers.chips import CHIPS
from mlc_controlnet.bench.compilers.figures import OURS, PEER, CompilerFigures, find
from mlc_controlnet.bench.compilers.full_size import NAME
from mlc_controlnet.bench.compilers.judge_peer import OF_ATTENTION
from mlc_controlnet.bench.compilers.judgement import Judgement

CONVOLUTIONS, ATTENTION = "convolutions 3x3", "attention"
PRODUCTS = "matrix products, convolutions 1x1, GEGLU"
NORMS = "norms"
OTHERS = "sums, activations, changes of layout and the rest"
OUR_KINDS = {  # part of a kernel's name -> what it computes; the first part that is there counts
    "conv2d": CONVOLUTIONS,
    "matmul": PRODUCTS,
    "flash_attention": ATTENTION,
    "group_norm": NORMS,
    "layer_norm": NORMS,
}
PEERS_KINDS = {  # the same of the peer's programs
    "Conv": CONVOLUTIONS,
    OF_ATTENTION: ATTENTION,
    "FlashAttention": ATTENTION,
    "CopyKVCache": ATTENTION,
    "Softmax": ATTENTION,
    "MatMul": PRODUCTS,
    "Gemm": PRODUCTS,
    "InstanceNorm": NORMS,
    "ComputeChannelScaleShift": NORMS,
    "LayerNorm": NORMS,
}


def peer_step_table(kept: Sequence[CompilerFigures]) -> Iterator[str]:
    """Yield the table of the first chip in float16; nothing unless both steps are kept."""
    chip = next(iter(CHIPS.values()))
    both = (find(kept, contestant, chip.name, "float16") for contestant in (OURS, PEER))
    ours, theirs = (figures.row(NAME) if figures else None for figures in both)
    if ours is None or theirs is None or not ours.kernels or not theirs.kernels:
        return
    yield ""
    yield f"The same step beside onnxruntime-web's on the {chip.title}, float16:"
    yield ""
    yield "| predicted, ms (launches) | ours | onnxruntime-web | times as fast |"
    yield "| --- | ---: | ---: | ---: |"
    rows = [_by_kind(ours, OUR_KINDS), _by_kind(theirs, PEERS_KINDS)]
    for kind in (CONVOLUTIONS, ATTENTION, PRODUCTS, NORMS, OTHERS):
        yield _row(kind, *(row.get(kind, (0.0, 0)) for row in rows))
    yield _row("all", *((sum(ms for ms, _ in row.values()), sum(count for _, count in row.values())) for row in rows))


def _by_kind(step: Judgement, kinds: Mapping[str, str]) -> dict[str, tuple[float, int]]:
    """Return the milliseconds and the launches of each kind."""
    found: dict[str, tuple[float, int]] = {}
    for kernel in step.kernels:
        kind = next((kind for part, kind in kinds.items() if part in kernel.name), OTHERS)
        before, count = found.get(kind, (0.0, 0))
        found[kind] = before + kernel.total_microseconds / 1000, count + kernel.launches
    return found


def _row(title: str, ours: tuple[float, int], theirs: tuple[float, int]) -> str:
    ratio = f"{theirs[0] / ours[0]:.2f}x" if ours[0] else ""
    return f"| {title} | {ours[0]:.2f} ({ours[1]}) | {theirs[0]:.2f} ({theirs[1]}) | {ratio} |"
