"""Converting, copying, finishing: what a hidden network does with a model."""

from __future__ import annotations

import copy
import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from mmxx.sparsity.edge_popup import EdgePopup, annealed, frozen_weight
from mmxx.sparsity.edge_popup import frozen as draws


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def conv_model():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.ConvTranspose2d(6, 4, 2, stride=2, groups=2), nn.GroupNorm(2, 4), nn.ReLU(),
        nn.Flatten(), nn.LayerNorm(4 * 64), nn.Linear(4 * 64, 3),
    )  # fmt: skip


def trained(hidden, inputs, steps=4, lr=0.5):
    optimizer = torch.optim.SGD(hidden.scores(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        hidden(inputs).square().mean().backward()
        optimizer.step()
    return hidden


PICTURES = torch.randn(5, 2, 4, 4, generator=generator())


# -- converting --------------------------------------------------------------------------------


def test_the_model_that_is_given_stays_as_it_is():
    model = conv_model()
    before = copy.deepcopy(model.state_dict())
    trained(EdgePopup.convert(model, seed=1), PICTURES)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_only_scores_are_trainable_and_no_weight_moves():
    hidden = EdgePopup.convert(conv_model(), k=0.4, seed=1)
    trainable = {n for n, p in hidden.named_parameters() if p.requires_grad}
    assert len(trainable) == 3
    assert all(name.endswith("parametrizations.weight.0.scores") for name in trainable)
    names = [n for n, _ in hidden.named_parameters() if n.endswith("original")]
    before = {n: hidden.get_parameter(n).clone() for n in names}
    scores = [s.detach().clone() for s in hidden.scores()]
    optimizer = torch.optim.AdamW(hidden.parameters(), 0.1, weight_decay=0.5)
    for _ in range(3):
        hidden(PICTURES).square().mean().backward()
        optimizer.step()
    assert all(torch.equal(before[n], hidden.get_parameter(n)) for n in names)
    assert all(not torch.equal(a, b) for a, b in zip(scores, hidden.scores(), strict=True))


@pytest.mark.parametrize("init", ["kaiming_normal", "signed_constant"])
@pytest.mark.parametrize("scale", [True, False])
def test_weights_have_the_deviation_that_the_paper_gives_them(init, scale):
    hidden = EdgePopup.convert(nn.Linear(500, 400), k=0.25, init=init, scale=scale, seed=3)
    weight = hidden.model.parametrizations.weight.original
    expected = (2 / 500) ** 0.5 * (2 if scale else 1)
    assert weight.std().item() == pytest.approx(expected, rel=0.01)
    assert abs(weight.mean().item()) < 0.01 * expected
    if init == "signed_constant":
        assert torch.equal(weight.abs(), torch.full_like(weight, expected))
    bound = 1 / 500**0.5
    scores = hidden.scores()[0].detach()
    assert 0.99 * bound < scores.abs().max() <= bound
    assert scores.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)


@pytest.mark.parametrize(
    ("layer", "fan"),
    [
        (nn.Linear(7, 3), 7),
        (nn.Conv1d(4, 6, 5, groups=2), 10),
        (nn.Conv3d(2, 3, (1, 2, 3)), 12),
        (nn.ConvTranspose1d(6, 4, 5), 30),
        (nn.ConvTranspose2d(6, 4, 4, stride=2, groups=2), 12),
        (nn.ConvTranspose3d(2, 4, 2), 16),
    ],
)
def test_an_output_has_as_many_inputs_as_arrive_there(layer, fan):
    assert draws.fan_in(layer, layer.weight) == fan
    inner = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
    spatial = () if isinstance(layer, nn.Linear) else (9,) * (layer.weight.ndim - 2)
    with torch.no_grad():
        layer.weight.fill_(1)
        layer.bias.zero_()
        counted = layer(torch.ones(1, inner, *spatial))
    middle = counted[(0, 0, *(slice(4, 6) for _ in spatial))]  # away from the borders
    assert middle.mean().item() == fan


def test_norms_and_biases_are_bare():
    net = EdgePopup.convert(conv_model()).finalize()
    assert set(dict(net.named_parameters())) == {"0.weight", "3.weight", "8.weight"}
    assert not net[1].affine
    assert net(PICTURES).shape == (5, 3)


def test_k_can_differ_by_layer_and_be_global():
    model = nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 10))
    hidden = EdgePopup.convert(model, k={"0.weight": 0.1, "1.weight": 0.6}, scale=False)
    assert hidden.masks().per_layer() == {"0.weight": 0.1, "1.weight": 0.6}
    assert hidden.k == {"0.weight": 0.1, "1.weight": 0.6}
    both = EdgePopup.convert(model, k=0.25, scope="global")
    assert both.masks().density == 0.25
    assert len(set(both.masks().per_layer().values())) == 2  # the wider scores win
    weights = torch.cat([layer.weight.flatten() for layer in both.finalize()])
    assert int(weights.count_nonzero()) == both.masks().kept == 100


