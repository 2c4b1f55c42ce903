"""The toy's experiment: every service of a run, in seconds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmxx.lab.run import Run


@dataclass(frozen=True)
class Config:
    """Fit a line."""

    steps: int = 200
    """Steps of gradient descent."""
    noise: float = 0.01
    """Standard deviation of the targets."""
    sizes: tuple[int, ...] = (20, 40)
    """Points in each arm."""
    pause: float = 0.0
    """Seconds that a step sleeps."""
    die_at: int | None = None
    """The step at which the process is killed, once."""
    nan_at: int | None = None
    """The step at which the loss becomes NaN."""
    grow: int = 0
    """Numbers by which the state grows at each step."""
    data: Path | None = None
    """A text file with two columns of one's own."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"steps must be 0 or more, got {self.steps}")


TINY = Config(steps=20, sizes=(5, 6))
QUICK = Config()
FULL = Config(steps=400)


def run(config: Config, run: Run) -> None:
    """Measure the slope."""
    import numpy as np

    from mmxx_toy import line

    rng = run.rng("data")
    if config.data is None:
        x = rng.normal(size=40)
        y = 2 * x + 1 + config.noise * rng.normal(size=40)
    else:
        x, y = np.loadtxt(config.data, unpack=True)
    sizes = run.once(
        "sizes", run.map, _arm, [(run.seed + i, n) for i, n in enumerate(config.sizes)]
    )
    weights, history, ballast = np.zeros(2), {"loss": []}, {}
    state = {"weights": weights, "history": history, "rng": run.rng("walk"), "ballast": ballast}
    for step in run.loop("fit", config.steps, state=state, every=7):
        weights -= 0.1 * line.gradient(weights, x, y) + 1e-12 * run.rng("walk").normal(size=2)
        loss = float(np.mean((weights[0] * x + weights[1] - y) ** 2))
        if step == config.nan_at:
            loss = float("nan")
        history["loss"].append(loss)
        ballast["numbers"] = np.full(config.grow * (step + 1), step)
        run.log(step, loss=loss)
        run.check_finite(step, loss=loss)
        if config.pause:
            time.sleep(config.pause)
        marker = run.folder / "died"
        if step == config.die_at and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    fitted = line.fit_line(x, y, steps=config.steps)
    error = abs(float(fitted[0]) - 2)
    run.measure("finds-slope", error, baseline=2.0, control=float(run.rng("late").normal()))
    spread = float(np.mean((y - y.mean()) ** 2))
    residual = float(np.mean((fitted[0] * x + fitted[1] - y) ** 2))
    run.measure("beats-mean", spread / residual, seeds=[run.seed])
    run.measure("full-only", spread, note="a remark")
    run.table("arms", [{"size": n, "slope": s} for n, s in zip(config.sizes, sizes, strict=True)])
    from mmxx.lab.report import figures

    losses = np.array(history["loss"])
    run.figure(
        "loss",
        figures.curves({"loss": (np.arange(len(losses)), losses)}, xlabel="step", ylabel="loss"),
        "The loss falls.",
    )
    run.image("points", np.outer(np.linspace(0, 1, 8), np.linspace(0, 1, 8)), "A ramp.")
    run.artifact("weights.txt", f"{fitted[0]} {fitted[1]}\n", "Slope and intercept.")
    run.note("A toy & nothing more.")


def _arm(item: tuple[int, int]) -> float:
    import numpy as np

    from mmxx_toy import line

    seed, size = item
    x = np.random.default_rng(seed).normal(size=size)
    return float(line.fit_line(x, 2 * x + 1)[0])


@contextmanager
def sham() -> Iterator[None]:
    """A constant in the place of the line."""
    import numpy as np

    from mmxx_toy import line

    real = line.fit_line
    line.fit_line = lambda x, y, **_: np.array([0.0, float(np.mean(y))])
    try:
        yield
    finally:
        line.fit_line = real
