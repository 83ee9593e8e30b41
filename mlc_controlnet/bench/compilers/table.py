"""Prints judgements as text."""

from collections.abc import Iterator

from mlc_controlnet.bench.compilers.chips import Chip
from mlc_controlnet.bench.compilers.judgement import Judgement, KernelJudgement

LEGEND = """\
ma/v: multiply-adds a vector instruction; ma/ld: a load of workgroup memory; of the innermost loop, of the whole step
of k with its loads, and of the whole kernel. done/needed: multiply-adds executed over those that the operation needs.
wg/cu: workgroups a compute unit. us: predicted, never measured; of the limit: of the chip's published rates.
"""
HEAD = (
    f"{'kernel':44} {'vgpr':>4} {'spil':>4} {'wg B':>6} {'occ':>3} {'wg/cu':>5} | {'inner: ma/v ma/ld':>17} | "
    f"{'step: ma/v ma/ld':>16} | {'all: ma/v':>9} | {'us':>8} bound"
)


def lines(chip: Chip, judgement: Judgement, peer: Judgement | None = None) -> Iterator[str]:
    """Yield the lines of one operation. peer: the kept judgement of the peer's shaders for the same."""
    done = sum(kernel.launches * kernel.multiply_adds for kernel in judgement.kernels)
    needed = f", done/needed {done / judgement.multiply_adds:.3f}" if judgement.multiply_adds else ""
    if not judgement.kernels:
        needed = ""
    share = f"{judgement.share_of_limit:.0%} of the limit" if judgement.kernels else "no kernel"
    ratio = (
        f", {peer.microseconds / judgement.microseconds:.2f}x the peer's speed" if peer and judgement.kernels else ""
    )
    yield f"{judgement.name} on {chip.title}: {judgement.microseconds:.1f} us, {share}{needed}{ratio}"
    for kernel in judgement.kernels:
        yield _kernel(kernel, chip)
    for name, error in judgement.errors.items():
        yield f"  {name}: rejected: {error}"


def _kernel(kernel: KernelJudgement, chip: Chip) -> str:
    name = kernel.name.removesuffix("_kernel")[:41] + (f" x{kernel.launches}" if kernel.launches > 1 else "")
    longest = sorted(kernel.microseconds.items(), key=lambda item: -item[1])[:3]
    times = ", ".join(f"{resource} {value:.1f}" for resource, value in longest)
    cells = (
        f"  {name:42} {kernel.registers:4} {kernel.spilled:4} {kernel.workgroup_bytes:6} {kernel.occupancy:3} "
        f"{kernel.workgroups / chip.units:5.1f}",
        f"{kernel.hot.a_vector_instruction:11.2f} {kernel.hot.a_workgroup_load:5.1f}",
        f"{kernel.step.a_vector_instruction:10.2f} {kernel.step.a_workgroup_load:5.1f}",
        f"{kernel.whole.a_vector_instruction:9.2f}",
        f"{kernel.total_microseconds:8.1f} {kernel.bound} ({times})",
    )
    return " | ".join(cells)
