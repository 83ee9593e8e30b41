"""Colours of plots on a light and on a dark page: GitHub's own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Colours as #rrggbb: of text, of the grid, of the page."""

    text: str
    grid: str
    page: str


THEMES = {"light": Theme("#1f2328", "#d1d9e0", "#ffffff"), "dark": Theme("#f0f6fc", "#3d444d", "#0d1117")}
