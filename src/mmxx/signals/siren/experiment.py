"""SIREN beside ReLU, tanh and ReLU with a positional encoding: pictures, sound and shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from mmxx.data import Audio, Mesh, PointCloud
    from mmxx.lab.run import Run
    from mmxx.signals.siren.problems import Problem

_BASELINES = ("relu", "tanh", "relu+encoding")
_CLAIMS = ("beats-baselines", "fits-picture", "poisson", "poisson-margin")
_SAFE_RATE = 1e-4  # at 1e-3 a SIREN is unstable on derivatives and at high frequencies


@dataclass(frozen=True)
class Config:
    """Fit a photograph with SIREN and with what it is compared to, or fit a file of your own."""

    size: int = 64
    """Longer side of the fitted picture, which is every second pixel of one twice as large."""
    hidden: int = 128
    """Units of a hidden layer."""
    layers: int = 3
    """Hidden layers after the first."""
    steps: int = 200
    """Steps of every arm on the picture."""
    rates: tuple[float, ...] = (1e-4, 1e-3)
    """Learning rates of which each arm has its better one."""
    more: bool = False
    """Also derivatives, sound, a surface and pixels that were not shown: minutes."""
    derivative_steps: int = 300
    """Steps of every arm on gradients and on Laplacians."""
    sound_steps: int = 300
    """Steps of every arm on sound."""
    surface_steps: int = 400
    """Steps of every arm on a surface."""
    points: int = 20_000
    """Points drawn on a mesh."""
    resolution: int = 96
    """Points along a side of the cube from which a mesh is taken."""
    seconds: float = 1.0
    """How much of a sound is fitted, from its middle."""
    data: Path | None = None
    """A picture, a sound (.wav) or a shape (.ply, .obj, .xyz with normals) of your own."""

    def __post_init__(self) -> None:
        counts = ("hidden", "steps", "derivative_steps", "sound_steps", "surface_steps")
        least = dict.fromkeys(counts, 1) | {"size": 4, "resolution": 4, "points": 10}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        if self.layers < 0:
            raise ValueError(f"layers must be 0 or more, got {self.layers}")
        if not self.rates or not all(0 < rate < math.inf for rate in self.rates):
            raise ValueError(f"rates must be positive numbers, one at least, got {self.rates}")
        if not 0 < self.seconds < math.inf:
            raise ValueError(f"seconds must be positive, got {self.seconds}")


TINY = Config(
    size=8, hidden=16, layers=1, steps=4, more=True, derivative_steps=2, sound_steps=2,
    surface_steps=2, points=200, resolution=8, seconds=0.05,
)  # fmt: skip
QUICK = Config()
FULL = Config(size=128, steps=500, more=True)


def run(config: Config, run: Run) -> None:
    """Measure the claims of SIREN, or fit what the user brings."""
    from mmxx.data import Audio, Image, Mesh, PointCloud, load, photo

    if config.data is None:
        picture = photo("camera")
        run.source(picture.source)
        _picture(config, run, picture.pixels)
        if config.more:
            _derivatives(config, run, picture.pixels)
            _held_out(config, run, picture.pixels)
            _sound(config, run, None)
            _surface(config, run, None)
        return
    mine = load(config.data, kinds=("image", "audio", "mesh", "points"))
    run.source(mine.source)
    if isinstance(mine, Image):
        _picture(config, run, mine.pixels)
        if config.more:
            _derivatives(config, run, mine.pixels)
            _held_out(config, run, mine.pixels)
        return
    for claim in _CLAIMS:
        run.not_measured(claim, "user data: not a picture")
    if isinstance(mine, Audio):
        _sound(config, run, mine)
    elif isinstance(mine, Mesh | PointCloud):
        _surface(config, run, mine)


@contextmanager
def sham() -> Iterator[None]:
    """ReLU with a positional encoding in SIREN's place."""
    from unittest import mock

    # the first two know the class by name: they are to have the real one
    from mmxx.signals.siren import operators, problems, siren  # noqa: F401
    from mmxx.signals.siren.baselines import CoordinateMLP, nyquist_octaves

    def encoded(dims: int, channels: int, *, first_omega_0: float, **size: Any) -> CoordinateMLP:
        return CoordinateMLP(dims, channels, octaves=nyquist_octaves(QUICK.size), **size)

    with mock.patch.object(siren, "Siren", encoded):
        yield


@dataclass
class _Fit:
    """A fitted network, and the losses on its way."""

    rate: float
    losses: list[float]
    net: nn.Module