def test_k_can_be_lowered_on_the_way():
    hidden = EdgePopup.convert(nn.Linear(10, 10), k=0.2)
    weight = hidden.model.parametrizations.weight.original.clone()
    kept = []
    for step in range(5):
        hidden.k = annealed(step, 4, end=0.2)
        hidden(torch.ones(1, 10))
        kept.append(hidden.masks().kept)
        assert int((hidden.model.weight != 0).sum()) == kept[-1]
    assert kept == [100, 54, 30, 22, 20]
    assert torch.equal(weight, hidden.model.parametrizations.weight.original)


# -- what shows --------------------------------------------------------------------------------


def test_every_change_of_scores_shows():
    hidden = EdgePopup.convert(nn.Linear(4, 4), k=0.5).eval()
    (scores,) = hidden.scores()
    seen = set()

    def shown():
        out = hidden.model.weight.detach()
        assert torch.equal(out != 0, hidden.masks()["weight"])
        seen.add(hidden.masks()["weight"].numpy().tobytes())

    shown()
    with torch.no_grad():
        scores.copy_(scores.flip(0))
    shown()
    hidden.load_state_dict(EdgePopup.convert(nn.Linear(4, 4), k=0.5, seed=8).state_dict())
    shown()
    hidden.double()
    shown()
    assert hidden.model.weight.dtype == torch.float64
    hidden.train()
    scores.data.neg_().add_(torch.linspace(-1, 1, 16).view(4, 4))  # torch counts no such change
    hidden(torch.ones(1, 4, dtype=torch.float64))
    shown()
    assert len(seen) == 4


def test_in_evaluation_nothing_is_chosen_twice(monkeypatch):
    from mmxx.sparsity.edge_popup import hidden as module

    hidden, chosen = EdgePopup.convert(nn.Linear(4, 4)).eval(), []
    real = module.keep_where_largest
    monkeypatch.setattr(module, "keep_where_largest", lambda *args: chosen.append(1) or real(*args))
    for _ in range(3):
        hidden(torch.ones(1, 4))
    assert len(chosen) == 1
    hidden.train()
    for _ in range(2):
        hidden(torch.ones(1, 4))
    assert len(chosen) == 3


