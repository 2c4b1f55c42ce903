"""The drawings: the same bytes each time, legible on light and dark, faithful to the pixels."""

from __future__ import annotations

import base64
import doctest
import io
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from mmxx.lab.errors import CannotWriteError
from mmxx.lab.report import figures

RAMP = np.linspace(0, 1, 12).reshape(3, 4)

DRAW = """
import numpy as np
from mmxx.lab.report import figures as f
x = np.arange(5)
drawings = {
    "curves": f.curves({"a": (x, x + 1), "b $x^2$": (x, x**2 + 1)}, xlabel="x", ylabel="y",
                       title="t", logx=True, logy=True, bands={"a": (x, x, x + 2)}),
    "bars": f.bars({"a": 1.5, "b": -2}, ylabel="y", title="t", errors={"a": 0.2}),
    "pictures": f.pictures([[("a", np.eye(3)), ("b", np.zeros((2, 4, 3), np.uint8))], []]),
    "heatmap": f.heatmap(np.arange(6.0).reshape(2, 3), xlabel="x", ylabel="y", title="t"),
}
"""


def _drawn() -> dict[str, Figure]:
    scope: dict[str, dict[str, Figure]] = {}
    exec(DRAW, scope)  # the same lines run in another process below
    return scope["drawings"]


def test_same_bytes_twice_and_in_another_process(tmp_path: Path) -> None:
    for suffix in ("", "-again"):
        for name, drawing in _drawn().items():
            figures.save_svg(drawing, tmp_path / f"{name}{suffix}.svg")
    figures.save_png(RAMP, tmp_path / "ramp.png")
    program = DRAW + (
        "import sys\nfrom pathlib import Path\n"
        "for name, drawing in drawings.items():\n"
        "    f.save_svg(drawing, Path(f'{name}-other.svg'))\n"
        "f.save_png(np.linspace(0, 1, 12).reshape(3, 4), Path('ramp-other.png'))\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'torch' not in sys.modules\n"
    )
    environment = os.environ | {"PYTHONHASHSEED": "11", "SOURCE_DATE_EPOCH": "1000000000"}
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, cwd=tmp_path, env=environment
    )
    for path in [*tmp_path.glob("*-again.svg"), *tmp_path.glob("*-other.*")]:
        first = re.sub("-(again|other)", "", path.name)
        assert path.read_bytes() == (tmp_path / first).read_bytes(), path.name
    assert len(list(tmp_path.iterdir())) == 4 * 3 + 2


@pytest.mark.parametrize("name", ["curves", "bars", "pictures", "heatmap"])
def test_a_drawing_takes_the_colours_of_its_page(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.svg"
    figures.save_svg(_drawn()[name], path)
    source = path.read_text(encoding="utf-8")
    assert "currentColor" in source
    assert "#000000" not in source
    assert "2026" not in source
    assert "Matplotlib" not in source
    root = ElementTree.parse(path).getroot()
    assert root.get("fill") == "currentColor"
    words = [text for node in root.iter() if node.tag.endswith("}text") for text in node.itertext()]
    assert "a" in words or "x" in words  # texts stay texts
    for node in root.iter():
        style = node.get("style", "")
        if "fill: #ffffff" in style:  # numbers on dark cells, nothing else is white
            assert node.tag.endswith("}text")
            assert name == "heatmap"


def test_a_foreign_figure_is_legible_too(tmp_path: Path) -> None:
    drawing = Figure()
    drawing.subplots().plot([1, 2], color="black", label="line")
    figures.save_svg(drawing, tmp_path / "a.svg")
    source = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "stroke: currentColor" in source
    assert "#000000" not in source
    assert "fill: #ffffff" not in source  # no white page behind it


def test_settings_of_the_user_stay(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    for drawing in _drawn().values():
        figures.save_svg(drawing, tmp_path / "a.svg")
    assert dict(matplotlib.rcParams) == before


def _linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _contrast(one: str, other: str) -> float:
    light, dark = sorted(_linear(c) @ [0.2126, 0.7152, 0.0722] for c in (one, other))[::-1]
    return float((light + 0.05) / (dark + 0.05))


def _backgrounds() -> list[str]:
    style = Path(figures.__file__).parent / "templates" / "style.css"
    return re.findall(r"--card: (#[0-9a-f]{6})", style.read_text(encoding="utf-8"))


def test_colours_stand_out_on_both_pages() -> None:
    backgrounds = _backgrounds()
    assert len(backgrounds) == 2
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)
    for colour, background in itertools.product(figures.COLOURS, backgrounds):
        assert _contrast(colour, background) >= 3, (colour, background)


# Machado, Oliveira and Fernandes 2009, table 1, severity 1: linear RGB as the eye sees it.
_EYES = {
    "all cones": np.eye(3),
    "no long cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                      [-0.003882, -0.048116, 1.051998]],
    "no middle cones": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                        [-0.01182, 0.04294, 0.968881]],
    "no short cones": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                       [0.004733, 0.691367, 0.3039]],
}  # fmt: skip