def _compare(
    config: Config,
    run: Run,
    name: str,
    problem: Problem,
    steps: int,
    *,
    arms: tuple[str, ...],
    rates: tuple[float, ...],
    siren_rates: tuple[float, ...] = (_SAFE_RATE,),
    first_omega_0: float = 30.0,
) -> dict[str, list[_Fit]]:
    """SIREN fitted in the loop below, the baselines in workers. A fit that diverged is left out."""
    import copy

    import torch

    from mmxx.signals.siren.problems import baseline, fit_baseline, moved
    from mmxx.signals.siren.siren import Siren

    fits: dict[str, list[_Fit]] = {"SIREN": []}
    for rate in siren_rates:
        label = f"{name}-siren-{rate:g}".replace(".", "-")
        draw = problem.draw(run.generator(label))
        net = Siren(
            problem.dims,
            problem.channels,
            hidden_features=config.hidden,
            hidden_layers=config.layers,
            first_omega_0=first_omega_0,
            generator=torch.Generator().manual_seed(run.seed),
        ).to(run.device)
        best = copy.deepcopy(net)
        optimizer = torch.optim.Adam(net.parameters(), lr=rate)
        model, update = net, optimizer
        if problem.kind == "values":  # other losses look inside the network
            model, update = run.distribute(net, optimizer)
        losses: list[float] = []
        state = {"net": net, "best": best, "optimizer": optimizer, "losses": losses}
        for step in run.loop(label, steps, state=state, claims=()):
            coords, targets = moved(draw(step), run.device)
            if model is not net:
                coords, targets = run.part(coords), run.part(targets)
            update.zero_grad()
            loss = problem.loss(model, coords, targets)
            value = run.mean(loss)
            if not run.check_finite(step, loss=value):
                break
            if problem.batch or value < min(losses, default=math.inf):
                best.load_state_dict(net.state_dict())
            losses.append(value)
            loss.backward()
            update.step()
            run.log(step, loss=value)
        if losses:
            fits["SIREN"].append(_Fit(rate, losses, best.cpu()))
    size = {"hidden": config.hidden, "layers": config.layers, "seed": run.seed}
    items = [
        {"arm": arm, "problem": problem, "steps": steps, "rate": rate, **size}
        for arm in arms
        for rate in rates
    ]
    done = run.once(f"{name}-baselines", run.map, fit_baseline, items)
    for item, result in zip(items, done, strict=True):
        net = baseline(item["arm"], problem, config.hidden, config.layers)
        net.load_state_dict(result["weights"])
        if result["losses"]:
            fits.setdefault(item["arm"], []).append(_Fit(item["rate"], result["losses"], net))
    return {arm: several for arm, several in fits.items() if several}


def _picture(config: Config, run: Run, pixels: np.ndarray) -> None:
    """Values of a picture: the claims of the quick tier."""
    import numpy as np

    from mmxx.lab.report.figures import curves, pictures
    from mmxx.signals.siren import scores
    from mmxx.signals.siren.problems import Problem, decibels, look, spectrum_of_activations
    from mmxx.signals.siren.siren import Siren

    fine, shown = scores.every_second(pixels, config.size)
    shape, channels = shown.shape[:2], shown.shape[2]
    problem = Problem("values", shape, (2 * shown - 1).reshape(-1, channels))
    fits = _compare(
        config, run, "picture", problem, config.steps,
        arms=_BASELINES, rates=config.rates, siren_rates=config.rates,
    )  # fmt: skip
    if "SIREN" not in fits or len(fits) == 1:
        for claim in ("beats-baselines", "fits-picture"):
            run.not_measured(claim, "the fits diverged at every rate")
        return
    best = {arm: min(several, key=lambda fit: min(fit.losses)) for arm, several in fits.items()}
    reached = {arm: decibels(min(fit.losses)) for arm, fit in best.items()}
    rival = max((arm for arm in best if arm != "SIREN"), key=reached.__getitem__)
    run.measure(
        "beats-baselines",
        reached["SIREN"] - reached[rival],
        baseline=reached[rival],
        note=f"the best baseline is {rival}",
    )
    run.measure("fits-picture", reached["SIREN"], baseline=reached[rival])

    rows = [
        {
            "arm": arm,
            "rate": fit.rate,
            "best step [dB]": decibels(min(fit.losses)),
            "last step [dB]": decibels(fit.losses[-1]),
            "taken": fit is best[arm],
        }
        for arm, several in fits.items()
        for fit in several
    ]
    run.table("arms", rows, "PSNR on the fitted pixels, at each learning rate.")
    found, panels = scores.picture_scores({a: f.net for a, f in best.items()}, fine, shown)
    spline = scores.spline_between(shown, fine)
    found.append({"arm": "cubic spline", "between the pixels [dB]": spline})
    run.table("fidelity", found, "Values, their derivatives, and pixels that were not shown.")
    count, parameters = shape[0] * shape[1], found[0]["parameters"]
    run.note(
        f"The SIREN has {parameters:,} parameters for {count:,} pixels, {parameters / count:.1f} "
        "for each: its PSNR on them says how fast detail is reached, not how well it is "
        "compressed. On the pixels between, which were not shown, it has "
        f"{found[0]['between the pixels [dB]']:.2f} dB; a cubic spline has {spline:.2f} dB."
    )
    lines = {
        f"{arm}, rate {fit.rate:g}": (range(len(fit.losses)), [*map(decibels, fit.losses)])
        for arm, fit in best.items()
    }
    run.figure("fit", curves(lines, xlabel="step", ylabel="PSNR [dB]"), "Each at its better rate.")
    grid = pictures([panels[arm] for arm in ("picture", "SIREN", rival)])
    run.figure("derivatives", grid, f"The picture, SIREN, and the best baseline, {rival}.")
    large = look(best["SIREN"].net, (4 * shape[0], 4 * shape[1])) / 2 + 0.5
    run.image("upscaled", scores.shown_picture(large), "SIREN, asked at four times the pixels.")
    fresh = Siren(
        2,
        channels,
        hidden_features=config.hidden,
        hidden_layers=config.layers,
        first_omega_0=30.0,
        generator=run.generator("spectrum"),
    )
    lines = {
        f"layer {number}, phases {spread:.2f}": (np.log10(frequencies), np.log10(sizes))
        for number, (frequencies, sizes, spread) in enumerate(spectrum_of_activations(fresh), 1)
    }
    figure = curves(lines, xlabel="log10 of cycles for a unit", ylabel="log10 of the amplitude")
    run.figure("spectrum", figure, "Activations along a line before training; spread of phases.")


