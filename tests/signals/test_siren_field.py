"""The field from end to end: every kind of signal, its files, and every kind of bad input."""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, diags_array, eye_array, kron, vstack
from scipy.sparse.linalg import lsqr

from mmxx.signals.siren import (
    Siren,
    SirenField,
    fit,
    grid,
    match_affine,
    mse_loss,
    psnr,
    value_gradient_laplacian,
)

Y, X = np.mgrid[:20, :20] / 19 * 2 - 1
PICTURE = 0.5 + 0.3 * np.sin(5 * X + 2 * Y) * np.cos(4 * Y)
SPHERE = np.random.default_rng(0).normal(size=(300, 3))
SPHERE /= np.linalg.norm(SPHERE, axis=1, keepdims=True)


def _field(**changes: object) -> SirenField:
    settings = {
        "hidden_features": 32,
        "hidden_layers": 1,
        "first_omega_0": 10.0,
        "steps": 100,
        "lr": 1e-3,
        "random_state": 0,
        **changes,
    }
    return SirenField(**settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def ball() -> SirenField:
    """A sphere of radius 3 around (10, 10, 10)."""
    return _field(steps=150, batch=400).fit_sdf(10 + 3 * SPHERE, SPHERE)


@pytest.fixture(scope="module")
def picture() -> SirenField:
    return _field(steps=30).fit_image(PICTURE)


# -- signals of all kinds ------------------------------------------------------------------------


def test_a_picture_and_what_its_psnr_means() -> None:
    field = _field().fit_image(PICTURE)
    rendered = field.render()
    assert rendered.shape == (20, 20)
    assert rendered.dtype == np.float32
    error = np.mean((rendered.astype(float) - PICTURE) ** 2)
    assert field.psnr_ is not None
    assert field.psnr_ == pytest.approx(-10 * math.log10(error))  # the peak of [0, 1] is 1
    assert field.psnr_ > 45
    assert field.task_ == "image"
    assert len(field.losses_) == 100
    # The network gives [-1, 1], the losses are in its units, and the best is kept.
    assert min(field.losses_) == pytest.approx(4 * error, rel=1e-2)
    between = field.render((39, 39))[::2, ::2]
    assert np.allclose(between, rendered, atol=1e-5)
    fine_y, fine_x = np.mgrid[:39, :39] / 38 * 2 - 1
    truth = 0.5 + 0.3 * np.sin(5 * fine_x + 2 * fine_y) * np.cos(4 * fine_y)
    assert psnr(field.render((39, 39)), truth, peak=1.0) > 30


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_pictures_of_whole_numbers(dtype: type, top: int) -> None:
    pixels = np.rint(top * np.stack([PICTURE, 1 - PICTURE, PICTURE**2], axis=-1)).astype(dtype)
    field = _field().fit_image(pixels)
    rendered = field.render()
    assert rendered.shape == (20, 20, 3)
    assert field.psnr_ == pytest.approx(psnr(rendered, pixels, peak=top))
    assert field.psnr_ is not None
    assert field.psnr_ > 38


def test_first_coordinate_goes_down() -> None:
    field = _field().fit_image(np.where(Y > 0, 0.9, 0.1) + 0.05 * X)
    top, bottom = field.predict(np.array([[-0.8, 0.0], [0.8, 0.0]]))[:, 0]
    assert top < 0.3 < 0.7 < bottom
    assert np.allclose(field.predict(grid((20, 20)).numpy()).reshape(20, 20), field.render())


@pytest.mark.parametrize("dtype", [np.float64, np.int16])
def test_sound_of_two_channels(dtype: type) -> None:
    phase = np.linspace(0, 30, 300)
    samples = np.stack([np.sin(phase), 0.5 * np.cos(phase)], axis=1)
    samples = (samples * (20000 if dtype is np.int16 else 3.0)).astype(dtype)
    field = _field(first_omega_0=40.0).fit_audio(samples, rate=8000)
    rendered = field.render()
    assert rendered.shape == samples.shape
    loudest = float(np.abs(samples.astype(float)).max())
    assert field.psnr_ == pytest.approx(psnr(rendered, samples, peak=2 * loudest))
    assert field.psnr_ is not None
    assert field.psnr_ > 40
    assert field.rate_ == 8000


def test_a_volume_and_a_video() -> None:
    z = np.linspace(-1, 1, 7)[:, None, None]
    volume = np.sin(3 * z) * np.cos(2 * np.linspace(-1, 1, 8))[:, None] * np.ones(9)
    field = _field().fit_volume(volume)
    assert field.render().shape == (7, 8, 9)
    assert field.psnr_ is not None
    assert field.psnr_ > 40
    frames = np.stack([np.roll(PICTURE[:10, :10], i, axis=1) for i in range(5)])
    frames = np.stack([frames, frames**2, 1 - frames], axis=-1)
    field = _field(batch=256, lr=2e-3).fit_video(frames)
    assert field.render().shape == (5, 10, 10, 3)
    assert field.task_ == "video"
    assert field.psnr_ is not None
    assert field.psnr_ > 22


def test_the_frequency_is_found_by_itself() -> None:
    field = _field(first_omega_0="auto").fit_image(PICTURE)
    assert 1 <= field.first_omega_0_ <= 60
    assert field.first_omega_0_ == field.net_.net[0].omega_0
    assert field.first_omega_0 == "auto"
    assert field.psnr_ is not None
    assert field.psnr_ > 40


def test_unknown_pixels_are_not_looked_at() -> None:
    mask = np.random.default_rng(0).random((20, 20)) < 0.6
    field = _field(first_omega_0=5.0).fit_image(PICTURE, mask=mask)
    other = _field(first_omega_0=5.0).fit_image(np.where(mask, PICTURE, 0.0), mask=mask)
    assert np.array_equal(field.render(), other.render())
    assert psnr(field.render()[mask], PICTURE[mask], peak=1.0) > 40
    assert psnr(field.render()[~mask], PICTURE[~mask], peak=1.0) > 25


def test_a_loss_of_ones_own_and_low_precision() -> None:
    def absolute(net: torch.nn.Module, coords: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (net(coords) - targets).abs().mean()

    field = _field(loss=absolute, steps=200).fit_image(PICTURE)
    assert field.psnr_ is not None
    assert field.psnr_ > 35
    rough = _field(precision="bfloat16").fit_image(PICTURE)
    assert rough.psnr_ is not None
    assert rough.psnr_ > 25
    assert rough.psnr_ != _field().fit_image(PICTURE).psnr_


# -- Poisson -------------------------------------------------------------------------------------


def _least_squares(right: np.ndarray, down: np.ndarray) -> np.ndarray:
    """The picture of mean zero whose differences come nearest to slopes given at pixels."""
    n, m = right.shape

    def difference(side: int) -> csr_array:
        ones = np.ones(side - 1)
        return csr_array(diags_array([-ones, ones], offsets=[0, 1], shape=(side - 1, side)))

    matrix = vstack(
        [kron(difference(n), eye_array(m)), kron(eye_array(n), difference(m))], format="csr"
    )
    wanted = [(down[1:] + down[:-1]) / 2, (right[:, 1:] + right[:, :-1]) / 2]
    solution = lsqr(matrix, np.concatenate([w.ravel() for w in wanted]), atol=1e-12, btol=1e-12)[0]
    return (solution - solution.mean()).reshape(n, m)


@pytest.mark.parametrize("curl", [0.0, 0.02])
def test_poisson_from_gradients_equals_least_squares(curl: float) -> None:
    """Also where no picture has the gradients: then the nearest one is found."""
    pixel = 2 / 19
    wave, other = 5 * X + 2 * Y, 4 * Y
    right = 0.3 * 5 * np.cos(wave) * np.cos(other) * pixel + curl * Y
    down = 0.3 * (2 * np.cos(wave) * np.cos(other) - 4 * np.sin(wave) * np.sin(other)) * pixel
    down = down - curl * X
    exact = _least_squares(right, down)
    field = _field(steps=200).fit_gradient(right, down)
    rendered = field.render()
    assert abs(rendered.mean()) < 1e-6
    assert psnr(rendered, exact, peak=float(np.ptp(exact))) > 28
    matched = match_affine(rendered, exact)
    assert psnr(matched, exact, peak=float(np.ptp(exact))) > 30
    if not curl:
        assert psnr(rendered, PICTURE - PICTURE.mean(), peak=1.0) > 35
    assert field.psnr_ is None  # there is nothing to compare with


def test_poisson_from_laplacians_has_those_laplacians() -> None:
    bends = -0.3 * (25 + 4 + 16) * np.sin(5 * X + 2 * Y) * np.cos(4 * Y)
    bends -= 0.3 * 2 * 2 * 4 * np.cos(5 * X + 2 * Y) * np.sin(4 * Y)
    bends *= (2 / 19) ** 2
    field = _field(steps=300).fit_laplacian(bends)
    _, _, found = value_gradient_laplacian(field.net_, grid((20, 20)))
    found = field._scale.gain * found.detach().numpy().reshape(20, 20) * (2 / 19) ** 2
    assert np.linalg.norm(found - bends) < 0.05 * np.linalg.norm(bends)
    # What remains of the rendered picture is harmonic: inside, its five points cancel.
    rest = field.render() - PICTURE
    five = (
        rest[1:-1, :-2] + rest[1:-1, 2:] + rest[:-2, 1:-1] + rest[2:, 1:-1] - 4 * rest[1:-1, 1:-1]
    )
    assert np.abs(five).mean() < 0.1 * np.abs(bends).mean()


def test_a_picture_is_recovered_from_its_derivatives() -> None:
    for loss, least in (("gradient", 40), ("laplacian", 15)):
        field = _field(loss=loss, steps=150).fit_image(PICTURE)
        assert field.psnr_ is not None
        assert field.psnr_ > least
        assert field.task_ == loss


# -- surfaces and waves --------------------------------------------------------------------------


def test_a_ball_from_its_points(ball: SirenField) -> None:
    vertices, faces = ball.mesh(24)
    radius = np.linalg.norm(vertices - 10, axis=1)
    assert 2.8 < radius.min() <= radius.max() < 3.2
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    outwards = (np.cross(b - a, c - a) * ((a + b + c) / 3 - 10)).sum(axis=1)
    assert (outwards > 0).all()
    away = ball.predict(10 + SPHERE * 3.15)[:, 0]
    inside = ball.predict(10 + SPHERE * 2.85)[:, 0]
    assert inside.max() < 0 < away.min()
    assert np.abs(away - 0.15).mean() < 0.08  # in the cloud's units
    kept, _ = ball.mesh(24, chunk=100, sheets=True)
    assert len(kept) >= len(vertices)


def test_a_curve_in_the_plane() -> None:
    angles = np.linspace(0, 2 * math.pi, 100, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    field = _field().fit_sdf(circle, circle)
    assert field.predict(0.9 * circle).max() < 0 < field.predict(1.1 * circle).min()
    with pytest.raises(ValueError, match="points in space"):
        field.mesh(8)


def test_duplicate_points_do_no_harm() -> None:
    twice = np.repeat(SPHERE[:40], 3, axis=0)
    field = _field(steps=30).fit_sdf(twice, twice)
    assert np.isfinite(field.losses_).all()
    assert field.losses_[-1] < field.losses_[0]


def test_a_wave_comes_nearer_to_its_equation() -> None:
    field = _field(batch=256, lr=1e-3, steps=60).solve_helmholtz(4.0, source_width=0.2)
    assert field.predict(np.zeros((3, 2))).shape == (3, 2)
    assert np.mean(field.losses_[-10:]) < 0.5 * np.mean(field.losses_[:5])
    with pytest.raises(ValueError, match="wavenumber"):
        _field().solve_helmholtz(-1.0)


# -- randomness ----------------------------------------------------------------------------------


def test_a_seed_gives_the_same_bits_and_leaves_the_global_state() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    fields = [
        _field(random_state=seed, batch=50, steps=5, first_omega_0="auto").fit_image(PICTURE)
        for seed in (3, 3, 4)
    ]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    one, same, other = (field.render() for field in fields)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        free = [_field(random_state=None, steps=1).fit_image(PICTURE).render() for _ in range(2)]
    assert not np.array_equal(*free)


def test_the_signal_is_not_changed() -> None:
    pixels = PICTURE.copy()
    _field(steps=1).fit_image(pixels)
    _field(steps=1, loss="gradient").fit_image(pixels)
    assert np.array_equal(pixels, PICTURE)


# -- rendering in chunks -------------------------------------------------------------------------


def test_chunks_give_what_one_shot_gives(picture: SirenField) -> None:
    whole = picture.render((33, 17), chunk=10**6)
    coords = grid((33, 17)).numpy()
    for chunk in (1, 7, 100, 33 * 17):
        assert np.allclose(picture.render((33, 17), chunk=chunk), whole, rtol=0, atol=2e-6)
        parts = picture.predict(coords, chunk=chunk)[:, 0]
        assert np.allclose(parts, whole.ravel(), rtol=0, atol=2e-6)


def test_no_more_points_than_a_chunk_are_in_memory(picture: SirenField, ball: SirenField) -> None:
    for field, look in (
        (picture, lambda: picture.render((50, 50), chunk=64)),
        (picture, lambda: picture.predict(np.zeros((1000, 2)), chunk=64)),
        (ball, lambda: ball.mesh(12, chunk=64)),
    ):
        sizes: list[int] = []
        hook = field.net_.register_forward_pre_hook(
            lambda module, args, sizes=sizes: sizes.append(len(args[0]))
        )
        look()
        hook.remove()
        assert max(sizes) == 64


SIXTEEN_MILLIONS = """
import resource
import numpy as np
from mmxx.signals.siren import SirenField
settings = dict(hidden_features=24, hidden_layers=0, first_omega_0=5.0, steps=1, random_state=0)
field = SirenField(**settings).fit_image(np.eye(4))
picture = field.render((4096, 4096))
assert picture.shape == (4096, 4096)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_a_picture_of_sixteen_million_pixels_in_less_than_a_gibibyte() -> None:
    """All phases at once would be 1.5 GiB."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SIXTEEN_MILLIONS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2**20  # kibibytes


# -- files ---------------------------------------------------------------------------------------


def test_saved_and_loaded_bit_for_bit(
    picture: SirenField, ball: SirenField, tmp_path: Path
) -> None:
    sound = _field(steps=3, first_omega_0=40.0).fit_audio(np.sin(np.arange(99)), rate=44100)
    with pytest.warns(UserWarning, match="constant"):
        flat = _field(steps=2).fit_image(np.zeros((4, 4)))
    for number, field in enumerate((picture, ball, sound, flat)):
        path = tmp_path / f"{number}.safetensors"
        field.save(path)
        other = SirenField.load(path)
        for name in ("psnr_", "losses_", "task_", "shape_", "first_omega_0_", "hidden_features"):
            assert getattr(other, name) == getattr(field, name), name
        assert other.steps == field.steps
        assert other.random_state == field.random_state
        coords = 10 + SPHERE if field is ball else np.zeros((3, field.net_.in_features))
        assert np.array_equal(other.predict(coords), field.predict(coords))
        if field.shape_ is not None:
            assert np.array_equal(other.render(), field.render())
        again = tmp_path / "again.safetensors"
        other.save(again)
        assert again.read_bytes() == path.read_bytes()
    assert SirenField.load(tmp_path / "2.safetensors").rate_ == 44100
    mesh, loaded = ball.mesh(12), SirenField.load(tmp_path / "1.safetensors").mesh(12)
    assert all(np.array_equal(a, b) for a, b in zip(mesh, loaded, strict=True))


def test_a_loaded_field_can_be_fitted_again(picture: SirenField, tmp_path: Path) -> None:
    picture.save(tmp_path / "field")
    again = SirenField.load(tmp_path / "field").fit_image(PICTURE)
    assert np.array_equal(again.render(), picture.render())


def _edited(path: Path, change: Callable[[list], None]) -> bytes:
    """The file with its own part of the head changed."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + length])
    own = json.loads(head["__metadata__"]["field"])
    change(own)
    head["__metadata__"]["field"] = json.dumps(own)
    raw = json.dumps(head).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + content[8 + length :]


def test_damaged_files_are_refused(picture: SirenField, tmp_path: Path) -> None:
    path = tmp_path / "field.safetensors"
    picture.save(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    damaged = [content[:n] for n in (0, 5, 8, 100, 8 + length, len(content) - 1)]
    damaged += [b"\x00" * 64, b"\xff" * 64, content + b"more", b"{}"]
    damaged += [
        _edited(path, lambda own: own[0].update(hidden_features=31)),
        _edited(path, lambda own: own[0].update(unknown=1)),
        _edited(path, lambda own: own[0].update(omega_0=-3)),
        _edited(path, lambda own: own[1].pop("task")),
        _edited(path, lambda own: own[1].update(sizes=[3, 1])),
        _edited(path, lambda own: own[1].update(first_omega_0="x")),
        _edited(path, lambda own: own.clear()),
        content.replace(b"mmxx.siren.field.1", b"mmxx.siren.field.9"),
        content.replace(b"net_.net.0.linear.weight", b"net_.net.7.linear.weight"),
    ]
    wrong = tmp_path / "wrong.safetensors"
    for bad in damaged:
        wrong.write_bytes(bad)
        with pytest.raises(ValueError, match=r"is no file of SirenField\.save"):
            SirenField.load(wrong)
    with pytest.raises(FileNotFoundError):
        SirenField.load(tmp_path / "none.safetensors")


def test_flipped_bytes_of_the_head_raise_nothing_else(picture: SirenField, tmp_path: Path) -> None:
    path, wrong = tmp_path / "field.safetensors", tmp_path / "wrong.safetensors"
    picture.save(path)
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, 8 + length, 60):
        bad = bytearray(content)
        bad[place] ^= 1 << int(rng.integers(8))
        wrong.write_bytes(bytes(bad))
        try:
            SirenField.load(wrong)
        except ValueError:
            refused += 1
    assert refused > 10


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, ("exploded",)


def test_nothing_is_unpickled(in_tmp: Path) -> None:
    Path("bomb").write_bytes(pickle.dumps(_Bomb()))
    torch.save({"bomb": _Bomb()}, "bomb.pt")
    for name in ("bomb", "bomb.pt"):
        with pytest.raises(ValueError, match="is no file"):
            SirenField.load(name)
    assert not Path("exploded").exists()


# -- bad input -----------------------------------------------------------------------------------


def test_values_that_are_not_finite() -> None:
    bad = PICTURE.copy()
    bad[3, 4], bad[5, 6] = np.nan, np.inf
    flat = np.ones((20, 20))
    for call in (
        lambda: _field().fit_image(bad),
        lambda: _field().fit_gradient(bad, flat),
        lambda: _field().fit_gradient(flat, bad),
        lambda: _field().fit_laplacian(bad),
        lambda: _field().fit_audio(bad.ravel(), 8000),
        lambda: _field().fit_volume(np.stack([bad, bad])),
        lambda: _field().fit_video(np.stack([bad, bad])),
    ):
        with pytest.raises(ValueError, match="values that are NaN or infinite"):
            call()


def test_a_constant_signal_is_said_to_be_one() -> None:
    for loss in ("mse", "gradient", "laplacian"):
        with pytest.warns(UserWarning, match="is constant .* psnr_ is inf"):
            field = _field(loss=loss, steps=3).fit_image(np.full((6, 6), 7, np.uint8))
        assert field.psnr_ == math.inf
        assert np.isfinite(field.render()).all()
    with pytest.warns(UserWarning, match="the audio is constant"):
        assert _field(steps=2).fit_audio(np.zeros(9), 10).psnr_ == math.inf
    with pytest.warns(UserWarning, match="is constant"):
        _field(steps=2, first_omega_0="auto").fit_image(np.zeros((6, 6)))


def test_shapes_and_types_that_do_not_fit() -> None:
    for shape in ((1, 9), (9, 1), (0, 9), (9, 1, 3)):
        with pytest.raises(ValueError, match="side of image must be at least 2"):
            _field().fit_image(np.zeros(shape))
    with pytest.raises(ValueError, match="2 axes"):
        _field().fit_image(np.zeros(9))
    with pytest.raises(ValueError, match="at least one channel"):
        _field().fit_image(np.zeros((9, 9, 0)))
    with pytest.raises(TypeError, match="real numbers"):
        _field().fit_image(np.full((9, 9), "x"))
    with pytest.raises(TypeError, match="real numbers"):
        _field().fit_image(np.zeros((9, 9), complex))
    for samples in ([], [0.5], np.zeros((0, 2))):
        with pytest.raises(ValueError, match="side of samples must be at least 2"):
            _field().fit_audio(samples, 8000)
    with pytest.raises(ValueError, match="rate"):
        _field().fit_audio(np.arange(9.0), 0)
    with pytest.raises(ValueError, match="3 axes"):
        _field().fit_volume(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="one shape"):
        _field().fit_gradient(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="must be square"):
        _field().fit_laplacian(np.zeros((4, 5)))
    for mask in (np.ones((19, 20), bool), np.zeros((20, 20), bool), np.ones((20, 20))):
        with pytest.raises(ValueError, match="mask must be bool"):
            _field().fit_image(PICTURE, mask=mask)
    with pytest.raises(ValueError, match="mask cannot"):
        _field(loss="gradient").fit_image(PICTURE, mask=np.ones((20, 20), bool))
    with pytest.raises(ValueError, match="for pictures only"):
        _field(loss="gradient").fit_audio(np.arange(9.0), 10)


@pytest.mark.parametrize("channels", [1, 3])
def test_opacity_is_laid_on_white(channels: int) -> None:
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 256, (6, 6, channels), np.uint8)
    alpha = rng.integers(0, 256, (6, 6, 1), np.uint8)
    with pytest.warns(UserWarning, match="opacity"):
        field = _field(steps=3).fit_image(np.concatenate([colour, alpha], axis=-1))
    laid = np.rint(colour * (alpha / 255) + 255 * (1 - alpha / 255)).astype(np.uint8)
    expected = _field(steps=3).fit_image(laid)
    assert np.array_equal(field.render(), expected.render())
    assert field.psnr_ == expected.psnr_


def test_parameters_out_of_range() -> None:
    for name, bad in (
        ("omega_0", 0.0),
        ("omega_0", -30.0),
        ("first_omega_0", 0.0),
        ("first_omega_0", math.nan),
        ("steps", 0),
        ("batch", 0),
        ("lr", -1.0),
        ("hidden_features", 0),
        ("precision", "float16"),
        ("loss", "sdf"),
    ):
        with pytest.raises(ValueError, match=name):
            _field(**{name: bad}).fit_image(PICTURE)


def test_clouds_that_are_no_surface() -> None:
    with pytest.raises(ValueError, match="N > 0"):
        _field().fit_sdf(np.zeros((0, 3)), np.zeros((0, 3)))
    bad = SPHERE.copy()
    bad[7, 1] = np.nan
    with pytest.raises(ValueError, match="normals must be finite, got 1 rows"):
        _field().fit_sdf(SPHERE, bad)
    with pytest.raises(ValueError, match="points must be finite, got 1 rows"):
        _field().fit_sdf(bad, SPHERE)
    with pytest.raises(ValueError, match="one place only"):
        _field().fit_sdf(np.ones((5, 3)), SPHERE[:5])
    with pytest.warns(UserWarning, match="brought to 1"):
        long = _field(steps=3).fit_sdf(SPHERE, 5 * SPHERE)
    assert long.losses_ == pytest.approx(_field(steps=3).fit_sdf(SPHERE, SPHERE).losses_, rel=1e-4)


def test_looking_where_there_is_nothing(picture: SirenField, ball: SirenField) -> None:
    with pytest.warns(UserWarning, match=r"outside of the fitted cube .* 1\.5"):
        picture.predict(np.array([[1.5, 0.0]]))
    with pytest.warns(UserWarning, match="extrapolates"):
        ball.predict(np.zeros((1, 3)))
    assert picture.predict(np.zeros((0, 2))).shape == (0, 1)
    with pytest.raises(ValueError, match="finite"):
        picture.predict(np.array([[np.nan, 0.0]]))
    with pytest.raises(ValueError, match=r"\[N, 2\]"):
        picture.predict(np.zeros((3, 3)))
    with pytest.raises(ValueError, match="chunk"):
        picture.predict(np.zeros((3, 2)), chunk=0)
    with pytest.raises(ValueError, match="2 sides"):
        picture.render((4, 4, 4))
    with pytest.raises(ValueError, match="at least 2"):
        picture.render((1, 4))
    with pytest.raises(ValueError, match="task sdf"):
        ball.render()
    with pytest.raises(ValueError, match="not image"):
        picture.mesh(8)
    for call in (SirenField().render, lambda: SirenField().predict(np.zeros((1, 2)))):
        with pytest.raises(ValueError, match="not fitted"):
            call()
    with pytest.raises(ValueError, match="not fitted"):
        SirenField().save("nowhere")


def test_divergence_names_the_rates_and_puts_the_best_weights_back() -> None:
    field = _field(lr=1e30, omega_0=25.0)
    message = r"step \d+ with lr=1e\+30, first_omega_0=10 and omega_0=25"
    with pytest.raises(FloatingPointError, match=message):
        field.fit_image(PICTURE)
    first = Siren(
        2,
        1,
        hidden_features=32,
        hidden_layers=1,
        omega_0=25.0,
        first_omega_0=10.0,
        generator=torch.Generator().manual_seed(0),
    )
    for found, expected in zip(field.net_.parameters(), first.parameters(), strict=True):
        assert torch.equal(found, expected)
    assert np.isfinite(field.render()).all()


def test_weights_before_a_broken_step_are_those_of_the_lowest_loss() -> None:
    net = Siren(2, 1, hidden_features=8, generator=torch.Generator().manual_seed(0))
    coords, targets = grid((4, 4)), torch.ones(16, 1)
    seen: list[tuple[float, dict[str, torch.Tensor]]] = []

    def breaks(field: torch.nn.Module, points: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        value = mse_loss(field, points, wanted)
        if len(seen) == 9:
            return value * math.nan
        if len(seen) > 5:  # the lowest is not the last one
            value = value * 10
        state = {name: w.detach().clone() for name, w in field.state_dict().items()}
        seen.append((value.item(), state))
        return value

    with pytest.raises(FloatingPointError, match="the loss became nan at step 9"):
        fit(net, lambda step: (coords, targets), breaks, steps=20, lr=0.05)
    losses = [loss for loss, _ in seen]
    best = seen[int(np.argmin(losses))][1]
    assert losses[-1] != min(losses)
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, best[name])


def test_the_best_weights_are_kept_on_demand() -> None:
    coords, targets = grid((4, 4)), torch.ones(16, 1)
    for keep in (True, False):
        net = Siren(2, 1, hidden_features=8, generator=torch.Generator().manual_seed(0))
        losses = fit(
            net, lambda step: (coords, targets), mse_loss, steps=9, lr=0.05, keep_best=keep
        )
        final = mse_loss(net, coords, targets).item()
        assert (final == pytest.approx(min(losses))) == keep
    with pytest.raises(ValueError, match="lr"):
        fit(net, lambda step: (coords, targets), mse_loss, steps=1, lr=0.0)
    with pytest.raises(ValueError, match="steps"):
        fit(net, lambda step: (coords, targets), mse_loss, steps=0)


def test_pixels_that_are_not_known_do_not_choose_the_frequency() -> None:
    picture = np.outer(np.sin(np.arange(24) / 2), np.ones(24)) / 2 + 0.5
    known = np.ones((24, 24), bool)
    known[:, 12:] = False
    noisy = picture.copy()
    noisy[:, 12:] = np.random.default_rng(0).random((24, 12))
    chosen = [
        SirenField(
            hidden_features=8, hidden_layers=1, steps=1, first_omega_0="auto", random_state=0
        )
        .fit_image(pixels, mask=known)
        .first_omega_0_
        for pixels in (picture, noisy)
    ]
    assert chosen[0] == chosen[1]


def test_numbers_of_numpy_are_taken_and_saved(tmp_path: Path) -> None:
    field = SirenField(
        hidden_features=8, steps=1, first_omega_0=np.float32(10), random_state=np.int64(3)
    )
    field.fit_audio(np.sin(np.arange(32.0)), rate=8)
    field.save(tmp_path / "a.safetensors")
    again = SirenField.load(tmp_path / "a.safetensors")
    assert np.array_equal(again.render((32,)), field.render((32,)))
    field.fit_image(np.eye(8))
    assert not hasattr(field, "rate_")


def test_a_flipped_bit_in_the_weights_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    SirenField(hidden_features=8, steps=1, random_state=0).fit_image(np.eye(8)).save(path)
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged"):
        SirenField.load(path)