@pytest.mark.parametrize("eye", _EYES)
def test_colours_can_be_told_apart(eye: str) -> None:
    def lab(colour: str) -> np.ndarray:
        seen = np.clip(np.array(_EYES[eye]) @ _linear(colour), 0, 1)
        rows = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
        x, y, z = np.cbrt(np.array(rows) @ seen / [0.9505, 1, 1.089])
        return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])

    for one, other in itertools.combinations(figures.COLOURS, 2):
        assert np.linalg.norm(lab(one) - lab(other)) > 12, (one, other)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4) * 23,
        np.arange(36, dtype=np.uint8).reshape(4, 3, 3) * 7,
        np.random.default_rng(0).integers(0, 256, (17, 5, 3), dtype=np.uint8),
        np.full((1, 1), 255, np.uint8),
    ],
)
def test_png_keeps_every_pixel(tmp_path: Path, array: np.ndarray) -> None:
    for name, picture in (("bytes", array), ("floats", array / 255)):
        figures.save_png(picture, tmp_path / f"{name}.png")
        back = matplotlib.image.imread(tmp_path / f"{name}.png")  # an independent decoder
        assert back.shape == array.shape
        np.testing.assert_array_equal(np.round(back * 255).astype(np.uint8), array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(3), r"HxW or HxWx3 and not empty, got shape \(3,\)"),
        (np.zeros((0, 4)), r"not empty, got shape \(0, 4\)"),
        (np.zeros((2, 2, 4)), r"got shape \(2, 2, 4\)"),
        (np.full((2, 2), 1.5), r"in \[0, 1\], got 1.5 to 1.5"),
        (np.full((2, 2), -0.1), r"got -0.1 to -0.1"),
        (np.array([[np.nan, 0]]), r"must be finite"),
        (np.zeros((2, 2), np.int64), r"uint8 or floats in \[0, 1\], got int64"),
        (np.zeros((2, 2), bool), r"got bool"),
    ],
)
def test_what_is_no_picture(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match="array .*" + message):
        figures.save_png(array, tmp_path / "a.png")
    with pytest.raises(ValueError, match="picture 'cat' .*" + message):
        figures.pictures([[("cat", array)]])
    assert not list(tmp_path.iterdir())


def test_pictures_carry_their_own_pixels(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7), dtype=np.uint8)
    figures.save_svg(figures.pictures([[("a", array)], [("b", array), ("c", RAMP)]]),
                     tmp_path / "a.svg")  # fmt: skip
    source = (tmp_path / "a.svg").read_text(encoding="utf-8")
    found = [
        matplotlib.image.imread(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r"base64,([^\"]+)\"", source)
    ]
    assert [picture.shape[:2] for picture in found] == [(5, 7), (5, 7), (3, 4)]
    shown = np.round(found[0][..., 0] * 255)
    assert np.array_equal(shown, array) or np.array_equal(shown[::-1], array)


