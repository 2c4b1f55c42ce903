"""AdaBelief beside its peers: numbers recorded once, and the packages where installed.

``python tests/training/test_adabelief_parity.py`` records ``tests/parity/adabelief.json`` anew
with the packages that are installed.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmxx.training.adabelief import AdaBelief

RECORD = Path(__file__).parents[1] / "parity" / "adabelief.json"
STEPS, SHOWN = 200, (1, 5, 6, 50, 200)
START = [1.5, -0.7, 0.01, 3.0, -4.0]
AUTHORS = {
    "defaults": {},
    "no rectify": {"rectify": False},
    "no sgd": {"degenerated_to_sgd": False, "betas": (0.8, 0.98)},
    "cifar": {"eps": 1e-8, "weight_decay": 5e-4, "weight_decouple": False, "rectify": False},
    "coupled": {"weight_decay": 0.1, "weight_decouple": False},
    "decoupled": {"weight_decay": 0.1},
    "fixed": {"weight_decay": 0.001, "fixed_decay": True},
    "amsgrad": {"amsgrad": True, "rectify": False, "eps": 1e-4},
}
OPTAX = {"defaults": {}, "betas": {"betas": (0.5, 0.9)}, "eps": {"eps": 1e-6}}


def gradient(theta, step):
    """A bowl, and waves that are the same on every machine: no random numbers."""
    waves = torch.cos(torch.arange(1, 6, dtype=theta.dtype) * (0.7 * step)) * 0.5
    return 0.3 * theta + waves


def trajectory(make, dtype=torch.float64):
    """Every point on the way, [steps, 5]."""
    param = torch.nn.Parameter(torch.tensor(START, dtype=dtype))
    optimizer = make([param])
    points = []
    for step in range(1, STEPS + 1):
        param.grad = gradient(param.detach(), step)
        optimizer.step()
        points.append(param.detach().clone())
    return torch.stack(points).double().numpy()


def ours(options, **path):
    return lambda params: AdaBelief(params, **{"lr": 0.01, **options, **path})


def authors(options):
    package = pytest.importorskip("adabelief_pytorch", reason="adabelief-pytorch: not installed")

    def make(params):
        with contextlib.redirect_stdout(io.StringIO()):
            return package.AdaBelief(params, lr=0.01, **options, print_change_log=False)

    return make


def optax_trajectory(options):
    jax = pytest.importorskip("jax", reason="jax: not installed")
    optax = pytest.importorskip("optax", reason="optax: not installed")
    jax.config.update("jax_enable_x64", True)
    beta1, beta2 = options.get("betas", (0.9, 0.999))
    eps = options.get("eps", 1e-16)
    optimizer = optax.adabelief(0.01, b1=beta1, b2=beta2, eps=eps, eps_root=eps)
    theta = jax.numpy.asarray(START, dtype="float64")
    state, points = optimizer.init(theta), []
    for step in range(1, STEPS + 1):
        grad = gradient(torch.tensor(np.array(theta)), step).numpy()
        updates, state = optimizer.update(grad, state, theta)
        theta = optax.apply_updates(theta, updates)
        points.append(np.asarray(theta))
    return np.stack(points)


def recorded(peer):
    cases = json.loads(RECORD.read_text(encoding="utf-8"))[peer]["cases"]
    return {name: np.array(points) for name, points in cases.items()}


@pytest.mark.parametrize("path", [{"fused": False}, {"foreach": True}, {"fused": True}])
@pytest.mark.parametrize("name", AUTHORS)
def test_the_numbers_of_adabelief_pytorch(name, path):
    points = trajectory(ours(AUTHORS[name], **path))[[step - 1 for step in SHOWN]]
    assert np.abs(points - recorded("adabelief-pytorch")[name]).max() < 1e-12


@pytest.mark.parametrize("name", OPTAX)
def test_the_numbers_of_optax(name):
    points = trajectory(ours({"rectify": False, **OPTAX[name]}))[[step - 1 for step in SHOWN]]
    assert np.abs(points - recorded("optax")[name]).max() < 1e-12


def test_every_combination_beside_adabelief_pytorch():
    names = ("weight_decouple", "fixed_decay", "rectify", "degenerated_to_sgd", "amsgrad")
    for values in itertools.product((False, True), repeat=len(names)):
        options = {**dict(zip(names, values, strict=True)), "weight_decay": 0.01}
        if options["amsgrad"] and options["rectify"]:
            continue  # there amsgrad then has no effect
        peer = authors(options)
        got = trajectory(ours(options, fused=False))
        assert np.abs(got - trajectory(peer)).max() < 1e-12, options
        for path in ({"fused": False}, {"fused": True}):
            single = trajectory(ours(options, **path), torch.float32)
            wanted = trajectory(peer, torch.float32)
            assert np.abs(single - wanted).max() < 5e-7 * np.abs(wanted).max(), (options, path)


@pytest.mark.parametrize("name", OPTAX)
def test_beside_optax(name):
    got = trajectory(ours({"rectify": False, **OPTAX[name]}))
    assert np.abs(got - optax_trajectory(OPTAX[name])).max() < 1e-12


def record():
    """Write the numbers of the installed peers."""

    def at(points):
        return [points[step - 1].tolist() for step in SHOWN]

    def entry(peer, cases):
        return {"version": importlib.metadata.version(peer), "cases": cases}

    content = {
        "what": "theta after the steps shown, lr 0.01, float64, start and gradient in "
        "tests/training/test_adabelief_parity.py",
        "seed": None,
        "steps": SHOWN,
        "adabelief-pytorch": entry(
            "adabelief-pytorch",
            {name: at(trajectory(authors(options))) for name, options in AUTHORS.items()},
        ),
        "optax": entry(
            "optax", {name: at(optax_trajectory(options)) for name, options in OPTAX.items()}
        ),
    }
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
