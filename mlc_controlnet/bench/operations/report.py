"""Figures -> a table to print, and a section of docs/performance.md with its plot, in a light and a dark version."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mlc_controlnet.bench.operations.figures import KERNELS, MODEL, OURS, Figures, Row
from mlc_controlnet.bench.operations.plot import plot
from mlc_controlnet.errors import UserError
from mlc_controlnet.files import write_text
from mlc_controlnet.plot_themes import THEMES

PREFACE = """# Figures

Raw times are in the JSON files; `python -m mlc_controlnet bench report` writes this page and the plots from them.
*Against* a peer says how many times as fast as it we are. A row's ceiling is the time that its arithmetic takes at the
rate of a large matrix product, or its memory at that of a large copy, whichever is longer; both are measured in the
same run as the row, and rows may be of several runs. A software GPU computes a GPU's work on the processor and ranks
schedules wrongly: it shows gross faults only, and operations have a smaller size on it."""
EXPLANATION = """\
Medians of runs in turns; [all times]({folder}/README.md). The ceiling is what a large matrix product reaches on the
device, or a large copy where memory takes longer. Software GPUs compute a GPU's work on the processor: they rank
schedules wrongly and show gross faults only, and operations have a smaller size on them."""
BEGIN, END = "<!-- bench report: begin -->", "<!-- bench report: end -->"


def table(figures: Figures) -> Iterator[str]:
    """One line a row, for terminals and for Markdown."""
    peers = figures.peers
    yield f"{describe(figures)}"
    yield ""
    heads = ["", "ours, ms", *(f"{peer}, ms" for peer in peers), *(f"against {peer}" for peer in peers), "GFLOP/s"]
    yield _line([*heads, "of ceiling"])
    yield _line(["---"] + ["---:"] * len(heads))
    for row in figures.rows:
        times = [_number(figures.median_ms(row, name)) for name in (OURS, *peers)]
        ratios = [f"{figures.ratio(row, peer):.2f}x" for peer in peers]
        share = f"{figures.share(row):.0%}"
        yield _line([row.title + _mark(row), *times, *ratios, _number(figures.gflops(row)), share])
    yield from _notes([figures])


def describe(figures: Figures) -> str:
    """What a table must be read with: device, host, versions, clock, ceiling and command."""
    device = figures.device
    versions = ", ".join(f"{name} {version}" for name, version in figures.versions.items())
    clock = "the device's clock" if figures.clock == "device" else "wall clock"
    on = f"{device.kind}: {device.name}" + (f", on {device.processor}" if device.kind == "software GPU" else "")
    rounds = _range((len(timing.wall_ms) for row in figures.rows for timing in row.times.values()), str)
    gflops = _range((row.ceiling.gflops for row in figures.rows), _number)
    gigabytes = _range((row.ceiling.gigabytes_per_second for row in figures.rows), _number)
    return (
        f"**{on}**, {device.host}, {figures.dtype}, {figures.date}; {versions}; medians of {rounds} rounds in turns, "
        f"{clock}; ceiling {gflops} GFLOP/s and {gigabytes} GB/s. `{figures.command}`"
    )


def _range(values: Iterable[float], write: Callable[[float], str]) -> str:
    """Rows may be of several runs."""
    ordered = sorted(values)
    least, most = write(ordered[0]), write(ordered[-1])
    return least if least == most else f"{least} to {most}"


def write_report(kept: Sequence[Figures], page: Path, folder: Path) -> list[Path]:
    """Write every table into `folder`/README.md, the plots next to it, and the section between the marks of `page`.

    Raises UserError if `page` lacks the marks.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(str(page), "not both marks once", f"{BEGIN} and {END}", "put them where the section belongs")
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    kernels = [figures for figures in kept if figures.subject == KERNELS]
    for theme in THEMES if kernels else ():
        written.append(write_text(folder / f"kernels-{theme}.svg", plot(kernels, theme)))
    written.append(write_text(folder / "README.md", "\n".join(_all_tables(kept)) + "\n"))
    before, rest = text.split(BEGIN)
    section = "\n".join(_section(kept, Path(os.path.relpath(folder, page.parent))))
    written.append(write_text(page, f"{before}{BEGIN}\n{section}\n{END}{rest.split(END)[1]}"))
    return written


