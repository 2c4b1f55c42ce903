"""Drawings for reports, in one calm style, and writing them with the same bytes every time.

The drawing functions return :class:`matplotlib.figure.Figure` objects and touch neither pyplot
nor the user's settings, so that any of them can be changed before it is handed to the run.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mmxx.lab.checkpoint import write_bytes

#: Told apart by normal and by colour-blind eyes, at a contrast of 3 or more on white and on
#: the dark page alike.
COLOURS = ("#2f7bd6", "#df7a00", "#0f9a84", "#b04a9e", "#c0392f")
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)))
_INK = "#000000"  # whatever is black in a drawing takes the text colour of its page
_WIDTH = 5.2  # inches, at which the text is legible in a column of a telephone too

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.axisbelow": True,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "grid.color": _INK,
    "grid.alpha": 0.13,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "lines.solid_capstyle": "round",
    "figure.constrained_layout.use": True,
}
_SVG: dict[Any, Any] = {"svg.hashsalt": "mmxx", "svg.fonttype": "none", "svg.image_inline": True}


@matplotlib.rc_context(_STYLE)
def curves(
    series: Mapping[str, tuple[Any, Any]],
    *,
    xlabel: str,
    ylabel: str,
    title: str = "",
    logx: bool = False,
    logy: bool = False,
    bands: Mapping[str, tuple[Any, Any, Any]] | None = None,
) -> Figure:
    """Lines over a common axis, one for each name.

    Args:
        series: For each name the ``x`` and ``y`` values, one-dimensional and of equal length.
            Values that are not finite leave a gap.
        xlabel: What x is, with its unit.
        ylabel: What y is, with its unit.
        title: Stands above the axes.
        logx: Logarithmic x, where any x is positive.
        logy: Logarithmic y, where any y is positive.
        bands: For some of the names ``x``, ``low`` and ``high`` of a shaded interval.

    Raises:
        ValueError: Lengths differ, or a band has no series.

    Example:
        >>> figure = curves({"siren": ([0, 1, 2], [9.0, 3.0, 1.0])}, xlabel="step", ylabel="loss")
        >>> figure.axes[0].get_xlabel()
        'step'
    """
    lines = {name: _columns(f"series[{name!r}]", pair, 2) for name, pair in series.items()}
    shades = {name: _columns(f"bands[{name!r}]", trio, 3) for name, trio in (bands or {}).items()}
    if unknown := sorted(set(shades) - set(lines)):
        raise ValueError(f"bands must be among the series {sorted(lines)}, got {unknown}")
    figure = Figure(figsize=(_WIDTH, 3.3))
    axes = figure.subplots()
    for index, (name, (x, y)) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        dashes = _DASHES[index // len(COLOURS) % len(_DASHES)]
        single = "o" if len(x) == 1 else None
        axes.plot(x, y, color=colour, linestyle=dashes, marker=single, label=name)
        if name in shades:
            x, low, high = shades[name]
            axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if logx and any((x[np.isfinite(x)] > 0).any() for x, _ in lines.values()):
        axes.set_xscale("log")
    if logy and any((y[np.isfinite(y)] > 0).any() for _, y in lines.values()):
        axes.set_yscale("log")
    axes.grid(True)
    _head(figure, title, lines)
    return figure


@matplotlib.rc_context(_STYLE)
def pictures(rows: Sequence[Sequence[tuple[str, Any]]]) -> Figure:
    """A grid of labelled pictures, each at its own pixels.

    Args:
        rows: For each row of the grid its labels and pictures, HxW or HxWx3, uint8 or floats in
            [0, 1]. Rows may differ in length.

    Raises:
        ValueError: There is no picture, or one has another shape or range.

    Example:
        >>> figure = pictures([[("black", np.zeros((4, 4))), ("white", np.ones((4, 4)))]])
        >>> [axes.get_title(loc="center") for axes in figure.axes]
        ['black', 'white']
    """
    grid = [[(label, _pixels(array, f"picture {label!r}")) for label, array in row] for row in rows]
    columns = max((len(row) for row in grid), default=0)
    if not columns:
        raise ValueError("pictures: rows must hold at least one picture")
    side = max(_WIDTH, 1.15 * columns) / columns
    heights = [
        max((array.shape[0] / array.shape[1] for _, array in row), default=0) for row in grid
    ]
    heights = [side * min(height, 3) + 0.25 for height in heights]
    figure = Figure(figsize=(side * columns, sum(heights)))
    axes = figure.subplots(len(grid), columns, squeeze=False, height_ratios=heights)
    for row, line in zip(grid, axes, strict=True):
        for place in line:
            place.set_axis_off()
        for (label, array), place in zip(row, line, strict=False):
            # A colour map would round; three equal channels keep every grey.
            colour = array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2)
            place.imshow(colour, interpolation="none")
            place.set_title(label, fontsize=8.5, loc="center", pad=4)
    return figure


@matplotlib.rc_context(_STYLE)
def bars(
    values: Mapping[str, float],
    *,
    ylabel: str,
    title: str = "",
    errors: Mapping[str, float] | None = None,
) -> Figure:
    """Bars that lie, so that long names stay legible, each with its figure at the end.

    Args:
        values: The length of each bar. One that is not finite is named and left empty.
        ylabel: What the values are, with their unit.
        title: Stands above the axes.
        errors: For some of the names the half width of an interval.

    Raises:
        ValueError: There is no value, or an error has no bar or is negative.

    Example:
        >>> figure = bars({"siren": 45.1, "relu": 22.4}, ylabel="PSNR [dB]")
        >>> len(figure.axes[0].patches)
        2
    """
    errors = dict(errors or {})
    if not values:
        raise ValueError("bars: values must not be empty")
    if unknown := sorted(set(errors) - set(values)):
        raise ValueError(f"errors must be among the values {sorted(values)}, got {unknown}")
    if negative := [name for name, width in errors.items() if not width >= 0]:
        raise ValueError(
            f"errors must not be negative, got {errors[negative[0]]} for {negative[0]!r}"
        )
    figure = Figure(figsize=(_WIDTH, 0.75 + 0.36 * len(values)))
    axes = figure.subplots()
    places = np.arange(len(values))
    lengths = np.array([v if math.isfinite(v) else 0.0 for v in map(float, values.values())])
    widths = np.array([float(errors.get(name, 0)) for name in values])
    colours = [COLOURS[index % len(COLOURS)] for index in places]
    axes.barh(places, lengths, height=0.62, color=colours)
    given = [name in errors for name in values]
    axes.errorbar(
        lengths[given],
        places[given],
        xerr=widths[given],
        fmt="none",
        ecolor=_INK,
        elinewidth=1,
        capsize=3,
    )
    for place, value, length, width in zip(places, values.values(), lengths, widths, strict=True):
        right = length >= 0
        axes.annotate(
            f"{value:.4g}" if math.isfinite(value) else str(value),
            (length + (width if right else -width), place),
            xytext=(4 if right else -4, 0),
            textcoords="offset points",
            ha="left" if right else "right",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(places, list(values))
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.margins(x=0.16)
    if lengths.min() >= 0:
        axes.set_xlim(left=0)
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(ylabel)
    axes.grid(True, axis="x")
    _head(figure, title, {})
    return figure


@matplotlib.rc_context(_STYLE)
def heatmap(array: Any, *, xlabel: str, ylabel: str, title: str = "") -> Figure:
    """A matrix as colours, dark for low and light for high; small ones with their numbers.

    Args:
        array: RxC, real. Row 0 is at the top; cells that are not finite stay empty.
        xlabel: What the columns are.
        ylabel: What the rows are.
        title: Stands above the axes.

    Raises:
        ValueError: The array is empty or not two-dimensional.

    Example:
        >>> figure = heatmap([[0.0, 1.0], [2.0, 3.0]], xlabel="to", ylabel="from")
        >>> len(figure.axes[0].texts)
        4
    """
    cells = np.asarray(array, dtype=float)
    if cells.ndim != 2 or not cells.size:
        raise ValueError(f"heatmap: array must be RxC and not empty, got shape {cells.shape}")
    finite = np.isfinite(cells)
    low, high = (cells[finite].min(), cells[finite].max()) if finite.any() else (0.0, 1.0)
    height = min(max(_WIDTH * 0.8 * cells.shape[0] / cells.shape[1], 1.6), 6.0) + 0.6
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.subplots()
    shown = np.ma.masked_array(cells, ~finite)
    image = axes.imshow(
        shown, cmap="viridis", vmin=low, vmax=high, aspect="auto", interpolation="none"
    )
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=30)
    bar.outline.set_visible(False)
    if max(cells.shape) <= 10:
        for (row, column), value in np.ndenumerate(cells):
            if finite[row, column]:
                dark = value < low + 0.6 * (high - low)
                colour = "#ffffff" if dark else "#10151a"
                axes.text(
                    column, row, f"{value:.2g}", color=colour, fontsize=8, ha="center", va="center"
                )
        axes.set_xticks(range(cells.shape[1]))
        axes.set_yticks(range(cells.shape[0]))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.spines[:].set_visible(False)
    _head(figure, title, {})
    return figure


def save_svg(figure: Figure, path: Path) -> None:
    """Write a drawing as SVG, with the same bytes for a figure that was built in the same way.

    The background is transparent and what is black becomes ``currentColor``, so that the
    drawing suits a light page and a dark one. Texts stay texts.

    Args:
        figure: Any figure of matplotlib, from here or not.
        path: The file, written whole or not at all.

    Raises:
        TypeError: ``figure`` is not a figure.
        CannotWriteError: The file cannot be written.
    """
    if not isinstance(figure, Figure):
        raise TypeError(f"figure must be a matplotlib Figure, got {type(figure).__name__}")
    buffer = io.StringIO()
    unstamped = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with matplotlib.rc_context(_SVG):
        figure.savefig(buffer, format="svg", transparent=True, metadata=unstamped)
    # Black is left out of a fill, being SVG's default: the root hands down the page's colour.
    text = buffer.getvalue().replace(_INK, "currentColor")
    write_bytes(Path(path), text.replace("<svg ", '<svg fill="currentColor" ', 1).encode())


def save_png(array: Any, path: Path) -> None:
    """Write a picture as PNG, with the same bytes for the same picture.

    Args:
        array: HxW or HxWx3, uint8 or floats in [0, 1].
        path: The file, written whole or not at all.

    Raises:
        ValueError: Another shape, type or range.
        CannotWriteError: The file cannot be written.
    """
    pixels = _pixels(array, "array")
    height, width = pixels.shape[:2]
    lines = pixels.reshape(height, -1).astype(np.int16)
    above = np.vstack([np.zeros_like(lines[:1]), lines[:-1]])
    # Filter 2: each line as its difference from the line above, which packs better.
    packed = np.hstack([np.full((height, 1), 2), (lines - above) % 256]).astype(np.uint8)
    head = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    body = zlib.compress(packed.tobytes(), 9)
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    )
    write_bytes(Path(path), content)


def _pixels(array: Any, name: str) -> np.ndarray:
    values = np.asarray(array)
    if values.ndim not in (2, 3) or not values.size or (values.ndim == 3 and values.shape[2] != 3):
        raise ValueError(f"{name} must be HxW or HxWx3 and not empty, got shape {values.shape}")
    if values.dtype == np.uint8:
        return values
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"{name} must be uint8 or floats in [0, 1], got {values.dtype}")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"{name} must be finite and in [0, 1], got {values.min():g} to {values.max():g}"
        )
    return np.round(values * 255).astype(np.uint8)


def _columns(name: str, values: Sequence[Any], count: int) -> list[np.ndarray]:
    columns = [np.asarray(column, dtype=float) for column in values]
    if (
        len(columns) != count
        or len({column.shape for column in columns}) != 1
        or columns[0].ndim != 1
    ):
        shapes = [column.shape for column in columns]
        raise ValueError(f"{name} must be {count} rows of one length, got shapes {shapes}")
    return columns


def _head(figure: Figure, title: str, lines: Mapping[str, Any]) -> None:
    axes = figure.axes[0]
    if title:
        figure.suptitle(title, x=0.02, ha="left", fontsize=10, fontweight="bold")
    if len(lines) > 1:
        widest = max(len(name) for name in lines)
        columns = max(1, min(len(lines), int(66 / (widest + 7))))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.3)
