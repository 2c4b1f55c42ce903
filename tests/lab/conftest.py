"""A run folder and a review as the lab writes them, for the tests of the report."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def _claim(
    name: str, text: str, where: str, paper: float | None, bars: dict[str, Any], **other: Any
) -> dict[str, Any]:
    blank = {"unit": "", "scaled": "", "sham": False, "data_sha256": None}
    return {"id": name, "text": text, "where": where, "paper": paper, "bars": bars} | blank | other


def _at_least(value: float) -> dict[str, Any]:
    return {"op": ">=", "value": value}


SIREN_CLAIMS = [
    _claim(
        "image-fit",
        "A sine network with $\\omega_0 = 30$ fits a photograph above 40 dB within a few "
        "hundred steps.",
        "Figure 1",
        50.0,
        {"quick": _at_least(40), "full": _at_least(40)},
        unit="dB",
        scaled="64 × 64 pixels and 128 units a layer, instead of 512 × 512 and 256.",
    ),
    _claim(
        "best-baseline",
        "At equal steps and with the same search for its step size, no rival comes near.",
        "Section 4.1",
        None,
        {"quick": _at_least(8), "full": _at_least(8)},
        unit="dB over the best baseline",
        sham=True,
        scaled="One photograph, three rivals, two step sizes each.",
    ),
    _claim(
        "held-out",
        "The fit interpolates pixels that it never saw better than bicubic interpolation.",
        "Supplement, section 5",
        None,
        {"quick": _at_least(0.2)},
        unit="dB over bicubic",
        scaled="Every second pixel of 48 × 48.",
    ),
    _claim(
        "laplacian",
        "The Laplacian of the fit is the Laplacian of the picture: "
        "$\\nabla^2 \\Phi(\\mathbf{x}) \\approx \\nabla^2 f(\\mathbf{x})$.",
        "Figure 1, bottom row",
        None,
        {"quick": {"op": "<=", "value": 0.05}},
        unit="relative error",
    ),
    _claim(
        "poisson",
        "From its gradients alone a picture is recovered above 30 dB.",
        "Table 2",
        32.91,
        {"full": _at_least(30)},
        unit="dB",
        scaled="64 × 64 pixels, 300 steps.",
    ),
]

CARD = {
    "name": "siren",
    "title": "SIREN: sine networks",
    "paper": {
        "title": "Implicit Neural Representations with Periodic Activation Functions",
        "authors": [
            "Vincent Sitzmann",
            "Julien N. P. Martel",
            "Alexander W. Bergman",
            "David B. Lindell",
            "Gordon Wetzstein",
        ],
        "venue": "NeurIPS 2020",
        "year": 2020,
        "url": "https://arxiv.org/abs/2006.09661",
        "arxiv": "2006.09661",
    },
    "summary": "A small network with sine activations, "
    "$\\phi_i(x) = \\sin(\\omega_0 (W_i x + b_i))$, stands for one signal: a picture, a sound, "
    "a shape. It fits fine detail, and its derivatives are as good as its values.",
    "claims": SIREN_CLAIMS,
    "api": ["mmxx.signals.siren:Siren", "mmxx.signals.siren:SirenField"],
    "experiment": "mmxx.signals.siren.experiment:run",
    "extra": "torch",
    "departs": [
        "The bias is multiplied by $\\omega_0$ as in the authors' code; the paper's equation 1 "
        "leaves it outside.",
        "Every arm is trained at two step sizes and the better one is taken; the paper uses "
        "$10^{-4}$ throughout.",
    ],
    "scale": ["ddp", "map"],
}


def _line(
    index: int, verdict: str, measured: float | None, *, note: str = "", **other: Any
) -> dict[str, Any]:
    written = SIREN_CLAIMS[index]
    shared = {key: written[key] for key in ("id", "text", "where", "paper", "unit", "sham")}
    empty = {"baseline": None, "control": None, "seeds": [0, 1, 2]}
    judged = {"measured": measured, "verdict": verdict, "note": note}
    return shared | {"bar": written["bars"]["quick"]} | empty | judged | other


def _json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _photograph(side: int) -> np.ndarray:
    """A shaded ball over stripes: edges, gradients and fine detail."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    picture = 0.45 + 0.2 * np.sin(9 * x * (1.5 + y)) * (y > -0.2) + 0.15 * y
    ball = (x - 0.2) ** 2 + (y + 0.1) ** 2 < 0.3
    light = np.clip(1 - ((x + 0.05) ** 2 + (y + 0.35) ** 2) / 0.7, 0.05, 1)
    return np.clip(np.where(ball, light, picture), 0, 1)


def _blurred(picture: np.ndarray, rounds: int) -> np.ndarray:
    for _ in range(rounds):
        sides = [np.roll(picture, shift, axis) for shift in (1, -1) for axis in (0, 1)]
        picture = (picture + sum(sides)) / 5
    return picture


