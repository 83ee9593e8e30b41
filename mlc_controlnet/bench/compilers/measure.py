"""Runs `bench compilers`: chooses the computations, judges them, and describes the run."""

import datetime
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from mlc_controlnet import __version__
from mlc_controlnet.bench.compilers.amd import mesa_version
from mlc_controlnet.bench.compilers.chips import AMD, CHIPS, Chip
from mlc_controlnet.bench.compilers.figures import MATRICES, OURS, PEER, CompilerFigures
from mlc_controlnet.bench.compilers.full_size import NAME, judge_step, name_of_step
from mlc_controlnet.bench.compilers.intel import DEVICES
from mlc_controlnet.bench.compilers.judge import judge_operations
from mlc_controlnet.bench.compilers.judge_peer import judge_peer_operations, judge_peer_step
from mlc_controlnet.bench.compilers.judgement import Judgement
from mlc_controlnet.bench.compilers.matrix_product import DTYPE, judge_matrix_products
from mlc_controlnet.bench.compilers.nvidia import find_toolkit
from mlc_controlnet.bench.operations.cases import DTYPES
from mlc_controlnet.bench.operations.operations import OPERATIONS
from mlc_controlnet.bench.operations.web_contest import peer_version
from mlc_controlnet.bench.packed_weights import WEIGHTS
from mlc_controlnet.errors import UserError, check_one_of
from mlc_controlnet.quantize.formats import FLOAT16

ORDER = (*map(name_of_step, WEIGHTS), *(operation.name for operation in OPERATIONS))
Miss = Callable[[UserError], None]  # takes what a chip lacks: the others are judged
Show = Callable[[Chip, str, Judgement], None]  # takes a chip, a dtype and a judgement as soon as it is known


@dataclass(frozen=True)
class JudgeSettings:
    """What to judge.

    Attributes:
        only: parts of operations' names; empty: all operations; full_size.NAME alone, with `step`: none.
        step: judge a whole denoising step too.
        weights: formats of the step's weights, of WEIGHTS: it is judged with each.
        peer: judge onnxruntime-web's shaders instead of ours.
        command: the command line that produces the same figures again.
        matrices: judge the hand-written product of matrix instructions instead of ours.
    """

    only: tuple[str, ...]
    step: bool
    peer: bool
    dtypes: tuple[str, ...]
    chips: tuple[str, ...]
    command: str
    weights: tuple[str, ...] = (FLOAT16,)
    matrices: bool = False

    def __post_init__(self) -> None:
        for dtype in self.dtypes:
            check_one_of("--dtype", dtype, DTYPES)
        for name in self.weights:
            check_one_of("--weights", name, WEIGHTS)
        if self.peer and self.weights != (FLOAT16,):
            raise UserError("--weights", ", ".join(self.weights), "float16 with --peer", "leave out one of them")
        if self.weights != (FLOAT16,) and not self.step:
            raise UserError("--weights", ", ".join(self.weights), "a step, whose weights they are", "add --step")
        if self.matrices and (self.peer or self.step or self.dtypes != (DTYPE,)):
            got = "--peer" if self.peer else "--step" if self.step else f"--dtype {', '.join(self.dtypes)}"
            raise UserError("--matrix-instructions", got, "matrix products in float16", "leave out one of them")

    @property
    def contestant(self) -> str:
        """Return whose shaders are judged."""
        return PEER if self.peer else MATRICES if self.matrices else OURS


def measure(settings: JudgeSettings, show: Show, miss: Miss) -> list[CompilerFigures]:
    """Judge everything on every chip that there is a compiler for, in every dtype.

    Raises UserError if no operation matches.
    """
    versions = {}
    for name in settings.chips:
        try:
            versions[name] = _versions(name, settings)
        except UserError as error:
            miss(error)
    chips = [CHIPS[name] for name in versions]
    figures = []
    for dtype in settings.dtypes if chips else ():
        rows: dict[str, list[Judgement]] = {chip.name: [] for chip in chips}
        for chip, judgement in _judge(settings, dtype, chips):
            rows[chip.name].append(judgement)
            show(chip, dtype, judgement)
        for name, judged in rows.items():
            contestant, today = settings.contestant, datetime.date.today().isoformat()
            figures.append(
                CompilerFigures(contestant, name, dtype, settings.command, today, versions[name], tuple(judged))
            )
    return figures


def _versions(name: str, settings: JudgeSettings) -> dict[str, str]:
    """Return the versions of all that judges a chip. Raises UserError if it is unknown, or its compiler is missing."""
    check_one_of("--chip", name, (*CHIPS, *DEVICES))
    chip = CHIPS[name]
    if settings.peer and chip.maker != AMD:
        raise UserError("--peer", name, "a chip of AMD's: the peer has no CUDA source", "leave out this chip")
    if settings.matrices and not chip.matrix_teraflops:
        wanted = ", ".join(one.name for one in CHIPS.values() if one.matrix_teraflops)
        raise UserError("--matrix-instructions", name, f"a chip that has them in WGSL: {wanted}", "leave out this chip")
    found = {"mlc-controlnet": __version__, "apache-tvm": version("apache-tvm")}
    if settings.peer:
        found[PEER] = peer_version()
    return found | ({"Mesa": mesa_version(chip)} if chip.maker == AMD else {"nvcc": find_toolkit().version})


def _judge(settings: JudgeSettings, dtype: str, chips: Sequence[Chip]) -> Iterator[tuple[Chip, Judgement]]:
    if settings.matrices:
        yield from judge_matrix_products(settings.only, chips)
        return
    only_step = settings.step and settings.only == (NAME,)
    if not only_step:
        judge_them = judge_peer_operations if settings.peer else judge_operations
        yield from judge_them(settings.only, dtype, chips)
    if settings.step and settings.peer:
        yield from judge_peer_step(dtype, chips)
    elif settings.step:
        yield from judge_step(dtype, settings.weights, chips)
