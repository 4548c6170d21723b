"""Charts as SVG text for the page. Colours are names of the style sheet, so that they follow light, dark and print."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Stand-ins that matplotlib accepts; replaced by what the style sheet defines once the SVG is text.
_INK, _FAINT = "#010101", "#020202"
_SERIES = ("#030301", "#030302", "#030303", "#030304", "#030305", "#030306")
_COLOURS = {_INK: "currentColor", _FAINT: "var(--line)"} | {
    stand_in: f"var(--series-{number})" for number, stand_in in enumerate(_SERIES, start=1)
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "potstill",
    "font.size": 10,
    # Names come from users; a dollar sign in them is no formula.
    "text.parse_math": False,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.titlesize": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _FAINT,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
_MOST_POINTS = 240


def accuracy_plot(rows: Sequence[Mapping[str, Any]]) -> Markup:
    """One line a method, top to bottom: a dot for every seed, a diamond at the mean, a bar over the 95 % interval.

    Each row has `name`, `is_best`, `accuracies` (rates), `mean` and `ci95` (or None).
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 0.7 + 0.42 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, row in enumerate(rows):
            colour = _SERIES[0] if row["is_best"] else _SERIES[1]
            if row["ci95"] is not None:
                low, high = (100 * end for end in row["ci95"])
                axes.plot([low, high], [place, place], color=colour, linewidth=6, alpha=0.35, solid_capstyle="round")
            dots = [100 * value for value in row["accuracies"]]
            axes.plot(dots, [place] * len(dots), "o", color=colour, markersize=4, alpha=0.8)
            axes.plot([100 * row["mean"]], [place], "D", color=colour, markersize=7)
        axes.set_yticks(range(len(rows)), [row["name"] for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("accuracy on the test images, points")
        best = max(rows, key=lambda row: row["mean"])
        description = f"Accuracy of {len(rows)} methods, {best['name']} highest. The table above has the figures."
        return _as_svg(figure, "accuracy", description)


def curves_plot(curves: Sequence[Mapping[str, Any]]) -> Markup:
    """Loss terms over the training steps, one small chart a run.

    Each curve has `title`, `steps` and `terms` (name -> values, one a step).
    """
    columns = min(3, len(curves))
    lines = math.ceil(len(curves) / columns)
    names = list(dict.fromkeys(name for curve in curves for name in curve["terms"]))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8.2, 0.5 + 1.9 * lines), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        handles = {}
        for axes, curve in zip(grid.flat, curves, strict=False):
            for name, values in curve["terms"].items():
                colour = _SERIES[names.index(name) % len(_SERIES)]
                dash = "-" if names.index(name) < len(_SERIES) else "--"
                steps, means = _thinned(curve["steps"], values)
                (handles[name],) = axes.plot(steps, means, dash, color=colour, linewidth=1.6)
            axes.set_title(curve["title"], loc="left")
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
        for axes in list(grid.flat)[len(curves) :]:
            axes.set_visible(False)
        figure.supxlabel("training step", fontsize=10)
        figure.legend(
            [handles[name] for name in names], names, loc="outside upper left", ncols=min(4, len(names)), fontsize=9
        )
        description = f"Loss terms ({', '.join(names)}) over the training steps of {len(curves)} runs."
        return _as_svg(figure, "curves", description)


def _thinned(steps: Sequence[float], values: Sequence[float | None]) -> tuple[list[float], list[float]]:
    """Means over neighbouring steps, at most `_MOST_POINTS`, so that a long run stays small and readable."""
    pairs = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    width = math.ceil(len(pairs) / _MOST_POINTS) or 1
    blocks = [pairs[start : start + width] for start in range(0, len(pairs), width)]
    means = [[sum(column) / len(block) for column in zip(*block, strict=True)] for block in blocks]
    return [step for step, _ in means], [value for _, value in means]


def _as_svg(figure: Figure, name: str, description: str) -> Markup:
    stream = io.StringIO()
    figure.patch.set_visible(False)
    for axes in figure.axes:
        axes.patch.set_visible(False)
    with warnings.catch_warnings():
        # A name in a script that the font lacks is measured badly but shown well: the browser draws the text.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        canvas: Any = FigureCanvasSVG(figure)
        canvas.print_svg(stream, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    for stand_in, colour in _COLOURS.items():
        text = text.replace(stand_in, colour)
    # Several charts share the page, so their ids must differ.
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r'^<svg ([^>]*?)width="[^"]*"', r"<svg \1", text, count=1)
    text = re.sub(r'^<svg ([^>]*?)height="[^"]*"', r"<svg \1", text, count=1)
    label = Markup.escape(description)
    # matplotlib escapes the texts it was given, so this is markup already.
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1))
