"""Which channels belong together: plain, residual, depthwise, concatenated; and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmxx.sparsity._common import Masks
from mmxx.sparsity.from_scratch import ChannelGraph, uniform
from mmxx.sparsity.from_scratch.networks import conv_net, depthwise_net, residual_net


class Net(nn.Module):
    """Layers by name, and a forward that is given."""

    def __init__(self, way, **layers: nn.Module) -> None:
        super().__init__()
        self.way = way
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, x):
        return self.way(self, x)


def sizes(graph: ChannelGraph) -> dict[str, int]:
    return {name: group.size for name, group in graph.groups.items()}


def conv(inner: int, outer: int, size: int = 3, **options) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, size, padding=size // 2, **options)


def test_a_plain_network_has_a_group_for_each_layer_but_the_last():
    graph = ChannelGraph(conv_net(1, (4, 6, 8), 10), (1, 8, 8))
    assert sizes(graph) == {"0": 4, "3": 6, "7": 8}
    assert graph.pinned == {"12": "it is the network's output"}
    assert graph.size == 18
    assert graph.groups["3"].channels == slice(4, 10)
    assert not any(group.residual for group in graph.groups.values())


def test_what_is_summed_belongs_together():
    net = residual_net(3, (4, 6, 8), 10)
    graph = ChannelGraph(net, (3, 8, 8))
    assert graph.groups["3.body.3"].layers == ("3.body.3", "3.past.0", "4.body.3")
    assert graph.groups["3.body.3"].residual
    assert graph.groups["3.body.0"].layers == ("3.body.0",)
    whole = ChannelGraph(net, (3, 8, 8), residual=False)
    assert sizes(whole) == {n: s for n, s in sizes(graph).items() if not graph.groups[n].residual}
    assert whole.pinned["3.past.0"] == "several layers write to it"


def test_a_depthwise_convolution_keeps_the_channels_of_its_input():
    graph = ChannelGraph(depthwise_net(3, (4, 6), 10), (3, 8, 8))
    assert graph.groups["3.body.0"].layers == ("3.body.0", "3.body.3")
    assert not graph.groups["3.body.0"].residual
    assert graph.depthwise == {"3.body.3", "4.body.3"}
    assert {"3.body.1", "3.body.4"} <= graph.sites().keys()  # gated before and behind


def test_concatenation_flattening_and_excitation_are_followed():
    def way(net, x):
        a, b = net.a(x), F.relu(net.b(x))
        c = torch.cat([a, b], 1)
        c = c * torch.sigmoid(net.up(F.relu(net.down(c.mean((2, 3), keepdim=True)))))
        c = F.max_pool2d(c, 2)
        return net.out(c.view(c.size(0), -1))

    net = Net(
        way, a=conv(2, 3), b=conv(2, 5), down=conv(8, 2, 1), up=conv(2, 8, 1), out=nn.Linear(32, 2)
    )
    # the gate of 8 channels spans both groups of the concatenation, so that neither may shrink
    graph = ChannelGraph(net, (2, 4, 4))
    assert sizes(graph) == {"down": 2}
    assert (
        graph.pinned["a"] == graph.pinned["up"] == "another layer shares only part of its channels"
    )

    def plain(net, x):
        c = F.max_pool2d(torch.cat([net.a(x), F.relu(net.b(x))], 1), 2)
        return net.out(torch.flatten(c, 1))

    graph = ChannelGraph(Net(plain, a=conv(2, 3), b=conv(2, 5), out=nn.Linear(32, 2)), (2, 4, 4))
    assert sizes(graph) == {"a": 3, "b": 5}
    assert graph.along("out", "in").tolist() == [c for c in range(8) for _ in range(4)]
    assert graph.along("a", "in").tolist() == [-1, -1]
    assert graph.along("nothing", "in") is None


def test_squeeze_and_excitation_of_one_layer_shrinks_with_it():
    def way(net, x):
        x = net.a(x)
        pooled = F.adaptive_avg_pool2d(x, 1)
        return net.out((x * torch.sigmoid(net.up(F.relu(net.down(pooled))))).mean((2, 3)))

    net = Net(way, a=conv(1, 6), down=conv(6, 2, 1), up=conv(2, 6, 1), out=nn.Linear(6, 3))
    graph = ChannelGraph(net, (1, 4, 4))
    assert sizes(graph) == {"a": 6, "down": 2}
    assert graph.groups["a"].layers == ("a", "up")


def test_a_layer_that_is_called_twice_counts_twice_and_keeps_its_channels_together():
    def way(net, x):
        return net.out(net.twice(F.relu(net.twice(net.first(x)))))

    net = Net(way, first=conv(1, 4, 1), twice=conv(4, 4), out=conv(4, 2, 1))
    graph = ChannelGraph(net, (1, 5, 5))
    assert graph.groups["first"].layers == ("first", "twice")
    assert graph.macs() == 25 * (4 + 2 * 9 * 16 + 8)


def test_what_mixes_channels_stays_whole():
    def way(net, x):
        x = net.norm(net.a(x))
        x = net.grouped(F.relu(net.b(x)))
        x = net.c(x)
        return net.out(x.view(-1, 48))

    net = Net(
        way, a=conv(1, 4), norm=nn.GroupNorm(2, 4), b=conv(4, 6), grouped=conv(6, 6, groups=2),
        c=conv(6, 3), out=nn.Linear(48, 2),
    )  # fmt: skip
    with pytest.raises(ValueError, match="no channel can be removed") as caught:
        ChannelGraph(net, (1, 4, 4))
    for reason in (
        "a: norm (GroupNorm) mixes its channels", "b: grouped is a convolution of 2 groups",
        "grouped: grouped is a convolution of 2 groups", "c: view fixes their number",
    ):  # fmt: skip
        assert reason in str(caught.value)


def test_reductions_over_channels_pin_them():
    def way(net, x):
        x = net.b(F.relu(net.a(x)))
        return net.out(x * torch.sigmoid(x.mean(1, keepdim=True)))

    graph = ChannelGraph(Net(way, a=conv(1, 4), b=conv(4, 5), out=conv(5, 2)), (1, 4, 4))
    assert sizes(graph) == {"a": 4}
    assert graph.pinned["b"] == "mean mixes its channels"


@pytest.mark.parametrize(
    ("way", "message"),
    [
        (
            lambda n, x: n.b(torch.fft.fft2(n.a(x)).real),
            "node 'fft_fft2' .function fft_fft2.: it is",
        ),
        (lambda n, x: n.b(n.a(x).permute(0, 1, 3, 2)), "node 'permute' .method permute."),
        (lambda n, x: n.b(n.a(x)[:, :2].repeat(1, 2, 1, 1)), "node 'getitem' .function getitem."),
        (lambda n, x: n.b(n.a(x) + n.a.bias), "node 'a_bias' .get_attr a.bias.: a parameter"),
        (lambda n, x: n.b(torch.cat(torch.chunk(n.a(x), 2, 1), 1)), "node 'chunk'"),
        (
            lambda n, x: n.b(n.a(x) - n.a(x).mean()),
            "node 'mean' .method mean.: it reduces over the",
        ),
        (lambda n, x: n.b(n.c(n.a(x))), "a Bilinear is not among the layers"),
        (lambda n, x: n.b(n.a(x)) if x.sum() > 0 else x, "torch.fx cannot trace it"),
    ],
)
def test_what_cannot_be_followed_is_named(way, message):
    class Bilinear(nn.Module):
        __module__ = "torch.nn.stranger"

        def forward(self, x):
            return x

    net = Net(way, a=conv(1, 4), b=conv(4, 2), c=Bilinear())
    with pytest.raises(ValueError, match=message):
        ChannelGraph(net, (1, 4, 4))


def test_a_linear_layer_on_the_last_of_three_axes_is_refused():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    assert sizes(ChannelGraph(net, (4,))) == {"0": 3}
    with pytest.raises(ValueError, match=r"takes \[N, features\] here, not \(1, 5, 4\)"):
        ChannelGraph(net, (5, 4))


def test_weights_that_are_shared_or_computed_are_refused():
    net = nn.Sequential(conv(1, 4), nn.ReLU(), conv(4, 4), conv(4, 4))
    net[3].weight = net[2].weight
    with pytest.raises(ValueError, match=r"2\.weight and 3\.weight are one tensor"):
        ChannelGraph(net, (1, 4, 4))
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(conv(1, 4)), conv(4, 2))
    with pytest.raises(ValueError, match="the weight of 0 is computed from other tensors"):
        ChannelGraph(net, (1, 4, 4))
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet"):
        ChannelGraph(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), (4,))


@pytest.mark.parametrize("shape", [(), (1, 0, 4), (1, 4.5, 4), (True, 4, 4)])
def test_a_bad_input_shape_is_refused(shape):
    with pytest.raises(ValueError, match="input_shape must be the shape of one input without"):
        ChannelGraph(conv_net(1, (4,), 2), shape)


def test_a_model_that_does_not_run_is_refused():
    with pytest.raises(ValueError, match=r"does not run on inputs of \(3, 8, 8\)"):
        ChannelGraph(conv_net(1, (4,), 2), (3, 8, 8))


def test_the_model_is_left_as_it_is():
    net = residual_net(3, (4, 6), 10).train()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    graph = ChannelGraph(net, (3, 8, 8))
    assert net.training
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert all(p.is_meta for p in graph._model.parameters())  # it holds shapes, no weights


def test_the_masks_of_weights_are_those_of_the_rows_and_columns():
    net = conv_net(1, (4, 6), 3)
    graph = ChannelGraph(net, (1, 4, 4))
    kept = Masks(
        {"0": torch.tensor([1, 0, 1, 0]).bool(), "3": torch.tensor([0, 1, 1, 1, 0, 1]).bool()}
    )
    masks = graph.masks(kept)
    assert masks.keys() == {"0.weight", "3.weight", "9.weight"}
    masks.validate(net)
    expected = kept["3"][:, None] & kept["0"][None]
    assert torch.equal(masks["3.weight"], expected[:, :, None, None].expand(6, 4, 3, 3))
    assert torch.equal(masks["9.weight"], kept["3"].expand(3, 6))
    with pytest.raises(ValueError, match="kept must have a mask for each of"):
        graph.flat(Masks({"0": kept["0"]}))


@pytest.mark.parametrize(
    ("make", "widths"),
    [(conv_net, (4, 6, 8, 8, 6, 4)), (residual_net, (4, 6, 8)), (depthwise_net, (4, 6, 8))],
)
def test_groups_are_those_of_torch_pruning(make, widths):
    pruning = pytest.importorskip("torch_pruning")
    net = make(3, widths, 10)
    graph = ChannelGraph(net, (3, 16, 16))
    names = {module: name for name, module in net.named_modules()}
    peer = pruning.DependencyGraph().build_dependency(net, torch.zeros(2, 3, 16, 16))
    theirs = set()
    for group in peer.get_all_groups():
        found = {
            (names[dep.target.module], "in" if "in_channels" in dep.handler.__name__ else "out")
            for dep, _ in group
            if dep.target.module in names
        }
        theirs.add(frozenset(found))
    ours = set()
    for group in graph.groups.values():
        found = {key for key in graph._axes if (graph.along(*key) == group.start).any()}
        ours.add(frozenset(found))
    last = {pair for pair in theirs if any(name == list(names.values())[-1] for name, _ in pair)}
    dense = {pair for pair in last if (list(names.values())[-1], "out") in pair}
    assert ours == theirs - dense


def test_a_structure_of_another_network_is_refused():
    structure = uniform(ChannelGraph(conv_net(1, (4, 6), 3), (1, 4, 4)), 1000)
    with pytest.raises(ValueError, match=r"0\.weight is \(5, 1, 3, 3\), expected \(4, 1, 3, 3\)"):
        structure.graph.check(conv_net(1, (5, 6), 3))
