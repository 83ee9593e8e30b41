"""Writes what the compilers said into the README and docs/performance.md, and every row into figures/compilers."""

import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlc_controlnet.bench.compilers.chips import CHIPS, Chip
from mlc_controlnet.bench.compilers.figures import AND, OURS, PEER, CompilerFigures, IntelFigures, find
from mlc_controlnet.bench.compilers.full_size import NAME as STEP
from mlc_controlnet.bench.compilers.intel import DEVICES
from mlc_controlnet.bench.compilers.judgement import Judgement, KernelJudgement
from mlc_controlnet.bench.compilers.packed_steps import packed_tables
from mlc_controlnet.bench.compilers.peer_step import peer_step_table
from mlc_controlnet.bench.compilers.plot import plot
from mlc_controlnet.errors import UserError
from mlc_controlnet.files import write_text
from mlc_controlnet.plot_themes import THEMES

BEGIN, END = "<!-- bench compilers: begin -->", "<!-- bench compilers: end -->"
HEAVIEST = 10
PREFACE = """# What the compilers of real GPUs make of the kernels

`python -m mlc_controlnet bench compilers --keep` judges kernels and writes the JSON files beside this page; then, as
`bench report` does, this page. Times are **predicted** from compiled code by a roofline, never measured: see
[how](../../../../docs/performance.md#real-gpus-predicted).

How to read a table: registers of a thread, values spilled to memory, bytes of workgroup memory and waves that a SIMD
holds are those of the operation's heaviest kernel, and so are the multiply-adds a vector instruction and a load of
workgroup memory, over the whole step of k with its loads. *Limit*: share of the chip's published rates, which a kernel
exceeds that saves multiplications. *Against*: predicted times as fast as onnxruntime-web, by the same compiler and the
same roofline. Intel's chips come last, without times."""


def write_report(
    kept: Sequence[CompilerFigures], intel: Sequence[IntelFigures], pages: Sequence[Path], folder: Path
) -> list[Path]:
    """Write the plots and README.md into `folder`, and the summary between BEGIN and END of each page.

    pages: the first gets the short summary, the others all of it.

    Returns:
        The paths of all written files.

    Raises:
        UserError: a page lacks the marks.
    """
    content = {folder / f"compilers-{theme}.svg": plot(kept, theme) for theme in THEMES}
    content[folder / "README.md"] = "\n".join([PREFACE, *_all_tables(kept), *_intel_tables(intel)]) + "\n"
    for number, page in enumerate(pages):
        text = page.read_text(encoding="utf-8")
        if text.count(BEGIN) != 1 or text.count(END) != 1:
            raise UserError(
                str(page), "not both marks once", f"{BEGIN} and {END}", "put them where the section belongs"
            )
        before, rest = text.split(BEGIN)
        section = list(_summary(kept))
        if number > 0:
            picture = _picture(Path(os.path.relpath(folder, page.parent)))
            section += [*picture, *_heaviest(kept), *peer_step_table(kept), *packed_tables(kept)]
        content[page] = f"{before}{BEGIN}\n" + "\n".join(section) + f"\n{END}{rest.split(END)[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    for path, new in content.items():
        write_text(path, new)
    return list(content)


def pairs(kept: Sequence[CompilerFigures]) -> Iterator[tuple[Chip, CompilerFigures, list[tuple[Judgement, float]]]]:
    """Yield, for every chip and dtype, our figures, and our rows with the peer's with their ratios."""
    for chip in CHIPS.values():
        for dtype in ("float16", "float32"):
            ours, theirs = (find(kept, contestant, chip.name, dtype) for contestant in (OURS, PEER))
            if ours is not None:
                ratios = []
                for row in ours.rows:
                    peer = theirs.row(row.name) if theirs else None
                    if peer is not None and row.kernels:
                        ratios.append((row, peer.microseconds / row.microseconds))
                yield chip, ours, ratios


def _summary(kept: Sequence[CompilerFigures]) -> Iterator[str]:
    yield _line(
        [
            "predicted",
            "a step of Stable Diffusion 1.5, 512x512: UNet + ControlNet",
            "of the chip's limit",
            "that step against onnxruntime-web",
            "single operations against onnxruntime-web: geometric mean",
            "least",
            "most",
            "faster in",
        ]
    )
    yield _line(["---"] + ["---:"] * 7)
    for chip, ours, ratios in pairs(kept):
        step = ours.row(STEP)
        cells = [f"{step.microseconds / 1000:.1f} ms", f"{step.share_of_limit:.0%}"] if step else ["", ""]
        cells.append(next((f"**{ratio:.2f}x**" for row, ratio in ratios if row.name == STEP), ""))
        values = [ratio for row, ratio in ratios if row.name != STEP]
        if step is None and not values:
            continue  # its rows are in the folder's page
        if values:
            mean = statistics.geometric_mean(values)
            faster = f"{sum(value > 1 for value in values)} of {len(values)}"
            cells += [f"**{mean:.2f}x**", f"{min(values):.2f}x", f"{max(values):.2f}x", faster]
        else:
            cells += [""] * 4
        yield _line([f"{chip.title}, {ours.dtype}", *cells])