def build_run(folder: Path, *, drawn: bool = True) -> Path:
    """Write a finished quick run of a SIREN-like system into a new folder."""
    from mmxx.lab.report import figures

    folder.mkdir(parents=True)
    for name in ("figures", "tables", "artifacts"):
        (folder / name).mkdir()
    steps = np.arange(0, 200, 4)
    rates = {"siren": (45.1, 40), "relu-pe": (34.7, 60), "relu": (22.4, 30), "tanh": (17.8, 50)}
    fits = {
        name: (steps, end - (end - 6) * np.exp(-steps / rate) + 0.3 * np.sin(steps / 3))
        for name, (end, rate) in rates.items()
    }
    contents = []

    def add(kind: str, name: str, file: str, caption: str = "") -> Path:
        contents.append({"kind": kind, "name": name, "file": file, "caption": caption})
        return folder / file

    if drawn:
        photograph = _photograph(64)
        bands = {name: (x, y - 1.5, y + 1.5) for name, (x, y) in list(fits.items())[:1]}
        drawing = figures.curves(fits, xlabel="step", ylabel="PSNR [dB]", bands=bands)
        caption = (
            "Every arm at the better of its two step sizes. The band is $\\pm 1$ standard error."
        )
        figures.save_svg(drawing, add("figure", "fits", "figures/fits.svg", caption))
        ends = {name: rate[0] for name, rate in rates.items()}
        drawing = figures.bars(ends, ylabel="PSNR after 200 steps [dB]", errors={"siren": 1.5})
        figures.save_svg(drawing, add("figure", "ends", "figures/ends.svg", "After 200 steps."))
        row = [(name, _blurred(photograph, n)) for name, n in (("target", 0), ("siren", 0))]
        row += [(name, _blurred(photograph, n)) for name, n in (("relu-pe", 3), ("relu", 12))]
        slope = np.abs(np.gradient(photograph)[0]) + np.abs(np.gradient(photograph)[1])
        low = [(f"∇ {name}", np.clip(2 * _blurred(slope, n), 0, 1)) for (name, _), n in
               zip(row, (0, 0, 4, 14), strict=True)]  # fmt: skip
        caption = "The fits, and below them the size of their gradients."
        add("figure", "grid", "figures/grid.svg", caption)
        figures.save_svg(figures.pictures([row, low]), folder / "figures/grid.svg")
        rng = np.random.default_rng(3)
        spectrum = np.sort(rng.normal(size=(5, 8)) ** 2, axis=1)[:, ::-1]
        drawing = figures.heatmap(
            spectrum, xlabel="band", ylabel="layer", title="Spectrum at start"
        )
        figures.save_svg(drawing, add("figure", "spectrum", "figures/spectrum.svg"))
        colour = np.stack([photograph, _blurred(photograph, 4), 1 - photograph], axis=-1)
        caption = "The target, enlarged so that its pixels show."
        figures.save_png(colour, add("image", "target", "figures/target.png", caption))

    rows = [
        [name, lr, seed, f"{end - seed * 0.31:.6f}", f"{0.4 + seed / 7:.12f}", 200, 66_561]
        for name, (end, _) in rates.items()
        for lr in ("0.0001", "0.001")
        for seed in range(2)
    ]
    caption = "Every arm, both step sizes. The interval is the half width at 95 %."
    with open(add("table", "arms", "tables/arms.csv", caption), "w", newline="") as file:
        head = ["arm", "lr", "seed", "psnr [dB]", "half width", "steps", "parameters"]
        csv.writer(file).writerows([head, *rows])
    wide = [f"frequency band {index}" for index in range(14)]
    with open(add("table", "spectrum", "tables/spectrum.csv"), "w", newline="") as file:
        csv.writer(file).writerows([["layer", *wide], ["first", *range(14)], ["last", *[0.5] * 14]])
    caption = "The fitted surface at 64 × 64 × 64."
    add("artifact", "torus.ply", "artifacts/torus.ply", caption).write_text("ply\n" + "0 " * 900)

    with open(folder / "metrics.jsonl", "w") as file:
        for name, (x, y) in fits.items():
            for step, psnr in zip(x.tolist(), y.tolist(), strict=True):
                loss = None if (name, step) == ("tanh", 100) else 4 * 10 ** (-psnr / 10)
                line = {"loop": name, "step": step, "t": step / 40, "psnr": psnr, "loss": loss}
                file.write(json.dumps(line) + "\n")
    (folder / "log.txt").write_text("siren: 200 steps\n")

    _json(
        folder / "claims.json",
        {
            "schema": 1,
            "system": "siren",
            "tier": "quick",
            "seed": 0,
            "status": "done",
            "claims": [
                _line(0, "holds", 45.1327, baseline=34.71, control=17.8),
                _line(1, "holds", 10.4227, baseline=34.71, control=17.8),
                _line(
                    2,
                    "falls short",
                    -0.6,
                    baseline=26.8,
                    note="With $\\omega_0 = 10$, chosen by validation, the margin is above zero.",
                ),
                _line(3, "not measured", None, note="loss became NaN at step 812"),
            ],
        },
    )
    _json(
        folder / "run.json",
        {
            "schema": 1,
            "system": "siren",
            "tier": "quick",
            "seed": 0,
            "status": "done",
            "reason": None,
            "card": CARD,
            "config": {
                "size": 64,
                "hidden_features": 128,
                "hidden_layers": 3,
                "omega_0": 30.0,
                "steps": 200,
                "rates": [0.0001, 0.001],
                "data": None,
            },
            "argv": ["/opt/venv/bin/mmxx", "run", "siren", "--seed", "0", "--out", "/tmp/a b"],
            "versions": {"mmxx": "0.1.0", "python": "3.11.2", "numpy": "2.4.6", "torch": "2.13.0"},
            "host": {
                "system": "Linux 6.1",
                "machine": "x86_64",
                "processor": "AMD EPYC 7B13",
                "cores": 2,
                "threads": 2,
            },
            "device": "cpu",
            "devices": 1,
            "backend": "process",
            "started": "2026-11-21T09:30:05.123456+00:00",
            "ended": "2026-11-21T09:30:29.001+00:00",
            "seconds": 21.4,
            "sessions": [
                {
                    "started": "2026-11-21T09:30:05.123456+00:00",
                    "ended": "2026-11-21T09:30:14+00:00",
                    "status": "interrupted",
                    "resumed": {},
                },
                {
                    "started": "2026-11-21T09:30:17+00:00",
                    "ended": "2026-11-21T09:30:29.001+00:00",
                    "status": "done",
                    "resumed": {"siren": 120, "relu-pe": 80},
                },
            ],
            "data": [
                {
                    "name": "Ball over stripes",
                    "licence": "CC0",
                    "origin": "drawn by a formula",
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                }
            ],
            "notes": [
                "The network has 16 times more parameters than the picture has pixels; the figure "
                "says how well it can remember, and the held-out pixels how well it interpolates."
            ],
            "contents": contents,
        },
    )
    return folder


