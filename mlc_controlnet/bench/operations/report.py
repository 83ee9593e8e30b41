"""Write the tables of docs/software_adapters.md, and figures/README.md with every row, from the kept figures."""

import os
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mlc_controlnet.bench.operations.figures import KERNELS, MODEL, OURS, Figures, Row
from mlc_controlnet.bench.operations.plot import plot
from mlc_controlnet.errors import UserError
from mlc_controlnet.files import write_text
from mlc_controlnet.plot_themes import THEMES

PREFACE = """# Figures

`python -m mlc_controlnet bench report` writes this page and the plots from the raw times in the JSON files.

How to read a table:

- *Against* a peer: how many times as fast as the peer our code is. Above 1, ours is faster.
- *Relative rate*: our rate compared with a large matmul on the same device, or with a large copy if the row is limited
  by memory. It can exceed 100 %: a small operation may keep its operands in caches, which a large matmul cannot.
- The matmul and the copy are measured in the same run as the row. A table may combine rows of several runs.
- A software GPU computes a GPU's work on the processor. It reveals large faults, but a schedule that is fast there can
  be slow on a real GPU. Operations are smaller there than in Stable Diffusion."""
EXPLANATION = """\
[Every row, with devices, versions and commands]({folder}/README.md).
The figures are medians of rounds in which the contestants take turns. A software GPU computes a GPU's work on the
processor: it reveals large faults and cannot rank schedules for real GPUs."""
MISSING = "-"  # the peer failed at this row, or has no part in it
BEGIN, END = "<!-- bench report: begin -->", "<!-- bench report: end -->"


def table(figures: Figures) -> Iterator[str]:
    """Format a table with one line per row, for terminals and for Markdown."""
    peers = figures.peers
    yield describe_run(figures)
    yield ""
    heads = ["", "ours, ms", *(f"{peer}, ms" for peer in peers), *(f"against {peer}" for peer in peers), "GFLOP/s"]
    heads.append("relative rate")
    with_memory = figures.device.kind == "processor" and any(row.times[OURS].peak_memory_mib for row in figures.rows)
    if with_memory:
        heads.append(f"peak memory, MiB: {'; '.join((OURS, *peers))}")
    yield _line(heads)
    yield _line(["---"] + ["---:"] * (len(heads) - 1))
    for row in figures.rows:
        times = [_number(figures.median_ms(row, name)) if name in row.times else MISSING for name in (OURS, *peers)]
        ratios = [f"{figures.ratio(row, peer):.2f}x" if peer in row.times else MISSING for peer in peers]
        cells = [row.title + _mark(row), *times, *ratios, _number(figures.gflops(row))]
        cells.append(f"{figures.relative_rate(row):.0%}")
        if with_memory:
            peaks = {name: f"{timing.peak_memory_mib:.0f}" for name, timing in row.times.items()}
            cells.append("; ".join(peaks.get(name, MISSING) for name in (OURS, *peers)))
        yield _line(cells)
    yield from _notes([figures])


def describe_run(figures: Figures) -> str:
    """List the facts that a reader of a table needs: device, host, versions, clock, reference rates and command."""
    device = figures.device
    versions = ", ".join(f"{name} {version}" for name, version in figures.versions.items())
    clock = "the device's clock" if figures.clock == "device" else "wall clock"
    on = f"{device.kind}: {device.name}" + (f", on {device.processor}" if device.kind == "software GPU" else "")
    rounds = _range((len(row.times[peer].wall_ms) for row in figures.rows for peer in row.times if peer != OURS), str)
    gflops = _range((row.reference.gflops for row in figures.rows), _number)
    gigabytes = _range((row.reference.gigabytes_per_second for row in figures.rows), _number)
    return (
        f"**{on}**, {device.host}, {figures.dtype}, {figures.date}; {versions}; medians of {rounds} rounds in turns, "
        f"{clock}; large matmul {gflops} GFLOP/s, large copy {gigabytes} GB/s. `{figures.command}`"
    )


def _range(values: Iterable[float], write: Callable[[float], str]) -> str:
    """Format a range: `3`, or `3 to 5` if rows of several runs differ."""
    ordered = sorted(values)
    least, most = write(ordered[0]), write(ordered[-1])
    return least if least == most else f"{least} to {most}"