def _picture(folder: Path) -> Iterator[str]:
    yield ""
    yield "<picture>"
    yield f'<source media="(prefers-color-scheme: dark)" srcset="{folder}/compilers-dark.svg">'
    yield f'<img alt="Predicted times as fast as onnxruntime-web" src="{folder}/compilers-light.svg">'
    yield "</picture>"
    yield ""
    yield f"[Every row, with versions and commands]({folder}/README.md)."


def _heaviest(kept: Sequence[CompilerFigures]) -> Iterator[str]:
    ours = find(kept, OURS, next(iter(CHIPS)), "float16")
    step = ours.row(STEP) if ours else None
    if ours is None or step is None:
        return
    yield ""
    yield f"The heaviest kernels of that step on the {CHIPS[ours.chip].title}, float16:"
    yield ""
    yield _line(
        ["kernel", "launches", "predicted, ms", "share of the step", "bound", "multiply-adds a vector instruction"]
    )
    yield _line(["---"] + ["---:"] * 3 + ["---", "---:"])
    for kernel in step.kernels[:HEAVIEST]:
        share = kernel.total_microseconds / step.microseconds
        cells = [str(kernel.launches), f"{kernel.total_microseconds / 1000:.2f}", f"{share:.0%}", kernel.bound]
        yield _line([f"`{_short(kernel)}`", *cells, f"{kernel.step.a_vector_instruction:.2f}"])


def _short(kernel: KernelJudgement) -> str:
    return kernel.name.removesuffix("_kernel")


def _all_tables(kept: Sequence[CompilerFigures]) -> Iterator[str]:
    heads = ["", "ours, us", "peer, us", "against", "limit", "bound", "registers", "spilled", "bytes", "waves"]
    heads += ["a vector instruction", "a load"]
    for chip, ours, ratios in pairs(kept):
        versions = ", ".join(f"{name} {version}" for name, version in ours.versions.items())
        yield ""
        yield f"## {chip.title}, {ours.dtype}"
        yield ""
        yield f"{chip.source}. {ours.date}; {versions}. {_commands(ours)}"
        theirs = find(kept, PEER, chip.name, ours.dtype)
        if theirs is not None:
            yield f"The peer: {theirs.date}; {PEER} {theirs.versions[PEER]}. {_commands(theirs)}"
        yield ""
        yield _line(heads)
        yield _line(["---"] + ["---:"] * 4 + ["---"] + ["---:"] * 6)
        known = {row.name: ratio for row, ratio in ratios}
        for row in ours.rows:
            if not row.kernels:
                continue
            ratio = known.get(row.name)
            peer = ["", ""] if ratio is None else [_number(row.microseconds * ratio), f"{ratio:.2f}x"]
            yield _line(
                [row.title, _number(row.microseconds), *peer, f"{row.share_of_limit:.0%}", *_facts(row.kernels[0])]
            )
        for row in ours.rows:
            for name, error in row.errors.items():
                yield f"\n{row.title}, {name}: {error}"


def _intel_tables(kept: Sequence[IntelFigures]) -> Iterator[str]:
    for figures in kept:
        versions = ", ".join(f"{name} {version}" for name, version in figures.versions.items())
        yield ""
        yield f"## {DEVICES[figures.device]}, {figures.dtype}"
        yield ""
        yield f"{figures.date}; {versions}. {_commands(figures)}"
        yield ""
        yield _line(["", "kernel", "SIMD", "registers of 32 bytes", "bytes spilled", "bytes of workgroup memory"])
        yield _line(["---"] * 2 + ["---:"] * 4)
        for row in figures.rows:
            for kernel in row.kernels:
                numbers = (kernel.simd, kernel.registers, kernel.spilled_bytes, kernel.workgroup_bytes)
                yield _line([row.title, f"`{kernel.name.removesuffix('_kernel')}`", *map(str, numbers)])
        for row in figures.rows:
            if row.error:
                yield f"\n{row.title}: {row.error}"


def _commands(figures: CompilerFigures | IntelFigures) -> str:
    return " and ".join(f"`{command}`" for command in figures.command.split(AND))


def _facts(kernel: KernelJudgement) -> list[str]:
    whole = [kernel.registers, kernel.spilled, kernel.workgroup_bytes, kernel.occupancy]
    return [
        kernel.bound,
        *map(str, whole),
        f"{kernel.step.a_vector_instruction:.2f}",
        f"{kernel.step.a_workgroup_load:.1f}",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