@pytest.mark.parametrize("rule", ["drop", "flip", "stochastic"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_what_is_finished_is_plain_and_gives_the_same(rule, scope):
    hidden = EdgePopup.convert(
        conv_model(), k=0.4, rule=rule, scope=scope, seed=2, generator=generator(1)
    )
    trained(hidden, PICTURES)
    for mode in (True, False):
        net = hidden.train(mode).finalize()
        assert net.training == mode
        assert hidden.training == hidden.model[1].training == mode
    assert not any("Parametrized" in type(m).__name__ for m in net.modules())
    out = hidden(PICTURES)
    assert torch.equal(net(PICTURES), out)
    state = net.state_dict()
    assert all(p.requires_grad for p in net.parameters())
    assert set(hidden.masks()) == {n for n, _ in net.named_parameters()}
    if rule != "flip":
        for name, mask in hidden.masks().items():
            assert torch.equal(state[name] != 0, mask)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    assert torch.equal(hidden(PICTURES), out)  # shares nothing


def test_a_copy_lives_on_its_own():
    hidden = EdgePopup.convert(conv_model(), k=0.4, scope="global").eval()
    other = copy.deepcopy(hidden)
    before = hidden(PICTURES)
    assert torch.equal(other(PICTURES), before)
    trained(other.train(), PICTURES)
    hidden.finalize()
    assert torch.equal(hidden(PICTURES), before)
    assert not torch.equal(other.eval()(PICTURES), before)
    assert torch.equal(other.finalize()(PICTURES), other(PICTURES))


def test_channels_last_scores_are_chosen_in_the_same_order():
    hidden = EdgePopup.convert(nn.Conv2d(4, 6, 3), k=0.3)
    with torch.no_grad():
        hidden.scores()[0].copy_((hidden.scores()[0] * 20).round())  # many ties
    masks, weight = hidden.masks(), hidden.model.weight.detach().clone()
    hidden = hidden.to(memory_format=torch.channels_last)
    assert not hidden.scores()[0].is_contiguous()
    assert hidden.masks() == masks
    assert torch.equal(hidden.model.weight, weight)
    trained(hidden, torch.randn(2, 4, 5, 5, generator=generator()))
    assert torch.isfinite(hidden.scores()[0]).all()


def test_a_layer_that_is_used_twice_gets_both_gradients():
    hidden = EdgePopup.convert(nn.Linear(3, 3).double())
    inputs = torch.randn(2, 3, generator=generator(), dtype=torch.float64)
    hidden.model(hidden.model(inputs).tanh()).sum().backward()
    layer = hidden.model.parametrizations.weight
    used = hidden.model.weight.detach().requires_grad_()
    ((inputs @ used.T).tanh() @ used.T).sum().backward()
    expected = used.grad * layer.original * layer[0].scores.detach().sign()
    assert torch.allclose(layer[0].scores.grad, expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # dynamo's
def test_torch_compile_gives_the_same():
    hidden = EdgePopup.convert(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), k=0.3)
    compiled = torch.compile(hidden, backend="eager")
    inputs = torch.randn(3, 4, generator=generator())
    optimizer = torch.optim.SGD(hidden.scores(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        compiled(inputs).sum().backward()
        optimizer.step()
        assert torch.equal(compiled(inputs), hidden(inputs))


def test_bfloat16_is_chosen_and_trained():
    hidden = EdgePopup.convert(nn.Linear(6, 6).bfloat16(), k=0.5)
    trained(hidden, torch.ones(2, 6, dtype=torch.bfloat16))
    assert hidden.masks().kept == 18
    assert hidden.scores()[0].dtype == torch.bfloat16


# -- where weights come from -------------------------------------------------------------------


def test_weights_have_the_bits_that_they_always_had():
    """They stand in tickets that people keep: these digests must never change."""
    digests = {}
    for init in draws.INITS:
        weight = frozen_weight((301, 211), std=0.1, init=init, seed=7, name="fc.weight")
        digests[init] = hashlib.sha256(weight.numpy().astype("<f4").tobytes()).hexdigest()[:16]
    assert digests == {"kaiming_normal": "c04b529e2dd03548", "signed_constant": "8b9994069daf7491"}


def test_normal_numbers_are_those_of_box_and_muller():
    words = draws._words(3, "x", 100_001)
    found = draws._normal(words)
    high = (words >> np.uint64(32)).astype(float)
    low = (words & np.uint64(0xFFFFFFFF)).astype(float)
    radius = np.sqrt(-2 * np.log((high + 0.5) / 2**32))
    angle = 2 * np.pi * low / 2**32
    assert np.allclose(found[::2], radius * np.cos(angle), rtol=0, atol=1e-13)
    assert np.allclose(found[1::2], radius * np.sin(angle), rtol=0, atol=1e-13)
    stats = pytest.importorskip("scipy.stats")
    assert stats.kstest(found, "norm").pvalue > 0.01
    assert abs(np.corrcoef(found[::2], found[1::2])[0, 1]) < 0.01


def test_seed_and_name_matter_and_global_generators_do_not():
    state = torch.get_rng_state()
    weights = [
        frozen_weight((50,), std=1.0, seed=seed, name=name)
        for seed, name in ((0, "a"), (1, "a"), (0, "b"), (-3, "a"), (2**70, "a"))
    ]
    for i, one in enumerate(weights):
        for other in weights[:i]:
            assert (one != other).all()
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(weights[0][:7], frozen_weight((7,), std=1.0, seed=0, name="a"))
    scores = draws.first_scores((50,), bound=1.0, seed=0, name="a")
    assert abs(np.corrcoef(scores.numpy(), weights[0].numpy())[0, 1]) < 0.5


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0.0}, r"k must be in \(0, 1\], the fraction that is kept, got 0.0"),
        ({"k": 1.5}, r"k must be in \(0, 1\], .* got 1.5"),
        ({"k": float("nan")}, r"k must be in \(0, 1\], .* got nan"),
        ({"k": "half"}, r"k must be in \(0, 1\], .* got 'half'"),
        ({"k": True}, r"k must be in \(0, 1\]"),
        ({"k": {"other": 0.5}}, r"k must name every weight \(weight\), and no other; got other"),
        ({"k": {"weight": 2}}, r"k\['weight'\] must be in \(0, 1\]"),
        ({"k": {"weight": 0.5}, "scope": "global"}, "k must be one number with scope='global'"),
        ({"init": "xavier"}, "init must be one of kaiming_normal, signed_constant, got 'xavier'"),
        ({"scope": "row"}, "scope must be one of layer, global, got 'row'"),
        ({"rule": "zap"}, "rule must be one of drop, flip, stochastic, got 'zap'"),
        ({"seed": 0.5}, "seed must be an integer, got 0.5"),
    ],
)
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        EdgePopup.convert(nn.Linear(3, 3), **settings)


