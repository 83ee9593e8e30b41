"""Plots a run: its losses over its steps, and below them the pictures that it drew of one sample."""

import io
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import write_bytes
from mlc_controlnet.plot_themes import THEMES, Theme
from mlc_controlnet.train.config_file import load_config
from mlc_controlnet.train.image_log import cut_grid
from mlc_controlnet.train.metrics import read_metrics

TRAINING, HELD_OUT = "#9e8c00", "#2f81f7"  # both are readable on white and on black
MOST_PICTURES = 10
# Inches. The margin left of the pictures has the control image, the margin right of them the target.
INCHES, MARGIN, CURVE, AXIS, LINE = 8.0, 0.8, 2.4, 0.45, 0.2
WIDEST_PICTURE, GAP = 0.68, 0.05
DPI = {"svg": 100, "png": 160}  # of a plot's pictures; text and lines of an SVG have no resolution


def write_plot(folder: Path, output: Path, theme: str) -> Path:
    """Draw the run in `folder` to `output`.

    Raises:
        UserError: there is no run, or `output` is neither .png nor .svg.
    """
    kind = output.suffix.lower().removeprefix(".")
    if kind not in DPI:
        raise UserError("--output", str(output), "a name that ends in .png or .svg", "choose one of these")
    drawn = draw_run(read_run(folder), theme, kind)
    output.parent.mkdir(parents=True, exist_ok=True)
    return write_bytes(output, drawn)


@dataclass(frozen=True)
class Run:
    """The data that the plot shows.

    Attributes:
        losses: steps and mean training losses up to them.
        held_out: steps and held-out losses; empty if the run has none.
        generations: steps and the pictures that the run drew of one sample.
        sample: the control image and the target of that sample; None without generations.
    """

    losses: dict[int, float]
    held_out: dict[int, float]
    generations: dict[int, Image.Image]
    sample: tuple[Image.Image, Image.Image] | None


def read_run(folder: Path) -> Run:
    """Read the figures of a run and the first row of its grids.

    Raises:
        UserError: there is no run, or it has not yet written its first line.
    """
    figures = read_metrics(folder)
    losses = {step: entry["loss"] for step, entry in figures.items() if "loss" in entry}
    if not losses:
        raise UserError(
            str(folder), "a run without a loss yet", "one line of losses or more", "wait for log.every steps"
        )
    data = load_config(str(folder / "config.yaml")).data
    grids = {int(path.stem): path for path in sorted((folder / "image_log" / "train").glob("*.png"))}
    grids = {step: path for step, path in grids.items() if step <= max(losses)}  # later ones are an earlier run's
    steps: list[int] = []  # from the last one backwards, so far apart that pictures do not overlap
    for step in reversed(grids):
        if not steps or steps[0] - step >= max(losses) / MOST_PICTURES:
            steps.insert(0, step)
    rows = {}
    for step in steps:
        with Image.open(grids[step]) as grid:
            rows[step] = cut_grid(grid, data.height, data.width)[0]
    return Run(
        losses=losses,
        held_out={step: entry["held_out_loss"] for step, entry in figures.items() if "held_out_loss" in entry},
        generations={step: generation for step, (_, generation, _) in rows.items()},
        sample=(rows[steps[-1]][0], rows[steps[-1]][2]) if steps else None,
    )


def draw_run(run: Run, theme: str, kind: str) -> bytes:
    """Return the content of the plot's file. An SVG has no background. The same run gives the same plot.

    Args:
        theme: a key of THEMES.
        kind: a key of DPI.
    """
    colors = THEMES[theme]
    settings = {"svg.fonttype": "none", "svg.hashsalt": "train", "font.size": 8, "text.color": colors.text}
    with rc_context(settings):
        figure = _figure(run, colors, DPI[kind])
        drawn = io.BytesIO()
        svg = kind == "svg"
        metadata = {"Date": None, "Creator": None} if svg else {"Software": None}
        figure.savefig(drawn, format=kind, dpi=DPI[kind], transparent=svg, facecolor=colors.page, metadata=metadata)
    return drawn.getvalue()


def _figure(run: Run, colors: Theme, dpi: int) -> Figure:
    """Draw the curves, and below them each picture under its step. Places are inches from the lower left corner."""
    steps = list(run.generations)
    spacing = min((after - before for before, after in pairwise(steps)), default=max(run.losses))
    last = max(run.losses) + (spacing / 2 if len(steps) > 1 else 0)  # the last picture ends where the axis does
    width = INCHES - 2 * MARGIN
    tile = min(width * spacing / last - GAP, WIDEST_PICTURE)
    strip = tile * _aspect(run) + LINE if run.sample is not None else 0
    figure = Figure(figsize=(INCHES, strip + AXIS + CURVE + LINE / 2))

    axes = _axes(figure, MARGIN, strip + AXIS, width, CURVE)
    axes.plot(list(run.losses), list(run.losses.values()), color=TRAINING, linewidth=0.6, label="training loss")
    if run.held_out:
        axes.plot(list(run.held_out), list(run.held_out.values()), color=HELD_OUT, linewidth=2, label="held-out loss")
    axes.set_xlim(0, last)
    axes.set_xlabel("step", color=colors.text)
    axes.grid(color=colors.grid, linewidth=0.5)
    axes.tick_params(colors=colors.text, length=0)
    axes.spines[:].set_visible(False)
    axes.legend(loc="upper right", frameon=False, labelcolor=colors.text)

    if run.sample is not None:
        control, target = run.sample
        pictures = [(MARGIN + width * step / last, picture, f"{step}") for step, picture in run.generations.items()]
        pictures += [(tile / 2 + GAP, control, "control"), (INCHES - tile / 2 - GAP, target, "target")]
        for middle, picture, name in pictures:
            cell = _axes(figure, middle - tile / 2, LINE, tile, strip - LINE)
            cell.imshow(picture.resize((round(tile * dpi), round((strip - LINE) * dpi))), interpolation="none")
            cell.set_xticks([], [])
            cell.set_yticks([], [])
            cell.spines[:].set_color(colors.grid)
            cell.set_xlabel(name, fontsize=7, labelpad=2, color=colors.text)
    return figure


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _aspect(run: Run) -> float:
    """Return the height of a picture divided by its width."""
    return run.sample[0].height / run.sample[0].width if run.sample is not None else 1.0