def write_report(kept: Sequence[Figures], page: Path, folder: Path) -> list[Path]:
    """Write every table into `folder`/README.md, the plots into `folder`, and the section between BEGIN and END of
    `page`. Return the paths of all written files.

    Raises UserError if `page` lacks the marks.
    """
    text = page.read_text(encoding="utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise UserError(str(page), "not both marks once", f"{BEGIN} and {END}", "put them where the section belongs")
    folder.mkdir(parents=True, exist_ok=True)
    kernels = [figures for figures in kept if figures.subject == KERNELS]
    content = {folder / f"kernels-{theme}.svg": plot(kernels, theme) for theme in (THEMES if kernels else ())}
    content[folder / "README.md"] = "\n".join(_all_tables(kept)) + "\n"
    before, rest = text.split(BEGIN)
    section = "\n".join(_section(kept, Path(os.path.relpath(folder, page.parent))))
    content[page] = f"{before}{BEGIN}\n{section}\n{END}{rest.split(END)[1]}"
    for path, new in content.items():
        write_text(path, new)
    return list(content)


def _all_tables(kept: Sequence[Figures]) -> Iterator[str]:
    yield PREFACE
    for figures in kept:
        yield ""
        yield f"## {figures.subject}, {figures.device.name}, {figures.device.host}, {figures.dtype}"
        yield ""
        yield from table(figures)


def _section(kept: Sequence[Figures], folder: Path) -> Iterator[str]:
    """Write the summary: a table of model components, a table with one line per device and peer, and the plot."""
    kernels = [figures for figures in kept if figures.subject == KERNELS]
    models = [figures for figures in kept if figures.subject == MODEL]
    if models:
        yield from _model_table(models)
        yield from _notes(models)
        yield ""
    if kernels:
        yield from _kernel_summary(kernels)
        yield ""
        yield "<picture>"
        yield f'<source media="(prefers-color-scheme: dark)" srcset="{folder}/kernels-dark.svg">'
        yield f'<img alt="How many times as fast as each peer we are" src="{folder}/kernels-light.svg">'
        yield "</picture>"
        yield ""
    yield EXPLANATION.format(folder=folder)


def _model_table(models: Sequence[Figures]) -> Iterator[str]:
    yield _line(["component", "ours, ms", "peer, ms", "times as fast"])
    yield _line(["---"] + ["---:"] * 3)
    for figures in models:
        for row in figures.rows[1:]:  # the first row is the large matmul
            for peer in (name for name in figures.peers if name in row.times):
                times = [_number(figures.median_ms(row, name)) for name in (OURS, peer)]
                label = f"{row.title}{_mark(row)}; {_label(figures, peer)}"
                yield _line([label, *times, f"**{figures.ratio(row, peer):.2f}x**"])


def _kernel_summary(kernels: Sequence[Figures]) -> Iterator[str]:
    """Compare single operations with the peers: one line per device and peer."""
    yield _line(["single operations", "times as fast, geometric mean", "least", "most", "ours is faster in"])
    yield _line(["---"] + ["---:"] * 4)
    for figures in kernels:
        for peer in figures.peers:
            ratios = list(figures.ratios(peer).values())
            mean, least, most = statistics.geometric_mean(ratios), min(ratios), max(ratios)
            faster = f"{sum(ratio > 1 for ratio in ratios)} of {len(ratios)}"
            yield _line([_label(figures, peer), f"**{mean:.2f}x**", f"{least:.2f}x", f"{most:.2f}x", faster])


def _label(figures: Figures, peer: str) -> str:
    device, host = figures.device.short_names
    return f"{device}, {host}, {figures.dtype}, against {peer}"


def _mark(row: Row) -> str:
    return "\\*" if row.note else ""


def _notes(several: Sequence[Figures]) -> Iterator[str]:
    """Yield the notes of the marked rows."""
    notes = dict.fromkeys(f"{row.title}: {row.note}" for figures in several for row in figures.rows if row.note)
    if notes:
        yield ""
        yield "\\* " + "; ".join(notes) + "."


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    """Format a number with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
