"""Which weights are dropped: brute force, the authors' codes, exact numbers, refusals."""

from __future__ import annotations

import base64
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mmxx.sparsity.lottery import Masks, magnitude, one_shot, prune, snip

PEER = json.loads((Path(__file__).parents[1] / "parity" / "lottery.json").read_text())


def ones(**shapes):
    return Masks({name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()})


def normal(seed=0, **shapes):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("rate", [0.1, 0.25, 0.5, 0.6])
def test_of_all_masks_of_that_size_it_keeps_the_most(scope, rate):
    """Among all ways to drop so many of 12 weights, none keeps a larger sum of magnitudes."""
    weights = normal(1, a=(2, 3), b=(3, 2))
    masks = prune(weights, ones(a=(2, 3), b=(3, 2)), rate=rate, scope=scope)
    groups = [["a"], ["b"]] if scope == "layer" else [["a", "b"]]
    for names in groups:
        values = torch.cat([weights[name].abs().flatten() for name in names])
        kept = torch.cat([masks[name].flatten() for name in names])
        number = round(rate * len(values)) if scope == "layer" else math.ceil(rate * len(values))
        assert int(kept.sum()) == len(values) - number
        subsets = itertools.combinations(range(len(values)), len(values) - number)
        best = max(float(values[list(some)].sum()) for some in subsets)
        assert float(values[kept].sum()) == pytest.approx(best, rel=1e-6)


def peer_levels(name):
    shapes = PEER["shapes"]
    for level in PEER[name]:
        yield Masks(
            {
                key: torch.from_numpy(
                    np.unpackbits(
                        np.frombuffer(base64.b64decode(packed), np.uint8),
                        count=math.prod(shapes[key]),
                    ).astype(bool)
                ).view(shapes[key])
                for key, packed in level.items()
            }
        )


@pytest.mark.parametrize("name", ["global", "layer"])
def test_the_authors_codes_drop_the_same_and_one_more(name):
    """Theirs is ours, but for the smallest of what we keep: one over all, or one a layer."""
    rng = np.random.default_rng(PEER["seed"])
    before = ones(**{key: tuple(shape) for key, shape in PEER["shapes"].items()})
    for theirs in peer_levels(name):
        weights = {
            key: torch.from_numpy(rng.normal(size=shape).astype(np.float32) * (index + 1))
            for index, (key, shape) in enumerate(PEER["shapes"].items())
        }
        weights = {key: weight * before[key] for key, weight in weights.items()}
        rate = 0.2 if name == "global" else {"0.weight": 0.2, "2.weight": 0.2, "4.weight": 0.1}
        ours = prune(weights, before, rate=rate, scope=name)
        assert (theirs & ours) == theirs
        groups = [list(ours)] if name == "global" else [[key] for key in ours]
        for keys in groups:
            kept = torch.cat([weights[key][ours[key]].abs() for key in keys])
            extra = torch.cat([weights[key][ours[key] & ~theirs[key]].abs() for key in keys])
            assert extra.tolist() == [float(kept.min())]
        before = theirs


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masks_are_nested_and_their_sizes_exact(scope):
    masks = ones(a=(30, 20), b=(7, 30), c=(5, 7))
    for level in range(12):
        weights = {
            k: v * masks[k] for k, v in normal(level, a=(30, 20), b=(7, 30), c=(5, 7)).items()
        }
        new = prune(weights, masks, scope=scope)
        assert (new & masks) == new
        if scope == "global":
            assert new.kept == masks.kept - math.ceil(0.2 * masks.kept)
        else:
            for name in masks:
                before = int(masks[name].sum())
                assert int(new[name].sum()) == before - round(0.2 * before)
        masks = new


def test_ties_go_by_index_and_a_kept_zero_is_not_a_dropped_one():
    weights = {"w": torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 1.0])}
    masks = Masks({"w": torch.tensor([False, True, False, True, True, True])})
    new = prune(weights, masks, rate=0.25)
    assert new["w"].tolist() == [False, False, False, True, True, True]
    new = prune(weights, new, rate=0.6)
    assert new["w"].tolist() == [False, False, False, False, False, True]


