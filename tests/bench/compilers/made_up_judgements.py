"""Judgements of imaginary kernels, with round numbers."""

from mlc_controlnet.bench.compilers.amd_isa import Cost
from mlc_controlnet.bench.compilers.figures import OURS, PEER, CompilerFigures
from mlc_controlnet.bench.compilers.full_size import NAME, TITLE
from mlc_controlnet.bench.compilers.judgement import Intensity, Judgement, KernelJudgement


def kernel(name: str, microseconds: float, launches: int = 1) -> KernelJudgement:
    intensity = Intensity(1.5, 16.0)
    return KernelJudgement(
        name=name,
        launches=launches,
        workgroups=96,
        threads=64,
        wave=64,
        registers=128,
        spilled=0,
        workgroup_bytes=8192,
        occupancy=12,
        hot=intensity,
        step=intensity,
        whole=intensity,
        cost=Cost(vector=10, multiply_adds=15),
        multiply_adds=1e9,
        microseconds={"vector": microseconds, "memory": 1.0},
        bound="vector",
    )


def judgement(name: str, *kernels: KernelJudgement, errors: dict[str, str] | None = None) -> Judgement:
    title = TITLE if name == NAME else f"the {name}"
    return Judgement(name, title, 1e9, 10.0, kernels, errors or {})


def figures(contestant: str, *rows: Judgement) -> CompilerFigures:
    versions = {"Mesa": "25.0.7", PEER: "1.30"} if contestant == PEER else {"Mesa": "25.0.7"}
    return CompilerFigures(
        contestant, "navi31", "float16", "python -m mlc_controlnet bench", "2026-01-31", versions, rows
    )


def made_up_judgements() -> list[CompilerFigures]:
    step = judgement(NAME, kernel("heavy_kernel", 3000.0, 10), kernel("light_kernel", 10.0))
    ours = figures(OURS, step, judgement("matmul", kernel("a", 20.0)), judgement("norm", kernel("b", 40.0)))
    theirs = figures(PEER, judgement("matmul", kernel("launch_1", 40.0)), judgement("norm", kernel("launch_1", 20.0)))
    return [ours, theirs]