def _derivatives(config: Config, run: Run, pixels: np.ndarray) -> None:
    """The Poisson problem: a picture of at most 64 pixels from its derivatives alone."""
    from mmxx.lab.report.figures import pictures
    from mmxx.signals.siren import scores
    from mmxx.signals.siren.problems import poisson_problem

    _, shown = scores.every_second(pixels, min(config.size, 64))
    rows: list[dict[str, Any]] = []
    panels = [[("picture", scores.shown_picture(shown))], []]
    for kind, arms, panel in (
        ("gradient", _BASELINES, panels[0]),
        ("laplacian", ("tanh", "relu+encoding"), panels[1]),  # that of ReLU is zero everywhere
    ):
        problem = poisson_problem(2 * shown - 1, laplacian=kind == "laplacian")
        fits = _compare(
            config, run, f"from-{kind}", problem, config.derivative_steps,
            arms=arms, rates=(_SAFE_RATE,),
        )  # fmt: skip
        for arm, several in fits.items():
            view, found = scores.recovered(several[0].net, shown)
            rows.append({"from": kind, "arm": arm, "PSNR [dB]": found})
            panel.append((f"{arm}, {kind}", scores.shown_picture(view)))
    run.table("poisson", rows, "Pictures from derivatives, after the best scale and offset.")
    run.figure("poisson", pictures(panels), "Recovered from gradients, and from Laplacians.")
    run.note("A Laplacian leaves a picture open up to what is harmonic; it has no bar.")
    reached = {row["arm"]: row["PSNR [dB]"] for row in rows if row["from"] == "gradient"}
    others = [reached[arm] for arm in ("relu", "tanh") if arm in reached]
    if "SIREN" not in reached or not others:
        for claim in ("poisson", "poisson-margin"):
            run.not_measured(claim, "the fits diverged")
        return
    run.measure("poisson", reached["SIREN"], baseline=max(others))
    run.measure("poisson-margin", reached["SIREN"] - max(others), baseline=max(others))


def _held_out(config: Config, run: Run, pixels: np.ndarray) -> None:
    """Pixels that were not shown, with frequency and length of the fit chosen by validation."""
    from mmxx.signals.siren import scores
    from mmxx.signals.siren.problems import fit_held_out

    fine, shown = scores.every_second(pixels, min(config.size, 64))
    items = [
        {
            "coarse": 2 * shown - 1, "fine": 2 * fine - 1, "omega": omega, "hidden": config.hidden,
            "layers": config.layers, "steps": config.steps, "rate": _SAFE_RATE, "seed": run.seed,
        }
        for omega in (10.0, 20.0, 30.0)
    ]  # fmt: skip
    done = run.once("held-out", run.map, fit_held_out, items)
    run.table("held-out", done, "Frequency and step chosen on an eighth of the pixels shown.")
    ours = max(done, key=lambda row: row["validation [dB]"])["between the pixels [dB]"]
    spline = scores.spline_between(shown, fine)
    run.note(
        f"Pixels that were not shown, without a bar: SIREN {ours:.2f} dB with frequency and step "
        f"chosen by validation, cubic spline {spline:.2f} dB."
    )


