"""The search against a linear scan, its guards, the controls, and how structures differ."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from mmxx.sparsity._common import Masks
from mmxx.sparsity.from_scratch import (
    ChannelGraph,
    Gates,
    Structure,
    random_widths,
    search,
    spread,
    uniform,
)
from mmxx.sparsity.from_scratch.networks import conv_net, depthwise_net, residual_net

GRAPHS = {
    "plain": ChannelGraph(conv_net(1, (5, 8, 12, 12, 16), 10), (1, 8, 8)),
    "residual": ChannelGraph(residual_net(3, (8, 12, 16), 10), (3, 16, 16)),
    "depthwise": ChannelGraph(depthwise_net(3, (4, 8), 10), (3, 16, 16)),
}


def scan(graph, scores, target, min_channels=1, multiple=1):
    """Every threshold in turn, with the costs counted group by group."""
    order = sorted(range(graph.size), key=lambda c: -scores[c].item())
    best = None
    for count in range(graph.size + 1):
        above = set(order[:count])
        widths = []
        for group in graph.groups.values():
            n = sum(c in above for c in range(group.size + group.start)[group.channels])
            if n < group.size:
                n = max(multiple * int(n / multiple + 0.5), multiple, min_channels)
            widths.append(min(n, group.size))
        if graph.macs(np.array(widths)) <= target:
            best = widths
    return best


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("options", [{}, {"min_channels": 3}, {"multiple": 4}])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.75])
def test_bisection_finds_what_a_scan_of_all_thresholds_finds(name, options, ratio):
    graph = GRAPHS[name]
    for seed in range(3):
        scores = torch.rand(graph.size, generator=torch.Generator().manual_seed(seed))
        target = (1 - ratio) * graph.macs()
        expected = scan(graph, scores, target, **options)
        if expected is None:
            with pytest.raises(ValueError, match="target_macs must be"):
                search(graph, scores, target, **options)
            continue
        found = search(graph, scores, target, **options)
        assert list(found.widths.values()) == expected
        for group in graph.groups.values():  # the best of each group stay
            own, kept = scores[group.channels], found.kept[group.name]
            if not kept.all():
                assert own[kept].min() > own[~kept].max()


def test_the_budget_is_used_and_never_exceeded():
    graph = GRAPHS["plain"]
    scores = torch.rand(graph.size, generator=torch.Generator().manual_seed(0))
    for target in np.linspace(0.1, 1, 40) * graph.macs():
        assert 0.7 * target < search(graph, scores, target).macs <= target
    assert search(graph, scores, 10 * graph.macs()).macs == graph.macs()


def test_a_layer_of_low_scores_keeps_a_channel():
    graph = GRAPHS["plain"]
    scores = torch.ones(graph.size)
    group = list(graph.groups.values())[2]
    scores[group.channels] = 0
    found = search(graph, scores, graph.macs() * 0.4)
    assert found.widths[group.name] == 1
    assert search(graph, scores, graph.macs() * 0.5, min_channels=4).widths[group.name] == 4


def test_equal_scores_give_way_in_proportion():
    graph = GRAPHS["plain"]
    found = search(graph, torch.ones(graph.size), graph.macs() / 2)
    shares = [w / g.size for w, g in zip(found.widths.values(), graph.groups.values(), strict=True)]
    assert max(shares) - min(shares) < 0.2


def test_multiples_leave_whole_what_is_whole():
    graph = GRAPHS["plain"]  # its first group has 5 channels
    found = search(graph, torch.rand(graph.size), graph.macs(), multiple=4)
    assert list(found.widths.values()) == [5, 8, 12, 12, 16]
    groups = graph.groups.values()
    found = uniform(graph, graph.macs() / 2, multiple=4)
    assert all(
        w % 4 == 0 or w == g.size for w, g in zip(found.widths.values(), groups, strict=True)
    )


def test_a_budget_that_cannot_be_reached_tells_what_can():
    graph = GRAPHS["plain"]
    least = graph.macs(np.ones(len(graph.groups)))
    assert search(graph, torch.rand(graph.size), least).macs == least
    with pytest.raises(ValueError, match=f"target_macs must be {least} or more"):
        search(graph, torch.rand(graph.size), least - 1)
    with pytest.raises(ValueError, match=r"target_macs must be .* min_channels=4"):
        search(graph, torch.rand(graph.size), least, min_channels=4)
    with pytest.raises(ValueError, match="target_macs must be"):
        search(graph, torch.rand(graph.size), float("nan"))


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        (torch.rand(3), {}, r"scores must be 53 finite numbers, .* got shape \(3,\)"),
        (torch.full((53,), float("nan")), {}, "scores must be 53 finite numbers"),
        (torch.rand(53), {"multiple": 0}, "multiple must be a whole number of 1 or more, got 0"),
        (torch.rand(53), {"min_channels": 1.5}, "min_channels must be a whole number"),
    ],
)
def test_bad_arguments_are_refused(scores, options, message):
    with pytest.raises(ValueError, match=message):
        search(GRAPHS["plain"], scores, 1e5, **options)


def test_gates_search_for_a_share_or_a_number_and_on_other_inputs():
    graph = GRAPHS["plain"]
    gates = Gates(graph, torch.rand(graph.size, generator=torch.Generator().manual_seed(0)))
    assert gates.search(ratio=0.5).kept == gates.search(target_macs=graph.macs() / 2).kept
    other = gates.search(ratio=0.5, input_shape=(1, 16, 16))
    assert other.graph.input_shape == (1, 16, 16)
    assert other.macs <= other.graph.macs() / 2
    for arguments in ({}, {"ratio": 0.5, "target_macs": 5}):
        with pytest.raises(ValueError, match="give target_macs or ratio, one of them"):
            gates.search(**arguments)
    with pytest.raises(ValueError, match=r"ratio must be in \[0, 1\), got 1.5"):
        gates.search(ratio=1.5)


def test_a_structure_can_be_saved(tmp_path):
    graph = GRAPHS["residual"]
    structure = uniform(graph, graph.macs() / 3)
    structure.kept.save(tmp_path / "kept.safetensors")
    again = Structure(graph, Masks.load(tmp_path / "kept.safetensors"))
    assert again.widths == structure.widths
    assert again.macs == structure.macs
    empty = {name: torch.zeros_like(mask) for name, mask in structure.kept.items()}
    with pytest.raises(ValueError, match="kept must keep a channel or more of each group"):
        Structure(graph, Masks(empty))
    with pytest.raises(ValueError, match="kept must have a mask for each of"):
        Structure(GRAPHS["plain"], structure.kept)


def test_uniform_width_is_one_share_for_all():
    graph = ChannelGraph(conv_net(1, (40, 40, 80, 80), 10), (1, 8, 8))
    shares = np.array(list(uniform(graph, graph.macs() / 4).widths.values())) / [40, 40, 80, 80]
    assert np.ptp(shares) <= 0.05
    assert abs(shares.mean() - 0.5) < 0.03  # a quarter of the products: half of each factor


def test_random_widths_repeat_and_differ():
    graph = GRAPHS["residual"]

    def draw(seed):
        generator = torch.Generator().manual_seed(seed)
        return random_widths(graph, graph.macs() / 3, generator=generator)

    before = torch.get_rng_state()
    assert draw(0).widths == draw(0).widths != draw(1).widths
    assert torch.equal(before, torch.get_rng_state())
    assert draw(0).macs <= graph.macs() / 3


def test_the_spread_of_structures():
    net = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 20), nn.ReLU(), nn.Linear(20, 2))
    graph = ChannelGraph(net, (2,))

    def of(first, second):
        sizes = {"0": (first, 10), "2": (second, 20)}
        return Structure(graph, Masks({n: torch.arange(s) < w for n, (w, s) in sizes.items()}))

    assert spread([of(5, 5), of(5, 5)]) == 0
    assert spread([of(5, 5), of(7, 5)]) == pytest.approx(0.1)  # mean of 2/10 and 0/20
    assert spread([of(5, 5), of(7, 5), of(7, 9)]) == pytest.approx((0.1 + 0.1 + 0.2) / 3)
    with pytest.raises(ValueError, match="structures must be two or more, got 1"):
        spread([of(5, 5)])
    with pytest.raises(ValueError, match="structures must be of networks of the same groups"):
        spread([of(5, 5), uniform(GRAPHS["plain"], 1e5)])
