"""Draws tuning records: the time of each operation before and after, and the share of the ceiling that it reaches."""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mlc_controlnet.errors import UserError
from mlc_controlnet.files import write_bytes
from mlc_controlnet.passes.schedule.tuning_records import Record, families_of
from mlc_controlnet.plot_themes import THEMES
from mlc_controlnet.tuning.report import Ceilings, Table, share_of_ceiling, tables_of

BEFORE, AFTER = "#8b949e", "#2f81f7"
INCHES, ROW_INCHES, HEAD_INCHES = 11.0, 0.3, 0.75
BAR = 0.38  # of a row's height
KINDS = {".svg": "svg", ".png": "png"}


def write_report(folder: Path, ceilings: Ceilings, file: Path) -> Path:
    """Draw the records of every family below `folder`; return the file.

    Args:
        ceilings: as for report.report_lines.
        file: .svg or .png.

    Raises:
        UserError: it has another ending, or there is no record to draw.
    """
    kind = KINDS.get(file.suffix.lower())
    if kind is None:
        raise UserError("--report", str(file), "a picture whose name ends in .svg or .png", "choose one of these")
    tables = [table for target in families_of(folder) for family in families_of(target) for table in tables_of(family)]
    if not tables:
        raise UserError(str(folder), "no tuning record", "one at least, to draw", "leave out the picture's name")
    return write_bytes(file, draw(tables, ceilings, kind))


def draw(tables: Sequence[Table], ceilings: Ceilings, kind: str) -> bytes:
    """Return a picture of the tables, one below the other. kind: "svg" or "png"."""
    theme = THEMES["light"]
    rows = [len(table.records) for table in tables]
    settings = {"svg.fonttype": "none", "svg.hashsalt": "tune", "font.size": 8, "text.color": theme.text}
    with rc_context(settings):
        height = ROW_INCHES * sum(rows) + HEAD_INCHES * len(rows)
        figure = Figure(figsize=(INCHES, height), layout="constrained", facecolor=theme.page)
        panels = figure.subplots(len(tables), squeeze=False, height_ratios=[count + 1 for count in rows])
        for (axes,), table in zip(panels, tables, strict=True):
            _draw_table(axes, table, ceilings)
            axes.set_title(
                f"{table.name}, {table.source}: {table.mean:.3f} of the rules' time, geometric mean", loc="left", size=9
            )
            axes.grid(axis="x", color=theme.grid, linewidth=0.5)
            axes.set_axisbelow(True)
            axes.tick_params(colors=theme.text, length=0)
            axes.spines[:].set_visible(False)
        panels[-1][0].set_xlabel("microseconds a call", color=theme.text)
        handles, labels = panels[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, labelcolor=theme.text)
        drawn = io.BytesIO()
        figure.savefig(drawn, format=kind, dpi=110, metadata={"Date": None, "Creator": None} if kind == "svg" else None)
    return drawn.getvalue()


def _draw_table(axes: Axes, table: Table, ceilings: Ceilings) -> None:
    places = range(len(table.records))
    before = [1e6 * record.rules_seconds for record in table.records]
    after = [1e6 * record.seconds for record in table.records]
    axes.barh([place - BAR / 2 for place in places], before, BAR, color=BEFORE, label="the rules' choice")
    axes.barh([place + BAR / 2 for place in places], after, BAR, color=AFTER, label="the record's")
    for place, record in zip(places, table.records, strict=True):
        longest = 1e6 * max(record.seconds, record.rules_seconds)
        axes.annotate(_words(record, ceilings), (longest, place), (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(list(places), [record.operation.title for record in table.records])
    axes.set_ylim(len(table.records) - 0.4, -0.6)
    axes.set_xlim(0, 1.35 * max(*before, *after))


def _words(record: Record, ceilings: Ceilings) -> str:
    before, after = (share_of_ceiling(record, seconds, ceilings) for seconds in (record.rules_seconds, record.seconds))
    if before is None or after is None:
        return f"{record.ratio:.3f}"
    return f"{record.ratio:.3f}; {100 * before:.0f} to {100 * after:.0f} % of the ceiling"