def test_each_replica_is_pruned_alone():
    weights = normal(w=(3, 4, 5), v=(3, 2, 4))
    masks = prune(weights, ones(w=(3, 4, 5), v=(3, 2, 4)), scope="global", rate=0.3, replicas=3)
    for index in range(3):
        alone = {name: weight[index] for name, weight in weights.items()}
        expected = prune(alone, ones(w=(4, 5), v=(2, 4)), scope="global", rate=0.3)
        assert all(torch.equal(masks[name][index], expected[name]) for name in masks)


def test_units_may_keep_some_weights():
    weights = {
        "w": torch.tensor([[5.0, 6.0, 7.0, 8.0], [0.1, 0.4, 0.2, 0.3], [4.0, 3.0, 2.0, 1.0]])
    }
    masks = prune(weights, ones(w=(3, 4)), rate=0.5, min_per_unit=2)
    assert masks["w"].tolist() == [
        [False, False, True, True],
        [False, True, False, True],
        [True, True, False, False],
    ]
    masks = prune(weights, masks, rate=0.9, min_per_unit=1)
    assert masks["w"].sum(1).tolist() == [1, 1, 1]
    assert masks["w"][1].tolist() == [False, True, False, False]


def test_an_emptied_layer_is_named():
    with pytest.warns(UserWarning, match="small has no weight left"):
        masks = prune({"small": torch.ones(1), "large": torch.ones(9) * 2},
                      ones(small=(1,), large=(9,)), rate=0.1, scope="global")  # fmt: skip
    assert masks.kept == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.0}, "rate must be above 0 and below 1, got 1.0"),
        ({"rate": 0}, "rate must be above 0 and below 1, got 0"),
        ({"rate": {"v": 0.1}}, "rate names no share for w"),
        ({"rate": {"w": 0.1}, "scope": "global"}, "one number where the scope is 'global'"),
        ({"scope": "filter"}, "scope must be 'layer' or 'global', got 'filter'"),
        ({"min_per_unit": -1}, "min_per_unit must be 0 or more, got -1"),
        ({"scores": {"v": torch.ones(2)}}, "there is no score of w"),
        ({"scores": {"w": torch.ones(3)}}, r"the score of w has shape \(3,\), its mask \(2,\)"),
        ({"scores": {"w": torch.tensor([1, math.nan])}}, "the score of w holds NaN"),
    ],
)
def test_what_is_wrong_is_named(change, message):
    arguments = {"scores": {"w": torch.ones(2)}, "masks": ones(w=(2,)), **change}
    with pytest.raises(ValueError, match=message):
        prune(arguments.pop("scores"), arguments.pop("masks"), **arguments)


def test_snip_scores_are_weight_times_slope():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loss = lambda model: model(x).square().sum()  # noqa: E731
    masks = Masks.ones_like(net)
    scores = snip(loss)(net, masks)
    assert all(p.grad is None for p in net.parameters())
    weight = net[0].weight
    with torch.no_grad():
        for place in [(0, 0), (3, 2)]:
            value, step = weight[place].item(), 1e-6
            weight[place] = value + step
            up = loss(net).item()
            weight[place] = value - step
            down = loss(net).item()
            weight[place] = value
            slope = abs(value * (up - down) / (2 * step))
            assert scores["0.weight"][place].item() == pytest.approx(slope, rel=1e-6)
    kept = one_shot(net, 0.5, criterion=snip(loss))
    assert kept.kept == 10


def test_one_shot_keeps_the_largest_of_a_network():
    net = nn.Sequential(nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))
    before = [p.clone() for p in net.parameters()]
    masks = one_shot(net, 0.25)
    assert masks.kept == 50
    kept = torch.cat([net[i].weight[masks[f"{i}.weight"]].abs() for i in (0, 2)])
    dropped = torch.cat([net[i].weight[~masks[f"{i}.weight"]].abs() for i in (0, 2)])
    assert kept.min() >= dropped.max()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    only = one_shot(net, 0.25, names=["2.weight"])
    assert list(only) == ["2.weight"]
    assert torch.equal(magnitude(net, only)["2.weight"], net[2].weight)
    with pytest.raises(ValueError, match="density must be above 0 and below 1, got 2"):
        one_shot(net, 2)
