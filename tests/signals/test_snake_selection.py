"""Choosing a: time axes, periodograms, candidate periods and what validation decides between."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy.signal import lombscargle

from mmxx.signals.snake import candidate_periods, periodogram
from mmxx.signals.snake.selection import (
    NON_PERIODIC_A,
    Choice,
    detrend,
    propose,
    read_times,
    tail_size,
)


def wave(t, period, phase=0.3):
    return np.sin(2 * np.pi * t / period + phase)


# -- time axes ---------------------------------------------------------------------------------


def test_dates_of_three_kinds_are_the_same_days():
    whole = np.array([20191231, 20200101, 20200229, 20200301])
    dates = np.array(["2019-12-31", "2020-01-01", "2020-02-29", "2020-03-01"], "datetime64[D]")
    for given in (whole, whole.astype(np.int32), whole.tolist(), dates, dates.astype("M8[ns]")):
        times = read_times(given)
        assert times.unit == "day"
        assert np.diff(times.values).tolist() == [1, 59, 1]
    assert read_times(dates).values[1] == 18262
    half = read_times(np.array(["2020-01-01T12:00"], "datetime64[m]"))
    assert half.values[0] == 18262.5


@pytest.mark.parametrize(
    "numbers",
    [[0, 1, 5], [20200101, 20200230], [20201301, 20201401], [20200100, 20200101], [0.5, 1.5]],
)
def test_what_is_no_calendar_date_is_a_number(numbers):
    times = read_times(numbers)
    assert times.unit == "number"
    assert times.values.dtype == np.float64
    assert times.values.tolist() == numbers


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 2)), r"t must have one dimension, got shape \(3, 2\)"),
        (["a", "b"], "t must hold numbers or dates"),
        ([0.0, math.nan, math.inf], "t must be finite, got 2"),
        (np.array(["2020-01-01", "NaT"], "datetime64[D]"), "t must be finite, got 1"),
    ],
)
def test_bad_time_axes_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        read_times(given)


# -- periodogram -------------------------------------------------------------------------------


def test_detrending_leaves_nothing_of_a_line_and_what_least_squares_leaves():
    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(5, 9, 40))
    assert np.abs(detrend(t, 3 - 2 * t)).max() < 1e-12
    y = rng.normal(size=40)
    line = np.polynomial.Polynomial.fit(t, y, 1)(t)
    assert np.allclose(detrend(t, y), y - line, atol=1e-12)
    assert np.allclose(detrend(np.ones(3), np.array([1.0, 2, 6])), [-2, -1, 3])


@pytest.mark.parametrize("kind", ["grid", "grid with gaps", "off a grid", "repeated"])
def test_periodogram_is_the_sum_in_its_definition(kind):
    rng = np.random.default_rng(1)
    t = 2000 + np.arange(60.0) / 12
    if kind == "grid with gaps":
        t = np.delete(t, [3, 4, 5, 20, 41])
    elif kind == "off a grid":
        t = np.sort(rng.uniform(2000, 2005, 60))
    elif kind == "repeated":
        t = np.sort(np.append(t, t[[4, 9]]))
    y = wave(t, 0.7) + 0.4 * t + rng.normal(size=len(t))
    frequencies, power = periodogram(t, y)
    rest = detrend(t, y)
    sums = np.exp(-2j * np.pi * np.outer(frequencies, t)) @ rest
    assert np.allclose(power, 2 * np.abs(sums) ** 2 / (len(t) * (rest @ rest)), atol=1e-9)
    length = t[-1] - t[0]
    assert frequencies[0] == pytest.approx(1 / (8 * length))
    assert np.allclose(np.diff(frequencies), frequencies[0])
    assert frequencies[-1] == pytest.approx((len(t) - 1) / (2 * length), rel=0.02)


def test_periodogram_is_that_of_scipy():
    rng = np.random.default_rng(2)
    t = np.sort(rng.uniform(0, 30, 200))
    y = wave(t, 2.5) + rng.normal(size=200)
    frequencies, power = periodogram(t, y)
    other = lombscargle(t, detrend(t, y), 2 * np.pi * frequencies, normalize=True)
    assert frequencies[power.argmax()] == pytest.approx(frequencies[other.argmax()], rel=0.02)
    # of many periods, where sine and cosine are nearly orthogonal, the two are one
    fast = (frequencies > 3 / 30) & (frequencies < 3)
    assert np.abs(power - other)[fast].max() < 0.05


def test_power_of_a_single_wave_is_one_and_of_a_line_zero():
    t = np.arange(240.0)
    frequencies, power = periodogram(t, 7 + wave(t, 12))
    assert power.max() == pytest.approx(1, abs=0.02)
    assert frequencies[power.argmax()] == pytest.approx(1 / 12, rel=0.01)
    for flat in (np.full(240, 3.5), 2 * t - 9):
        assert not periodogram(t, flat)[1].any()


def test_no_two_stamps_to_tell_a_frequency_from():
    for search in (periodogram, candidate_periods):
        with pytest.raises(ValueError, match="at least two different stamps"):
            search(np.ones(8), np.arange(8.0))


# -- candidates --------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [3.0, 7.3, 12.0, 50.0])
@pytest.mark.parametrize("trend", [0.0, 0.5])
def test_a_known_period_is_found(period, trend):
    t = np.arange(150.0)
    noise = np.random.default_rng(3).normal(size=150)
    found = candidate_periods(t, wave(t, period) + trend * t + 0.2 * noise, 1)
    assert found == pytest.approx((period,), rel=0.01)


def test_a_clean_period_is_found_to_many_digits_off_a_grid_too():
    t = np.sort(np.random.default_rng(4).uniform(1990, 2020, 300))
    assert candidate_periods(t, 2 + wave(t, 1.7), 1) == pytest.approx((1.7,), rel=1e-6)
    gaps = np.delete(np.arange(100.0), slice(30, 50))
    assert candidate_periods(gaps, wave(gaps, 9.2), 1) == pytest.approx((9.2,), rel=1e-6)


def test_candidates_come_strongest_first():
    t = np.arange(400.0)
    y = 3 * wave(t, 31) + 0.01 * t + wave(t, 7.5) + 2 * wave(t, 12)
    assert candidate_periods(t, y) == pytest.approx((31, 12, 7.5), rel=0.01)
    assert candidate_periods(t, y, 2) == candidate_periods(t, y)[:2]
    assert candidate_periods(t, y, 0) == ()
    swapped = wave(t, 31) + 2 * wave(t, 12)
    assert candidate_periods(t, swapped, 2) == pytest.approx((12, 31), rel=0.01)


def test_the_trend_would_hide_the_cycle():
    t = np.arange(120.0)
    assert candidate_periods(t, 100 * t + wave(t, 12), 1) == pytest.approx((12,), rel=1e-3)


def test_no_candidates_where_nothing_varies():
    t = np.arange(50.0)
    for flat in (np.full(50, 2.0), np.zeros(50), 3 * t + 1):
        assert candidate_periods(t, flat) == ()
    assert candidate_periods(t[:5], wave(t[:5], 2)) == ()


@pytest.mark.parametrize("periods", [0.7, 1.0, 1.4])
def test_a_cycle_seen_less_than_twice_warns(periods):
    t = np.arange(100.0)
    y = wave(t, 99 / periods, 1.0) + 0.01 * np.random.default_rng(0).normal(size=100)
    with pytest.warns(UserWarning, match="fewer than 2 periods.*not identifiable"):
        found = candidate_periods(t, y)
    assert all(p <= 99 / 2 * 1.1 for p in found)


@pytest.mark.parametrize("periods", [2.5, 4.0])
def test_a_cycle_seen_more_than_twice_does_not_warn(periods):
    t = np.arange(100.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = candidate_periods(t, wave(t, 99 / periods), 1)
    assert found == pytest.approx((99 / periods,), rel=0.01)


# -- what validation decides between -----------------------------------------------------------


def test_choices_scale_with_the_axis():
    cycle = Choice(12.0, math.nan, 0.2)
    assert cycle.scaled(60) == pytest.approx(math.pi * 60 / 12)
    # the wiggle pi / a, in units of half the axis, is the period
    assert math.pi / cycle.scaled(60) * 60 == pytest.approx(12)
    assert cycle.deeper(60) == 0.2
    same = Choice(12.0, math.nan)
    assert same.deeper(60) == same.scaled(60)
    plain = Choice(None, 0.2)
    assert plain.scaled(60) == plain.deeper(60) == 0.2


def test_proposals_are_the_cycles_in_both_ways_and_one_without():
    t = np.arange(200.0)
    y = 2 * wave(t, 20) + wave(t, 7) + 0.1 * np.random.default_rng(0).normal(size=200)
    proposals = propose(t, y)
    periods = candidate_periods(t, y)
    assert len(periods) == 3
    assert [p.period for p in proposals] == [p for p in periods for _ in range(2)] + [None]
    assert [p.deeper_a for p in proposals] == [None, NON_PERIODIC_A] * 3 + [None]
    assert proposals[-1].a == NON_PERIODIC_A
    only = [Choice(None, NON_PERIODIC_A)]
    assert propose(t, np.ones(200)) == propose(np.ones(9), np.arange(9.0)) == only


@pytest.mark.parametrize(("n", "tail"), [(2, 1), (4, 1), (8, 2), (100, 25), (103, 25)])
def test_the_tail_is_a_quarter(n, tail):
    assert tail_size(n) == tail
