"""Converting models and back, checkpoints, export, several ranks' scales, guards."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from mmxx.training.fourbit import (
    Int4Sym,
    QuantConv2d,
    QuantEmbedding,
    QuantLinear,
    Recipe,
    convert,
    export_int4,
    gemm,
    import_int4,
    pact_parameters,
    quantize,
    sawb_alpha,
    skip_nonfinite,
    stats,
    synchronise_scales,
    unconvert,
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.symbols = nn.Embedding(9, 8)
        self.mix = nn.Conv2d(1, 2, (1, 1))
        self.deep = nn.ModuleDict({"up": nn.Linear(16, 24), "down": nn.Linear(24, 8)})
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 9)

    def forward(self, x):
        found = self.mix(self.symbols(x)[:, None]).movedim(1, -1).flatten(2)
        return self.head(self.norm(self.deep["down"](self.deep["up"](found).relu())))


def batch(step=0):
    generator = torch.Generator().manual_seed(step)
    return torch.randint(9, (4, 5), generator=generator)


def train(net, optimizer, steps, first=0):
    for step in range(first, first + steps):
        x = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x).flatten(0, 1), x.flatten()).backward()
        optimizer.step()


def test_first_and_last_stay_and_the_rest_is_converted_in_place():
    net = Net()
    params = dict(net.named_parameters())
    report = convert(net)
    assert report.converted == ("mix", "deep.up", "deep.down")
    assert report.left == {"symbols": "skip has 'first'", "head": "skip has 'last'"}
    assert isinstance(net.mix, QuantConv2d)
    assert isinstance(net.deep["up"], QuantLinear)
    assert type(net.symbols) is nn.Embedding
    assert all(params[name] is p for name, p in net.named_parameters())
    assert str(report).splitlines() == [
        "converted 3 layers: mix, deep.up, deep.down",
        "left symbols: skip has 'first'",
        "left head: skip has 'last'",
    ]
    assert [row["layer"] for row in stats(net)] == ["mix", "deep.up", "deep.down"]
    assert "recipe=Recipe(" in repr(net)


def test_everything_by_pattern_name_and_kernel_size():
    net = Net()
    assert convert(net, skip=()).converted == ("symbols", "mix", "deep.up", "deep.down", "head")
    assert isinstance(net.symbols, QuantEmbedding)
    assert convert(Net(), skip=("1x1", "deep.*")).converted == ("symbols", "head")
    assert convert(Net(), skip=("head", "deep.up")).converted == ("symbols", "mix", "deep.down")


def test_converted_and_back_it_is_the_model_it_was():
    net = Net()
    before = copy.deepcopy(net)
    calls = []
    net.deep["up"].register_forward_hook(lambda *args: calls.append(1))
    convert(net, Recipe(activations="pact"), skip=())
    assert len(pact_parameters(net)) == 4  # an embedding has none
    net(batch())
    unconvert(net)
    assert torch.equal(net(batch()), before(batch()))
    assert len(calls) == 2
    assert net.state_dict().keys() == before.state_dict().keys()
    assert type(net.head) is nn.Linear
    assert not stats(net)
    convert(net)


def test_exact_mode_is_the_unconverted_model():
    net = Net()
    want = net(batch())
    convert(net, skip=())
    assert not torch.equal(net(batch()), want)
    with gemm(exact=True):
        assert torch.equal(net(batch()), want)
    assert not torch.equal(net(batch()), want)


def test_it_trains():
    torch.manual_seed(0)
    net = Net()
    convert(net, skip=())
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    x = batch()
    loss = lambda: nn.functional.cross_entropy(net(x).flatten(0, 1), x.flatten())  # noqa: E731
    before = loss().item()
    train(net, optimizer, 60)
    assert loss().item() < 0.2 * before


def test_a_checkpoint_goes_on_bit_for_bit():
    torch.manual_seed(0)
    net = Net()
    convert(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    train(net, optimizer, 6)
    saved = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    assert saved[0]["deep.up.grad_exponent"].dtype is torch.int32
    train(net, optimizer, 5, first=6)
    other = Net()
    convert(other)
    other_optimizer = torch.optim.Adam(other.parameters(), lr=1e-2)
    other.load_state_dict(saved[0])
    other_optimizer.load_state_dict(saved[1])
    train(other, other_optimizer, 5, first=6)
    for name, value in net.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


def test_activation_checkpointing_changes_nothing():
    from torch.utils.checkpoint import checkpoint

    layer = QuantLinear(6, 6)
    x = torch.linspace(-1, 1, 30).view(5, 6).requires_grad_()
    layer(x).square().sum().backward()
    want = layer.weight.grad.clone()
    layer.weight.grad = None
    layer.grad_counts.zero_()
    checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    assert torch.equal(layer.weight.grad, want)


def test_export_packs_weights_and_imports_what_was_multiplied():
    net = Net()
    convert(net)
    train(net, torch.optim.Adam(net.parameters(), lr=1e-2), 3)
    state = export_int4(net)
    assert state["deep.up.weight.int4"].shape == (16 * 24 // 2,)
    assert "deep.up.weight" not in state
    again = import_int4(state)
    weight = net.deep["up"].weight.detach()
    want = quantize(weight, Int4Sym(), 7 / sawb_alpha(weight))
    assert torch.allclose(again["deep.up.weight"], want, rtol=1e-6)
    assert again["deep.up.weight"].unique().numel() <= 15
    plain = Net()
    loaded = plain.load_state_dict(again, strict=False)
    assert not loaded.missing_keys
    state["mix.weight.int4"] = state["mix.weight.int4"].repeat(2)
    with pytest.raises(ValueError, match="packed must be uint8"):
        import_int4(state)


def test_odd_numbers_of_weights_are_packed_too():
    net = nn.Linear(3, 5)
    convert(net, skip=())
    state = export_int4(net)
    assert state["weight.int4"].shape == (8,)
    assert import_int4(state)["weight"].shape == (5, 3)


@pytest.mark.filterwarnings("ignore:the gradient of layer:RuntimeWarning")  # of the other layers
def test_a_step_with_gradients_that_are_not_finite_is_skipped():
    net = Net()
    convert(net)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    guard = skip_nonfinite(optimizer)
    train(net, optimizer, 2)
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()))
    optimizer.zero_grad()
    with pytest.warns(RuntimeWarning, match="'deep.down' has a NaN"):
        (net(batch()).sum() * math.nan).backward()
    optimizer.step()
    for name, value in net.named_parameters():
        assert torch.equal(value, before[0][name])
    steps = [state["step"] for state in optimizer.state_dict()["state"].values()]
    assert {float(step) for step in steps} == {2.0}
    train(net, optimizer, 1)
    assert not torch.equal(net.head.weight, before[0]["head.weight"])
    guard.remove()


def test_layers_inside_attention_are_left_and_subclasses_with_a_reason():
    class Mine(nn.Linear):
        pass

    net = nn.Sequential(nn.MultiheadAttention(8, 2), Mine(4, 4), nn.Linear(4, 4))
    report = convert(net, skip=())
    assert report.converted == ("2",)
    assert report.left == {"1": "it is a Mine"}
    odd = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"))
    assert convert(odd, skip=()).left == {"0": "padding_mode must be 'zeros', got 'circular'"}


def test_bad_input_is_refused():
    net = Net()
    convert(net)
    with pytest.raises(ValueError, match="converted already \\(layer 'mix'\\); unconvert first"):
        convert(net)
    with pytest.raises(ValueError, match="no layer is called 'heda'; there are symbols, mix, deep"):
        convert(Net(), skip=("heda",))
    with pytest.raises(ValueError, match="skip must be a sequence of names, got the text 'first'"):
        convert(Net(), skip="first")
    with pytest.raises(ValueError, match="recipe must be a Recipe or one of ibm4, luq4"):
        convert(Net(), "fp8")
    with pytest.raises(ValueError, match="no layer with four-bit weights; convert it first"):
        export_int4(Net())


def test_one_process_has_nothing_to_synchronise():
    net = Net()
    convert(net)
    before = copy.deepcopy(net.state_dict())
    synchronise_scales(net)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