def test_curves_are_drawn_as_given() -> None:
    series = {f"arm {i}": ([0, 1, 2], [i, np.nan, i + 1]) for i in range(7)}
    axes = figures.curves(series, xlabel="step", ylabel="loss", title="t").axes[0]
    lines = axes.get_lines()
    assert [line.get_label() for line in lines] == list(series)
    np.testing.assert_array_equal(lines[3].get_ydata(), [3, np.nan, 4])
    looks = {(line.get_color(), str(line.get_linestyle())) for line in lines}
    assert len(looks) == 7
    assert figures.curves({"a": ([1], [1])}, xlabel="", ylabel="").axes[0].get_legend() is None


@pytest.mark.parametrize("y", [[-1.0, -2.0], [np.nan, np.nan], [np.inf, 0.0], []])
def test_a_log_axis_without_anything_positive_is_drawn(tmp_path: Path, y: list[float]) -> None:
    drawing = figures.curves({"a": (y, y)}, xlabel="x", ylabel="y", logx=True, logy=True)
    figures.save_svg(drawing, tmp_path / "a.svg")  # a warning would be an error here
    assert drawing.axes[0].get_yscale() == "linear"
    drawing = figures.curves({"a": ([1, 2], [0, 5])}, xlabel="x", ylabel="y", logx=True, logy=True)
    figures.save_svg(drawing, tmp_path / "b.svg")
    assert (drawing.axes[0].get_xscale(), drawing.axes[0].get_yscale()) == ("log", "log")


def test_bars_and_cells_that_are_not_finite(tmp_path: Path) -> None:
    drawing = figures.bars({"a": 1.0, "b": float("nan"), "c": -3.5}, ylabel="y")
    assert [text.get_text() for text in drawing.axes[0].texts] == ["1", "nan", "-3.5"]
    assert [bar.get_width() for bar in drawing.axes[0].patches] == [1, 0, -3.5]
    figures.save_svg(drawing, tmp_path / "a.svg")
    array = np.array([[1.0, np.nan], [np.inf, 4.0]])
    drawing = figures.heatmap(array, xlabel="x", ylabel="y")
    assert [text.get_text() for text in drawing.axes[0].texts] == ["1", "4"]
    figures.save_svg(drawing, tmp_path / "b.svg")
    figures.save_svg(figures.heatmap(array * np.nan, xlabel="", ylabel=""), tmp_path / "c.svg")
    figures.save_svg(figures.heatmap(np.ones((30, 2)), xlabel="", ylabel=""), tmp_path / "d.svg")


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"series\['a'\] must be 2 rows of one length"):
        figures.curves({"a": ([1, 2], [1])}, xlabel="", ylabel="")
    with pytest.raises(ValueError, match=r"bands\['a'\] must be 3 rows of one length"):
        figures.curves({"a": ([1], [1])}, xlabel="", ylabel="", bands={"a": ([1], [1])})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"among the series \['a'\], got \['b'\]"):
        figures.curves({"a": ([1], [1])}, xlabel="", ylabel="", bands={"b": ([1], [1], [1])})
    with pytest.raises(ValueError, match="values must not be empty"):
        figures.bars({}, ylabel="")
    with pytest.raises(ValueError, match=r"among the values \['a'\], got \['b'\]"):
        figures.bars({"a": 1}, ylabel="", errors={"b": 1})
    with pytest.raises(ValueError, match="must not be negative, got -1 for 'a'"):
        figures.bars({"a": 1}, ylabel="", errors={"a": -1})
    with pytest.raises(ValueError, match="at least one picture"):
        figures.pictures([[], []])
    for array in (np.zeros(3), np.zeros((0, 2))):
        with pytest.raises(ValueError, match="must be RxC and not empty"):
            figures.heatmap(array, xlabel="", ylabel="")
    with pytest.raises(TypeError, match="matplotlib Figure, got ndarray"):
        figures.save_svg(np.zeros(3), Path("a.svg"))  # type: ignore[arg-type]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CannotWriteError, match=r"absent/a\.png: No such file"):
        figures.save_png(RAMP, tmp_path / "absent" / "a.png")
    with pytest.raises(CannotWriteError, match=r"absent/a\.svg: No such file"):
        figures.save_svg(Figure(), tmp_path / "absent" / "a.svg")


def test_examples_run() -> None:
    result = doctest.testmod(figures)
    assert result.attempted >= 8
    assert result.failed == 0
