"""Plot how many times as fast as each peer we are for every operation, as an SVG for a light or a dark page."""

import io
from collections.abc import Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from mlc_controlnet.bench.operations.figures import Figures
from mlc_controlnet.plot_themes import THEMES

COLORS = ("#2f81f7", "#db6d28", "#3fb950", "#a371f7", "#e5534b", "#9e8c00")  # readable on white and on black
MARKERS = "osD^vP"
ROW_INCHES = 0.24
RATIOS = (0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32)


def plot(kernels: Sequence[Figures], theme: str) -> str:
    """Return the SVG: one line per operation, one mark per device and peer, on a logarithmic axis.

    theme: a key of plot_themes.THEMES. The same figures always give the same text.
    """
    text, grid = THEMES[theme].text, THEMES[theme].grid
    titles = {row.name: row.title for figures in kernels for row in figures.rows[1:]}
    heights = {name: -place for place, name in enumerate(titles)}
    settings = {"svg.fonttype": "none", "svg.hashsalt": "bench", "font.size": 8, "text.color": text}
    with rc_context(settings):
        figure = Figure(figsize=(8, 1.2 + ROW_INCHES * len(titles)), layout="constrained")
        axes = figure.subplots()
        pairs = [(figures, peer) for figures in kernels for peer in figures.peers]
        for (figures, peer), color, marker in zip(pairs, COLORS, MARKERS, strict=False):
            ratios = figures.ratios(peer)
            places = [heights[name] for name in ratios]
            name = ", ".join([*figures.device.short_names, figures.dtype, f"against {peer}"])
            axes.scatter(list(ratios.values()), places, s=22, color=color, marker=marker, label=name, zorder=3)
        axes.axvline(1, color=text, linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(RATIOS))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}x"))
        axes.set_yticks(list(heights.values()), list(titles.values()))
        axes.set_ylim(-len(titles) + 0.3, 0.7)
        axes.set_xlabel("times as fast as the peer; right of 1x, ours is faster", color=text)
        axes.grid(color=grid, linewidth=0.5)
        axes.tick_params(colors=text, length=0)
        axes.spines[:].set_visible(False)
        figure.legend(loc="outside lower center", frameon=False, labelcolor=text)
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return drawn.getvalue()