def build_review(folder: Path) -> Path:
    """Write a review with every kind of ending a system can have."""
    from mmxx.lab.report import render_run

    folder.mkdir(parents=True)
    render_run(build_run(folder / "siren", drawn=False))
    other = build_run(folder / "snake", drawn=False)
    run, judged = (json.loads((other / f"{n}.json").read_text()) for n in ("run", "claims"))
    run["system"] = run["card"]["name"] = "snake"
    run["card"]["title"] = "Snake: periodic extrapolation"
    judged["claims"] = judged["claims"][:1]
    judged["claims"][0] |= {
        "text": "A network with $x + \\sin^2(ax)/a$ continues a periodic series beyond its data.",
        "where": "Figure 4",
        "unit": "× the error of the seasonal mean",
        "bar": {"op": "<=", "value": 0.5},
        "measured": 0.3127,
        "baseline": 4.02e-5,
        "control": 1_250_000,
        "paper": None,
    }
    _json(other / "run.json", run)
    _json(other / "claims.json", judged)
    render_run(other)
    (folder / "muzero").mkdir()
    endings = [
        ("siren", "SIREN: sine networks", "siren", "done", None, 21.4),
        ("snake", "Snake: periodic extrapolation", "snake", "done", None, 8.06),
        ("muzero", "MuZero", "muzero", "crashed", "signal 11 while planning", 61.0),
        ("grover", "GROVER", None, "missing extra", "pip install 'mmxx[molecules]'", None),
        ("stranger", "A plug-in", None, "broken", "ImportError: no module named 'gone'", None),
        ("lottery", "The lottery ticket", None, "not run", None, None),
    ]
    keys = ("system", "title", "folder", "status", "reason", "seconds")
    _json(
        folder / "review.json",
        {
            "schema": 1,
            "tier": "quick",
            "started": "2026-11-21T09:30:00+00:00",
            "ended": "2026-11-21T09:34:10+00:00",
            "seconds": 250.0,
            "entries": [dict(zip(keys, ending, strict=True)) for ending in endings],
        },
    )
    return folder


@pytest.fixture(scope="session")
def _built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("report")
    build_run(base / "drawn")
    build_run(base / "plain", drawn=False)
    build_review(base / "review")
    return base


@pytest.fixture
def run_folder(_built: Path, tmp_path: Path) -> Path:
    """A finished run with figures, pictures, tables and every kind of verdict."""
    return Path(shutil.copytree(_built / "drawn", tmp_path / "runs" / "drawn"))


@pytest.fixture
def plain_run(_built: Path, tmp_path: Path) -> Path:
    """The same run without its drawings, which is quicker to render."""
    return Path(shutil.copytree(_built / "plain", tmp_path / "runs" / "plain"))


@pytest.fixture
def review_folder(_built: Path, tmp_path: Path) -> Path:
    """A review with systems that ended in every possible way."""
    return Path(shutil.copytree(_built / "review", tmp_path / "review"))


@pytest.fixture
def change() -> Callable[..., None]:
    """Change top-level keys of a JSON file in a folder."""

    def apply(path: Path, **values: Any) -> None:
        _json(path, json.loads(path.read_text(encoding="utf-8")) | values)

    return apply
