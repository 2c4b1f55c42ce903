"""Snake beside torch-snake: numbers recorded once, and the package where installed.

``python tests/signals/test_snake_parity.py`` records ``tests/parity/snake.json`` anew with the
package that is installed.
"""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch

from mmxx.signals.snake import Snake

RECORD = Path(__file__).parents[1] / "parity" / "snake.json"
A = [0.0, -1.5, 0.2, 5.0, 30.0]
PARTS = ("y", "grad_x", "grad_a")


def results(kind, features, a, x, above):
    """Output, gradient of the input and gradient of ``a`` of a layer class."""
    layer = kind(features, 1.0, True).to(x.dtype)
    layer.load_state_dict({"a": a})
    x = x.clone().requires_grad_()
    y = layer(x)
    y.backward(above)
    return dict(zip(PARTS, (y.detach(), x.grad, layer.a.grad), strict=True))


def torch_snake():
    reason = "torch-snake: not installed"
    return pytest.importorskip("snake.activations", reason=reason).Snake


def farthest(got, wanted):
    """Difference, of the largest entry where that is above 1."""
    assert got.shape == wanted.shape
    return float((got - wanted).abs().max()) / max(1.0, float(wanted.abs().max()))


def test_the_numbers_of_torch_snake():
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    a, x, above = (torch.tensor(record[name]) for name in ("a", "x", "g"))
    got = results(Snake, len(a), a, x, above)
    for part in PARTS:
        assert farthest(got[part], torch.tensor(record[part])) <= 1e-6, part


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("features", [[5], [1], [2, 3]])
def test_beside_torch_snake(features, dtype):
    generator = torch.Generator().manual_seed(1)
    shape = (40, *(features if features != [1] else [6]))
    x, above = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    a = torch.randn(features, generator=generator, dtype=dtype) * 10
    if features != [1]:
        a.view(-1)[1] = 0.0
    ours = results(Snake, features, a, x, above)
    theirs = results(torch_snake(), features, a, x, above)
    for part in PARTS:
        assert farthest(ours[part], theirs[part]) <= 1e-6, part


def test_states_go_both_ways():
    theirs, ours = torch_snake()(4, 0.5), Snake(4, 2.0)
    ours.load_state_dict(theirs.state_dict())
    assert ours.a.tolist() == [0.5] * 4
    theirs.load_state_dict(Snake(4, 3.0).state_dict())
    assert theirs.a.tolist() == [3.0] * 4


def record():
    """Write the numbers of the installed package."""
    torch.manual_seed(0)
    x, above = 2 * torch.randn(4, 5), torch.randn(4, 5)
    a = torch.tensor(A)
    version = importlib.metadata.version("torch-snake")
    content = {
        "peer": f"torch-snake {version}, torch {torch.__version__.replace('+cpu', ' (cpu)')}",
        "what": "Snake(5) with these a, applied to x, and its gradients for the output gradient "
        "g; torch.manual_seed(0), x = 2 randn(4, 5), g = randn(4, 5)",
        **{name: value.tolist() for name, value in (("a", a), ("x", x), ("g", above))},
        **{k: v.tolist() for k, v in results(torch_snake(), 5, a, x, above).items()},
    }
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    record()