def _all_tables(kept: Sequence[Figures]) -> Iterator[str]:
    yield PREFACE
    for figures in kept:
        yield ""
        yield f"## {figures.subject}, {figures.device.name}, {figures.device.host}, {figures.dtype}"
        yield ""
        yield from table(figures)


def _section(kept: Sequence[Figures], folder: Path) -> Iterator[str]:
    """The summary: one table for models, one for operations, a column a device and peer; then what each device is."""
    kernels = [figures for figures in kept if figures.subject == KERNELS]
    models = [figures for figures in kept if figures.subject == MODEL]
    if models:
        yield from _model_table(models)
        yield from _notes(models)
        yield ""
    if kernels:
        yield "<picture>"
        yield f'<source media="(prefers-color-scheme: dark)" srcset="{folder}/kernels-dark.svg">'
        yield f'<img alt="How many times as fast as each peer we are" src="{folder}/kernels-light.svg">'
        yield "</picture>"
        yield ""
        yield from _kernel_table(kernels)
        yield from _notes(kernels)
        yield ""
    yield EXPLANATION.format(folder=folder)
    yield ""
    yield from (f"- {describe(figures)}" for figures in kept)


def _model_table(models: Sequence[Figures]) -> Iterator[str]:
    yield _line(["", "ours, ms", "peer, ms", "times as fast", "GFLOP/s", "of ceiling"])
    yield _line(["---"] + ["---:"] * 5)
    for figures in models:
        for row in figures.rows[1:]:  # the first is the ceiling's matrix product
            for peer in figures.peers:
                times = [_number(figures.median_ms(row, name)) for name in (OURS, peer)]
                rate = [
                    f"**{figures.ratio(row, peer):.2f}x**",
                    _number(figures.gflops(row)),
                    f"{figures.share(row):.0%}",
                ]
                yield _line([f"{row.title}{_mark(row)}; {_label(figures, peer)}", *times, *rate])


def _kernel_table(kernels: Sequence[Figures]) -> Iterator[str]:
    columns = [(figures, peer) for figures in kernels for peer in figures.peers]
    yield _line(["times as fast, GFLOP/s, share of the ceiling", *(_label(*column) for column in columns)])
    yield _line(["---"] + ["---:"] * len(columns))
    for name, title in _titles(kernels).items():
        yield _line([title, *(_cell(figures, peer, name) for figures, peer in columns)])


def _label(figures: Figures, peer: str) -> str:
    device, host = figures.device.short_names
    return f"{device}, {host}, {figures.dtype}, against {peer}"


def _titles(kernels: Sequence[Figures]) -> dict[str, str]:
    """Of the best device, in the order of the rows; the first row, which gives the ceiling, comes first everywhere."""
    return {row.name: row.title for figures in kernels for row in figures.rows[1:]}


def _cell(figures: Figures, peer: str, name: str) -> str:
    """`**1.42x**, 12.0, 34%`"""
    row = next((row for row in figures.rows if row.name == name), None)
    if row is None:
        return ""
    return f"**{figures.ratio(row, peer):.2f}x**{_mark(row)}, {_number(figures.gflops(row))}, {figures.share(row):.0%}"


def _mark(row: Row) -> str:
    return "\\*" if row.note else ""


def _notes(several: Sequence[Figures]) -> Iterator[str]:
    """What the marks mean."""
    notes = dict.fromkeys(f"{row.title}: {row.note}" for figures in several for row in figures.rows if row.note)
    if notes:
        yield ""
        yield "\\* " + "; ".join(notes) + "."


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    """Three digits, as people write them."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
