"""Where fields are looked at, how fast their first layer should swing, and sounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmxx.data import Audio, load
from mmxx.signals.siren import (
    first_omega,
    grid,
    probe_first_omega,
    stratified_points,
    uniform_points,
)
from mmxx.signals.siren.sampling import grid_rows
from mmxx.signals.siren.sounds import plucked_strings, wav_bytes


def _seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_grids_follow_the_memory_of_an_array() -> None:
    coords = grid((3, 4, 5), dtype=torch.float64).numpy()
    axes = [np.linspace(-1, 1, side) for side in (3, 4, 5)]
    expected = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    assert np.allclose(coords, expected, rtol=0, atol=1e-15)
    rows = torch.cat([grid_rows((3, 4, 5), 0, 7), grid_rows((3, 4, 5), 7, 60)])
    assert torch.equal(rows, grid((3, 4, 5)))
    for shape in ((), (3, 1), (0,)):
        with pytest.raises(ValueError, match="at least 2"):
            grid(shape)


def test_points_are_uniform_and_seeded() -> None:
    before = torch.get_rng_state()
    points = uniform_points(20_000, 2, generator=_seeded())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(points, uniform_points(20_000, 2, generator=_seeded()))
    counts = np.histogram2d(*points.numpy().T, bins=4, range=[(-1, 1)] * 2)[0]
    expected = 20_000 / 16
    assert ((counts - expected) ** 2 / expected).sum() < 40  # 15 degrees of freedom
    with pytest.raises(ValueError, match="n must be"):
        uniform_points(0, 2)


def test_every_cell_has_its_point() -> None:
    points = stratified_points((6, 5), generator=_seeded()).double().numpy()
    cells = np.floor((points + 1) / 2 * [6, 5]).astype(int)
    assert np.array_equal(cells, np.indices((6, 5)).reshape(2, -1).T)
    assert not np.allclose(points, stratified_points((6, 5), generator=_seeded(1)).numpy())
    with pytest.raises(ValueError, match="cells"):
        stratified_points((3, 0))


def test_first_frequency_is_that_of_the_signal() -> None:
    x = np.linspace(-1, 1, 400)
    for rate in (20.0, 60.0, 200.0):
        assert first_omega(np.sin(rate * x) + 3) == pytest.approx(rate, abs=2 * np.pi)
    side = np.linspace(-1, 1, 64)
    plane = np.sin(40 * side)[:, None] * np.ones(64)
    assert first_omega(plane) == pytest.approx(2 * 40, abs=4 * np.pi)
    assert first_omega(plane.T) == first_omega(plane)
    assert first_omega(np.full(50, 3.0)) == 1.0
    both = np.sin(20 * x) + 0.05 * np.sin(200 * x)  # a four-hundredth of the energy
    assert first_omega(both) < 40
    assert first_omega(both, share=0.9999) > 150
    with pytest.raises(ValueError, match="at least 2"):
        first_omega(np.zeros(1))


def test_the_probe_tells_slow_from_fast_and_repeats() -> None:
    x = np.linspace(-1, 1, 120)[:, None]
    before = torch.get_rng_state()
    settings = {"hidden_features": 16, "hidden_layers": 1, "lr": 1e-3}
    slow, again, fast = (
        probe_first_omega(np.sin(rate * x), **settings) for rate in (6.0, 6.0, 50.0)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert 1 <= slow == again < fast <= 60


def test_plucked_strings_are_periodic_and_fade() -> None:
    sound = plucked_strings(6000, 16000, random_state=0)
    assert sound.dtype == np.float32
    assert np.abs(sound).max() == 1
    assert np.array_equal(sound, plucked_strings(6000, 16000, random_state=0))
    ring = round(16000 / 130.8)
    alone = sound[: 1000 - ring].astype(float)  # before the second string
    assert np.corrcoef(alone, sound[ring:1000])[0, 1] > 0.6


@pytest.mark.parametrize("channels", [1, 2])
def test_wav_files_are_read_back(channels: int, tmp_path: Path) -> None:
    sound = np.random.default_rng(0).uniform(-1.2, 1.2, (100, channels)).squeeze()
    path = tmp_path / "sound.wav"
    path.write_bytes(wav_bytes(sound, 8000))
    audio = load(path, kinds=("audio",))
    assert isinstance(audio, Audio)
    assert audio.rate == 8000
    found = audio.samples.reshape(100, channels)
    assert np.abs(found - np.clip(sound, -1, 1).reshape(100, channels)).max() < 1e-4