def _sound(config: Config, run: Run, mine: Audio | None) -> None:
    """A sound, by SIREN with a first frequency of 3,000 and by ReLU at its better rate."""
    import numpy as np

    from mmxx.lab.report.figures import curves
    from mmxx.signals.siren.metrics import psnr
    from mmxx.signals.siren.problems import Problem, look
    from mmxx.signals.siren.sounds import plucked_strings, wav_bytes

    rate = 16_000 if mine is None else mine.rate
    count = max(2, round(config.seconds * rate))
    if mine is None:
        sound = plucked_strings(count, rate, random_state=run.seed)[:, None]
    else:
        start = max(0, (len(mine.samples) - count) // 2)
        sound = mine.samples[start : start + count]
    truth = sound / (float(np.abs(sound).max()) or 1.0)
    problem = Problem("values", (len(truth),), truth, batch=4096)
    fits = _compare(
        config, run, "sound", problem, config.sound_steps,
        arms=("relu",), rates=config.rates, first_omega_0=3000.0,
    )  # fmt: skip
    takes = {"truth": truth}
    rows = [{"arm": "silence", "PSNR [dB]": psnr(0 * truth, truth, peak=2)}]
    for arm, several in fits.items():
        heard = [look(fit.net, problem.shape) for fit in several]
        found = [psnr(take, truth, peak=2) for take in heard]
        takes[arm] = heard[found.index(max(found))]
        rows.append({"arm": arm, "PSNR [dB]": max(found)})
    run.table("sound", rows, "Sound in [-1, 1].")
    for arm, take in takes.items():
        run.artifact(f"{arm.lower()}.wav", wav_bytes(take, rate), f"the sound: {arm}")
    part = slice(len(truth) // 2, len(truth) // 2 + max(2, rate // 50))
    time = 1000 * np.arange(len(truth)) / rate
    lines = {arm: (time[part], take[part, 0]) for arm, take in takes.items()}
    figure = curves(lines, xlabel="milliseconds", ylabel="pressure")
    run.figure("sound", figure, "A fiftieth of a second from the middle.")
    said = (f"{row['arm']} {row['PSNR [dB]']:.1f} dB" for row in rows)
    run.note(f"Sound, without a bar: {', '.join(said)}.")


def _surface(config: Config, run: Run, mine: Mesh | PointCloud | None) -> None:
    """A signed distance from oriented points, by SIREN, ReLU and tanh, and the meshes."""
    import numpy as np

    from mmxx.data import DataError, Mesh, sample_surface
    from mmxx.lab.report.figures import pictures
    from mmxx.signals.siren import scores, surfaces
    from mmxx.signals.siren.metrics import chamfer
    from mmxx.signals.siren.problems import Problem

    count, side, seeds = config.points, config.resolution, (run.seed, run.seed + 1)
    if mine is None:
        cloud, other = (surfaces.bumpy_sphere(count, random_state=seed) for seed in seeds)
    elif isinstance(mine, Mesh):
        drawn = [sample_surface(mine, count, seed) for seed in seeds]
        cloud, other = ((each.points, each.normals) for each in drawn)
    elif mine.normals is None:
        raise DataError(config.data, "points without normals", "a mesh, or points with normals")
    else:
        cloud = other = (mine.points, mine.normals)
    points, normals = surfaces.check_cloud(*cloud)
    frame = surfaces.frame_of(points)
    inside, truth = ((place - frame.centre) / frame.scale for place in (points, other[0]))
    problem = Problem("surface", inside.shape, np.hstack([inside, normals]), batch=1024)
    fits = _compare(
        config, run, "surface", problem, config.surface_steps, arms=("relu", "tanh"), rates=(1e-3,)
    )
    rows: list[dict[str, Any]] = []
    panels = [("points", surfaces.shaded(inside, normals, side))]
    for arm, several in fits.items():
        net, size = several[0].net, {"resolution": side, "points": count, "seed": run.seed}
        shape = scores.take_shape(net, inside, truth, **size)
        if shape is None:
            run.note(f"{arm}: the fitted field has no surface near the points.")
            continue
        rows.append({"arm": arm, "chamfer": shape.chamfer, "with sheets": shape.whole})
        mesh = shape.vertices, shape.faces
        dense = surfaces.surface_points(*mesh, 12 * side**2, random_state=run.seed)
        panels.append((arm, surfaces.shaded(*dense, side)))
        text = surfaces.ply_text(frame.centre + frame.scale * mesh[0], mesh[1])
        run.artifact(f"{arm.lower()}.ply", text, f"the mesh of {arm}, in the units of the points")
    rows.append({"arm": "another draw", "chamfer": chamfer(inside, truth)})
    run.table("surface", rows, "Chamfer distance in half sides of the cube; lower is nearer.")
    run.figure("surface", pictures([panels]), "The points, and the meshes.")
    run.note("Surfaces have no bar. Sheets are zeros of a field where there is no surface.")
