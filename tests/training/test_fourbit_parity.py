"""SAWB and PACT beside IBM's fms-model-optimizer: numbers recorded once.

``python tests/training/test_fourbit_parity.py FOLDER`` records ``tests/parity/fourbit.json`` anew,
FOLDER being where ``pip install --no-deps --target FOLDER fms-model-optimizer`` put the package
(it asks for an older torch; the two modules that are read here do with any).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
import types
from pathlib import Path

import pytest
import torch

from mmxx.training.fourbit import PACT, Int4Sym, quantize, sawb_alpha

RECORD = Path(__file__).parents[1] / "parity" / "fourbit.json"
CODES = {"403": (4, True), "103": (2, True)}
BITS = (2, 3, 4, 5, 8)
SHAPES = ("waves", "cubes")
ALPHAS = (0.7, 1.9)


def weights(shape):
    """Numbers that are the same on every machine."""
    waves = torch.sin(torch.arange(1, 400, dtype=torch.float64) * 0.7)
    return (waves if shape == "waves" else waves**3 * 0.1).float()


def delta():
    return torch.cos(torch.arange(399, dtype=torch.float64) * 0.3).float()


def record(folder):
    """Write what the package says."""
    sys.path.insert(0, folder)
    for name in ("fms_mo", "fms_mo.quant_refactor"):  # without what the package itself imports
        module = types.ModuleType(name)
        module.__path__ = [str(Path(folder, *name.split(".")))]
        sys.modules[name] = module
    sawb = importlib.import_module("fms_mo.quant_refactor.sawb_utils")
    pact = importlib.import_module("fms_mo.quant_refactor.pact_rc")
    found = {
        "fms-model-optimizer": next(
            iter(
                d.version
                for d in importlib.metadata.distributions(path=[folder])
                if d.name == "fms-model-optimizer"
            )
        ),
        "sawb": {},
    }
    for shape in SHAPES:
        x = weights(shape)
        of_codes = {code: float(sawb.sawb_params_code(x, 4, int(code))[1]) for code in CODES}
        of_bits = {str(bits): float(sawb.sawb_params(x, bits)[1]) for bits in BITS}
        found["sawb"][shape] = {"codes": of_codes, "bits": of_bits}
    found["pact"] = {}
    for alpha in ALPHAS:
        x = weights("waves").mul(2).requires_grad_()
        # The package returns the gradient of alpha in the place of that of the number of bits.
        bits = torch.tensor([4.0], requires_grad=True)
        y = pact.PACT_STE_rc.apply(
            x, bits, torch.tensor([0.0]), torch.tensor([alpha]), True, False, False
        )
        y.backward(delta())
        found["pact"][str(alpha)] = {
            "y": y.tolist()[:40], "alpha": bits.grad.item(), "x": x.grad.tolist()[:40]
        }  # fmt: skip
    RECORD.write_text(json.dumps(found) + "\n")


@pytest.fixture(scope="module")
def recorded():
    return json.loads(RECORD.read_text())


@pytest.mark.parametrize("shape", SHAPES)
def test_sawb_clips_where_the_package_does(recorded, shape):
    x, expected = weights(shape), recorded["sawb"][shape]
    for code, (bits, zero) in CODES.items():
        assert sawb_alpha(x, bits, zero=zero) == pytest.approx(expected["codes"][code], abs=1e-6)
    for bits in BITS:
        alpha = sawb_alpha(x, bits, zero=False)
        assert alpha == pytest.approx(expected["bits"][str(bits)], abs=1e-6)
    levels = quantize(x, Int4Sym(), 7 / expected["codes"]["403"])
    assert levels.unique().numel() <= 15


@pytest.mark.parametrize("alpha", ALPHAS)
def test_pact_rounds_and_learns_as_the_package_does(recorded, alpha):
    expected = recorded["pact"][str(alpha)]
    x = weights("waves").mul(2).requires_grad_()
    layer = PACT(alpha)
    y = layer(x)
    y.backward(delta())
    assert torch.allclose(y[:40], torch.tensor(expected["y"]), rtol=0, atol=2e-7)
    assert torch.equal(x.grad[:40], torch.tensor(expected["x"]))
    assert layer.alpha.grad.item() == pytest.approx(expected["alpha"], rel=1e-5)


if __name__ == "__main__":
    record(sys.argv[1])
