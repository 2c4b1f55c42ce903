"""Loss as a power of compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats


@dataclass(frozen=True)
class ScalingFit:
    """Loss = floor + c · compute^-alpha.

    Attributes:
        alpha: The exponent.
        c: The factor.
        floor: What no compute removes; 0 where none was fitted.
        r2: Explained part of the variance of log(loss - floor).
        interval: Where alpha lies with 95 % by the residuals.
    """

    alpha: float
    c: float
    floor: float
    r2: float
    interval: tuple[float, float]

    def predict(self, compute: float | np.ndarray) -> float | np.ndarray:
        """The loss at some compute.

        Args:
            compute: In the units of the fit.
        """
        return self.floor + self.c * np.power(compute, -self.alpha)


def scaling_fit(
    compute: Sequence[float], loss: Sequence[float], *, floor: bool = False
) -> ScalingFit:
    """Fit a power law to losses, by least squares of their logarithms.

    Args:
        compute: Compute of each model, 6 N D say, three or more different values above 0.
        loss: Their losses, above 0.
        floor: Whether a constant is fitted as well; it needs four models.

    Returns:
        The fit.

    Raises:
        ValueError: Too few models, or numbers that are not above 0.

    Source: Kaplan et al. (2020), equation 1.1; Brown et al. (2020), figure 3.1.

    Example:
        >>> compute = [1e3, 1e4, 1e5, 1e6]
        >>> fit = scaling_fit(compute, [2.57 * c**-0.048 for c in compute])
        >>> round(fit.alpha, 3), round(fit.c, 2)
        (0.048, 2.57)
    """
    x, y = np.asarray(compute, float), np.asarray(loss, float)
    least = 4 if floor else 3
    if x.shape != y.shape or x.ndim != 1 or len(np.unique(x)) < least:
        raise ValueError(
            f"compute and loss must be of one length, with {least} different computes or more, "
            f"got shapes {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all() and x.min() > 0 and y.min() > 0):
        raise ValueError("compute and loss must be finite and above 0")
    logs = np.log(x)
    if not floor:
        line: Any = stats.linregress(logs, np.log(y))
        half = stats.t.ppf(0.975, len(x) - 2) * line.stderr
        return ScalingFit(
            float(-line.slope), float(np.exp(line.intercept)), 0.0, float(line.rvalue**2),
            (float(-line.slope - half), float(-line.slope + half)),
        )  # fmt: skip

    # log y = logaddexp(log floor, log c - alpha log x), from several floors as starts
    def residuals(theta: np.ndarray) -> np.ndarray:
        return np.logaddexp(theta[0], theta[1] - theta[2] * logs) - np.log(y)

    starts = []
    for part in (0.05, 0.3, 0.6, 0.9, 0.99):
        bottom = part * y.min()
        slope, intercept = np.polyfit(logs, np.log(y - bottom), 1)
        starts.append([np.log(bottom), intercept, -slope])
    exact: Any = dict.fromkeys(("xtol", "ftol", "gtol"), 1e-15)
    fits = [optimize.least_squares(residuals, start, x_scale="jac", **exact) for start in starts]
    found = min(fits, key=lambda fit: fit.cost)
    bottom, factor, alpha = np.exp(found.x[0]), np.exp(found.x[1]), float(found.x[2])
    freedom = len(x) - 3
    spread = 2 * found.cost / freedom * np.linalg.pinv(found.jac.T @ found.jac)[2, 2]
    half = stats.t.ppf(0.975, freedom) * np.sqrt(spread)
    above = np.log(np.maximum(y - bottom, 1e-300))
    rest = ((above - (found.x[1] - alpha * logs)) ** 2).sum()
    r2 = 1 - rest / ((above - above.mean()) ** 2).sum()
    return ScalingFit(
        alpha, float(factor), float(bottom), float(r2), (float(alpha - half), float(alpha + half))
    )


def frontier(compute: Sequence[float], loss: Sequence[float]) -> list[int]:
    """The models that no other beats with as little compute, by rising compute.

    Args:
        compute: Compute of each model.
        loss: Their losses.
    """
    found: list[int] = []
    for i in sorted(range(len(compute)), key=lambda i: (compute[i], loss[i])):
        if not found or loss[i] < loss[found[-1]]:
            found.append(i)
    return found