def test_models_that_cannot_hide_are_refused():
    with pytest.raises(ValueError, match="no linear or convolutional layer"):
        EdgePopup.convert(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(3)))
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    with pytest.raises(ValueError, match="weight of '1' is shared with another layer"):
        EdgePopup.convert(tied)
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))
    with pytest.raises(ValueError, match="parametrized already"):
        EdgePopup.convert(nn.Sequential(normed, nn.Linear(3, 3)))
    with pytest.raises(ValueError, match="weight of '0' is not initialised yet"):
        EdgePopup.convert(nn.Sequential(nn.LazyLinear(3)))
    with pytest.raises(ValueError, match="parametrized already"):
        EdgePopup.convert(EdgePopup.convert(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))))


def test_parameters_that_stay_trainable_are_named():
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4))
    with pytest.warns(UserWarning, match=r"not hidden: 0\.weight; they stay trainable"):
        hidden = EdgePopup.convert(model)
    assert hidden.model[0].weight.requires_grad


def test_a_weight_that_is_unfrozen_is_warned_of_and_does_not_move():
    hidden = EdgePopup.convert(nn.Linear(3, 3))
    hidden.requires_grad_(True)
    weight = hidden.model.parametrizations.weight.original
    before = weight.detach().clone()
    optimizer = torch.optim.AdamW(hidden.parameters(), lr=1.0)
    with pytest.warns(UserWarning, match="weight is frozen: requires_grad has no effect"):
        hidden(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert torch.equal(weight, before)


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("rule", ["drop", "flip", "stochastic"])
def test_scores_that_diverged_are_named(scope, rule):
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    hidden = EdgePopup.convert(model, scope=scope, rule=rule).eval()
    with torch.no_grad():
        hidden.scores()[1][0, 0] = float("nan")
    for call in (hidden.masks, lambda: hidden(torch.ones(1, 3))):
        with pytest.raises(ValueError, match=r"the scores of 1\.weight hold NaN"):
            call()


def test_a_bad_schedule_is_refused():
    for settings in ({"end": 0.0}, {"end": 0.5, "start": 2.0}):
        with pytest.raises(ValueError, match=r"must be in \(0, 1\]"):
            annealed(0, 10, **settings)
    with pytest.raises(ValueError, match="steps and power must be above 0, got 0 and 3"):
        annealed(0, 0, end=0.5)
    hidden = EdgePopup.convert(nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"k must be in \(0, 1\]"):
        hidden.k = 0
