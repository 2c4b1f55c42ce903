"""Snake beside ReLU, tanh, sine and what needs no network, on a sine and on real series."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

    from mmxx.data import Table
    from mmxx.lab.run import Run
    from mmxx.signals.snake.fitting import Job
    from mmxx.signals.snake.problems import Problem
    from mmxx.signals.snake.selection import Choice

_METHOD = "snake"
_SINE = ("extrapolates-sine", "beats-relu-on-sine")


@dataclass(frozen=True)
class Config:
    """Continue a noisy sine with Snake and with what it is compared to; --full adds real series."""

    series: tuple[Literal["sine", "co2", "elnino"], ...] = ("sine",)
    """What to continue; carbon dioxide and sea temperature need the extra 'series'."""
    points: int = 120
    """Points of the sine in training, and as many to predict."""
    periods: float = 6.0
    """Periods of the sine in training, and as many to predict."""
    noise: float = 0.1
    """Standard deviation of the noise on the sine's training points."""
    seeds: int = 3
    """Repetitions of every arm."""
    steps: int = 1000
    """Steps of every arm."""
    lr: float = 1e-3
    """Learning rate at the first step; it falls to 0 by a cosine."""
    hidden: int = 64
    """Units of each of the two hidden layers."""
    rivals: tuple[Literal["relu", "tanh", "sin", "swish", "sin+cos", "x+sin"], ...] = (
        "relu", "tanh", "sin",
    )  # fmt: skip
    """Activations of the other networks; ReLU must be among them."""
    market_steps: int = 600
    """Steps of every arm on the authors' market series."""
    data: Path | None = None
    """A table with a series of one's own, or the authors' market.txt."""
    time: str = ""
    """Its column of time stamps, numbers or dates; by default the first of several columns."""
    value: str = ""
    """Its column of values; by default the first column of numbers that is not the time."""
    split: float = 0.75
    """Part of a real series that is training; the rest is predicted."""

    def __post_init__(self) -> None:
        least = {"points": 16, "seeds": 1, "steps": 1, "hidden": 1, "market_steps": 1}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, got {getattr(self, name)}")
        if not self.series or len(set(self.series)) < len(self.series):
            raise ValueError(f"series must be one or more of sine, co2, elnino, got {self.series}")
        if "relu" not in self.rivals or len(set(self.rivals)) < len(self.rivals):
            raise ValueError(f"rivals must have relu among them, each once, got {self.rivals}")
        for name in ("periods", "lr"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.noise < float("inf"):
            raise ValueError(f"noise must be 0 or more, got {self.noise}")
        if not 0 < self.split < 1:
            raise ValueError(f"split must lie between 0 and 1, got {self.split}")


_ALL = ("relu", "tanh", "sin", "swish", "sin+cos", "x+sin")
TINY = Config(
    series=("sine", "co2", "elnino"), points=24, seeds=2, steps=3, hidden=4, rivals=_ALL,
    market_steps=2,
)  # fmt: skip
QUICK = Config()
FULL = Config(series=("sine", "co2", "elnino"), seeds=5, steps=1500, rivals=_ALL)


def run(config: Config, run: Run) -> None:
    """Measure the claims of Snake, or continue the series that the user brings."""
    from mmxx.signals.snake.card import CARD

    if config.data is None:
        problems = _embedded(config, run)
    else:
        from mmxx.data import load

        table: Any = load(config.data, kinds=("table",))
        run.source(table.source)
        if table.source.sha256 == CARD.claim("market").data_sha256:
            for claim in (*_SINE, "beats-relu-on-co2"):
                run.not_measured(claim, "the market series was run instead")
            _market(config, run, table)
            return
        problems = [_own(config, run, table)]
    for problem in problems:
        _continue(config, run, problem)


@contextmanager
def sham() -> Iterator[None]:
    """ReLU in Snake's place."""
    global _METHOD
    before, _METHOD = _METHOD, "relu"
    try:
        yield
    finally:
        _METHOD = before


def _embedded(config: Config, run: Run) -> list[Problem]:
    from mmxx import data
    from mmxx.signals.snake import problems

    found: list[Problem] = []
    for name in config.series:
        if name == "sine":
            found.append(
                problems.sine(
                    run.rng("data"),
                    points=config.points,
                    periods=config.periods,
                    noise=config.noise,
                    repetitions=config.seeds,
                )
            )
            continue
        try:
            table = data.co2() if name == "co2" else data.elnino()
        except ModuleNotFoundError as error:
            run.note(f"{name} was left out: {error}")
            continue
        run.source(table.source)
        t, y = problems.monthly(*table.columns)
        found.append(problems.split(name, t, y, config.split, config.seeds))
    names = [problem.name for problem in found]
    for claim, name in (*((claim, "sine") for claim in _SINE), ("beats-relu-on-co2", "co2")):
        if name not in names:
            run.not_measured(claim, f"{name} was not run")
    return found


def _own(config: Config, run: Run, table: Table) -> Problem:
    from mmxx.signals.snake import problems

    run.not_measured("beats-relu-on-co2", "user data: another series")
    t, y, remarks = problems.read_series(table, time=config.time, value=config.value)
    for remark in remarks:
        run.note(remark)
    return problems.split("series", t, y, config.split, config.seeds)


def _propose(run: Run, problem: Problem) -> list[list[Choice]]:
    """What validation decides between, for each repetition."""
    from mmxx.signals.snake.selection import propose

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        proposals = [propose(problem.t, y) for y in problem.y.T]
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        run.note(f"{problem.name}: {message}.")
    return proposals


def _continue(config: Config, run: Run, problem: Problem) -> None:
    """Choose a, train every arm, and set their errors side by side."""
    from mmxx.signals.snake import comparison
    from mmxx.signals.snake.selection import Choice

    name = problem.name
    proposals = _propose(run, problem)
    plain = _job(config, run, problem, [Choice(None, 1.0)] * config.seeds)
    arms = [
        comparison.validation(plain._replace(activation=_METHOD), proposals),
        *comparison.rivals(plain, config.rivals, problem.future, proposals),
    ]
    tail, *trained = run.once(f"arms-{name}", run.map, comparison.train_arm, arms)
    choices, rows = comparison.decide(problem, proposals, tail["future"], run.seed)
    run.table(f"choice-{name}", rows, f"{name}: the choice of a, by validation.")
    results = dict(zip([arm.label for arm in arms[1:]], trained, strict=True))
    predicted = {label: result["future"] for label, result in results.items()}
    cycles = [first.period for first, *_ in proposals]
    predicted |= comparison.without_networks(problem, cycles, arima=name != "sine")
    rays = {label: (result["slope"], result["wiggle"]) for label, result in results.items()}
    _compare(config, run, problem, choices, predicted, rays)


def _job(config: Config, run: Run, problem: Problem, choices: list[Choice]) -> Job:
    from mmxx.signals.snake.comparison import repetitions

    return repetitions(
        problem,
        choices,
        activation=_METHOD,
        seed=run.seed,
        hidden=config.hidden,
        steps=config.steps,
        lr=config.lr,
    )


def _compare(
    config: Config,
    run: Run,
    problem: Problem,
    choices: list[Choice],
    others: dict[str, np.ndarray],
    rays: dict[str, tuple[float, float]],
) -> None:
    """Train the chosen networks, and set their errors beside all others."""
    import numpy as np

    from mmxx.lab.compute import one_thread
    from mmxx.signals.snake import comparison
    from mmxx.signals.snake.fitting import begin
    from mmxx.signals.snake.network import Adam, cosine, squared_error

    name = problem.name
    fitted = begin(_job(config, run, problem, choices))
    networks = fitted.networks
    optimizer = Adam(networks.parameters())
    state = {"networks": networks, "optimizer": optimizer}
    affected = {"sine": _SINE, "co2": ("beats-relu-on-co2",)}.get(name, ())
    with one_thread():  # networks so small only wait for a second one
        for step in run.loop(f"snake-{name}", config.steps, state=state, claims=affected):
            losses = squared_error(networks, *fitted.data)
            if not run.check_finite(step, loss=losses.detach().sum()):
                continue
            optimizer.zero_grad()
            losses.sum().backward()
            optimizer.step(cosine(step, config.steps, config.lr))
            if step % 10 == 0 or step + 1 == config.steps:
                run.log(step, loss=float(losses.detach().mean()))

    predicted = {"Snake": fitted.predict(problem.future[:, None]), **others}
    errors = {
        label: np.square(p - problem.truth[:, None]).mean(0) / problem.unit
        for label, p in predicted.items()
    }
    unit = "mean squared error" if name == "sine" else "mean squared error / training variance"
    rows = [
        {"arm": label, "median": float(np.median(e)), "least": e.min(), "largest": e.max()}
        for label, e in errors.items()
    ]
    run.table(f"errors-{name}", rows, f"{name}: {unit} after the training part.")
    rays = {"Snake": comparison.far_out(networks), **rays}
    run.table(
        f"far-{name}",
        [{"arm": label, "slope": s, "wiggle": w} for label, (s, w) in rays.items()],
        f"{name}: the first network of each arm from {comparison.FAR:g} to "
        f"{2 * comparison.FAR:g} half lengths out, in its own units: slope of a straight line, and "
        "root mean square deviation from it. ReLU must end straight and tanh flat.",
    )
    _draw(run, problem, predicted)
    if "harmonic regression" in errors:
        waves = float(np.median(errors["harmonic regression"]))
        run.note(
            f"{name}: a straight line and two waves of the strongest cycle, fitted by least "
            f"squares without a network, have an error of {waves:.3g}."
        )
    ours, relu = float(np.median(errors["Snake"])), float(np.median(errors["relu"]))
    ratio = ours / relu if relu else float("nan")  # nobody errs on a constant
    seeds = [run.seed + s for s in range(config.seeds)]
    if name == "co2":
        note = f"Snake {ours:.4g} training variances"
        run.measure("beats-relu-on-co2", ratio, baseline=relu, seeds=seeds, note=note)
    elif name != "elnino":
        tanh = float(np.median(errors["tanh"])) if "tanh" in errors else None
        run.measure(_SINE[0], ours, baseline=relu, control=tanh, seeds=seeds)
        run.measure(_SINE[1], ratio, baseline=relu, control=tanh, seeds=seeds)


def _draw(run: Run, problem: Problem, predicted: dict[str, np.ndarray]) -> None:
    import numpy as np

    from mmxx.lab.report.figures import curves

    past, truth = problem.y[:, 0], problem.truth
    low, high = min(past.min(), truth.min()), max(past.max(), truth.max())
    low, high = low - 0.4 * (high - low), high + 0.4 * (high - low)
    lines = {"training": (problem.t, past), "what came": (problem.future, truth)}
    for label in ("Snake", "relu", "tanh"):
        if label in predicted:
            line = predicted[label][:, 0]
            seen = np.where((line >= low) & (line <= high), line, np.nan)
            lines[label] = (problem.future, seen)
    figure = curves(lines, xlabel="time", ylabel="value", title=f"{problem.name}, first seed")
    run.figure(f"forecast-{problem.name}", figure, "Lines that leave the picture are cut off.")


def _market(config: Config, run: Run, table: Table) -> None:
    """The authors' recipe on their series, for every activation."""
    import numpy as np

    from mmxx.lab.report.figures import curves
    from mmxx.signals.snake import market

    series = market.scale(table.columns[0])
    seeds = [run.seed + s for s in range(config.seeds)]
    items = [(rival, seeds, config.market_steps, series) for rival in _ALL]
    trained = run.once("market", run.map, market.train, items)
    predicted: dict[str, np.ndarray] = dict(zip(_ALL, trained, strict=True))
    networks, optimizer = market.begin(_METHOD, seeds)
    x, y = market.training_part(series)
    state = {"networks": networks, "optimizer": optimizer}
    claims = ("market", "market-beats-networks")
    for step in run.loop("snake-market", config.market_steps, state=state, claims=claims):
        losses = (networks(x) - y).square().mean(1)
        if not run.check_finite(step, loss=losses.detach().sum()):
            continue
        optimizer.zero_grad()
        losses.sum().backward()
        optimizer.step()
        run.log(step, loss=float(losses.detach().mean()))
    predicted["Snake"] = market.predict(networks, series)

    errors, others = market.errors(predicted, series)
    rows = [
        {"arm": label, "mean": e.mean(), "deviation": e.std(), "least": e.min(), "largest": e.max()}
        for label, e in {**errors, **others}.items()
    ]
    run.table("errors-market", rows, "Mean squared error on the days after the training part.")
    parabola = others["parabola"].item()
    run.note(f"A parabola, without a network, has an error of {parabola:.4f} on the same days.")
    ranked = {rival: float(errors[rival].mean()) for rival in _ALL}
    for lost in [rival for rival, error in ranked.items() if not np.isfinite(error)]:
        run.note(f"{lost} left the range of numbers under this recipe, and has no error.")
        del ranked[lost]
    best = min(ranked, key=ranked.__getitem__)
    years = 1995 + np.arange(len(series.y)) * 252**-1
    lines = {"the index": (years, series.y)}
    lines |= {name: (years, predicted[name][:, 0]) for name in ("Snake", "relu", "sin")}
    figure = curves(lines, xlabel="year, by trading days", ylabel="index / maximum")
    run.figure("forecast-market", figure, "First seed; training ends at 6,300 days (2020).")
    ours, rival = float(errors["Snake"].mean()), ranked[best]
    last = others["last value"].item()
    run.measure("market", ours, baseline=float(errors["relu"].mean()), control=last, seeds=seeds)
    note = f"best other network: {best}"
    run.measure("market-beats-networks", rival - ours, baseline=rival, seeds=seeds, note=note)
