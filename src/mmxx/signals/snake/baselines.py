"""What Snake has to beat that is no network: last value, seasons, polynomials, waves, ARIMA.

All take the training series ``t`` [n], ``y`` [n] (increasing stamps, finite values) and the
stamps ``future`` [m] after it, and return [m] predictions. The rival networks differ from
Snake's in the activation only: ``mmxx.signals.snake.Networks``.
"""

from __future__ import annotations

import math
import warnings

import numpy as np

from mmxx.signals.snake.selection import Vector


def last_value(t: Vector, y: Vector, future: Vector) -> Vector:
    """The last value of ``y``, for ever; of ``t`` and ``future`` only their lengths matter."""
    return np.full(len(future), y[-1])


def seasonal_naive(t: Vector, y: Vector, future: Vector, *, period: float) -> Vector:
    """The last period again and again, by linear interpolation between its stamps.

    Args:
        t: Training stamps [n].
        y: Training values [n].
        future: Stamps [m] to predict.
        period: How long the season is, in units of ``t``.

    Returns:
        Predictions [m].

    Raises:
        ValueError: ``period`` is not positive, or longer than the training series.

    Example:
        >>> t = np.arange(8.0)
        >>> seasonal_naive(t, t % 4, np.array([8.0, 9.0, 15.0]), period=4)
        array([0., 1., 3.])
    """
    _check_period(period)
    if period > (t[-1] - t[0]) * (1 + 1e-9):
        raise ValueError(
            f"seasonal_naive: period {period:g} is longer than the series, {t[-1] - t[0]:g}"
        )
    # Rounding must not take a stamp for one that is a whole period earlier.
    behind = np.ceil((future - t[-1]) / period - 1e-9)
    return np.interp(future - behind * period, t, y)


def polynomial(t: Vector, y: Vector, future: Vector, *, degree: int = 2) -> Vector:
    """The least-squares polynomial; degree 2 is the parabola.

    Args:
        t: Training stamps [n].
        y: Training values [n].
        future: Stamps [m] to predict.
        degree: Of the polynomial.

    Returns:
        Predictions [m].

    Raises:
        ValueError: ``degree`` is negative, or the series has too few values for it.
    """
    if not 0 <= degree < len(t):
        raise ValueError(f"polynomial: degree must be in 0..{len(t) - 1}, got {degree}")
    return np.polynomial.Polynomial.fit(t, y, degree)(future)


def harmonic_regression(
    t: Vector,
    y: Vector,
    future: Vector,
    *,
    period: float,
    n_harmonics: int = 2,
    degree: int = 1,
) -> Vector:
    """Least squares of a polynomial and the first waves of a period.

    Args:
        t: Training stamps [n].
        y: Training values [n].
        future: Stamps [m] to predict.
        period: Of the first wave.
        n_harmonics: Waves of period, period/2, ...
        degree: Of the polynomial; 0 is a constant.

    Returns:
        Predictions [m].

    Raises:
        ValueError: ``period`` is not positive, or a count is negative.

    Example:
        >>> t = np.arange(48.0)
        >>> y = 0.1 * t + np.cos(2 * np.pi * t / 12)
        >>> harmonic_regression(t, y, np.array([60.0]), period=12).round(6)
        array([7.])
    """
    _check_period(period)
    if n_harmonics < 0 or degree < 0:
        raise ValueError(
            f"harmonic_regression: n_harmonics and degree must be 0 or more, got {n_harmonics} "
            f"and {degree}"
        )
    centre, half = (t[0] + t[-1]) / 2, max((t[-1] - t[0]) / 2, 1e-300)

    def design(stamps: Vector) -> Vector:
        x = (stamps - centre) / half
        angles = [2 * math.pi * k / period * (stamps - centre) for k in range(1, n_harmonics + 1)]
        return np.column_stack(
            [x**power for power in range(degree + 1)]
            + [wave(angle) for angle in angles for wave in (np.cos, np.sin)]
        )

    return design(future) @ np.linalg.lstsq(design(t), y, rcond=None)[0]


def arima(
    t: Vector, y: Vector, future: Vector, *, order: tuple[int, int, int] = (2, 1, 1)
) -> Vector:
    """The forecast of an ARIMA model, by statsmodels; the paper takes order (2, 1, 1).

    Args:
        t: Training stamps [n]; taken for evenly spaced.
        y: Training values [n].
        future: Stamps [m] to predict; only their number matters.
        order: Of the autoregression, the differences and the moving average.

    Returns:
        Predictions [m].

    Raises:
        ModuleNotFoundError: statsmodels is not installed (``pip install 'mmxx[series]'``).
    """
    from statsmodels.tsa.arima.model import ARIMA

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # start values, convergence: judged by the forecast
        fitted = ARIMA(y, order=order).fit()
    return np.asarray(fitted.forecast(len(future)), dtype=np.float64)


def _check_period(period: float) -> None:
    if not 0 < period < math.inf:
        raise ValueError(f"period must be positive and finite, got {period}")
