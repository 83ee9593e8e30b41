"""Plots the predicted times as fast as the peer for every operation, as an SVG for a light or a dark page."""

import io
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mlc_controlnet.bench.compilers.chips import CHIPS
from mlc_controlnet.bench.compilers.figures import OURS, PEER, CompilerFigures, find
from mlc_controlnet.plot_themes import THEMES

COLORS = ("#2f81f7", "#db6d28", "#3fb950", "#a371f7", "#e5534b", "#9e8c00")  # readable on white and on black
MARKERS = "osD^vP"
ROW_INCHES = 0.24
RATIOS = (0.25, 0.5, 1, 2, 4, 8, 16, 32)


def plot(kept: Sequence[CompilerFigures], theme: str) -> str:
    """Return the SVG: one line per operation, one mark per chip and dtype, on a logarithmic axis.

    theme: a key of plot_themes.THEMES. The same figures always give the same text.
    """
    series: dict[str, dict[str, float]] = {}  # label -> title -> ratio
    for chip in CHIPS.values():
        for dtype in ("float16", "float32"):
            ours, theirs = (find(kept, contestant, chip.name, dtype) for contestant in (OURS, PEER))
            if ours is not None and theirs is not None:
                known = {row.name: row.microseconds for row in theirs.rows}
                ratios = {r.title: known[r.name] / r.microseconds for r in ours.rows if r.name in known and r.kernels}
                series[f"{chip.title}, {dtype}"] = ratios
    titles = list(dict.fromkeys(title for ratios in series.values() for title in ratios))
    text, grid = THEMES[theme].text, THEMES[theme].grid
    settings = {"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 8, "text.color": text}
    with rc_context(settings):
        figure = Figure(figsize=(8, 1.2 + ROW_INCHES * len(titles)), layout="constrained")
        axes = figure.subplots()
        for (label, ratios), color, marker in zip(series.items(), COLORS, MARKERS, strict=False):
            places = [-titles.index(title) for title in ratios]
            axes.scatter(list(ratios.values()), places, s=22, color=color, marker=marker, label=label, zorder=3)
        axes.axvline(1, color=text, linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(RATIOS))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
        axes.set_yticks([-place for place in range(len(titles))], titles)
        axes.set_ylim(-len(titles) + 0.3, 0.7)
        axes.set_xlabel("predicted times as fast as onnxruntime-web; right of 1x, ours is faster", color=text)
        axes.grid(color=grid, linewidth=0.5)
        axes.tick_params(colors=text, length=0)
        axes.spines[:].set_visible(False)
        if series:
            figure.legend(loc="outside lower center", ncols=2, frameon=False, labelcolor=text)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return drawn.getvalue()
