"""Tickets: a seed and a bit for each weight give the network back."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmxx.sparsity.edge_popup import EdgePopup, EdgePopupClassifier, Ticket, load_ticket
from mmxx.sparsity.edge_popup.classifier import perceptron


def model():
    return nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3)
    )


PICTURES = torch.randn(9, 2, 4, 4, generator=torch.Generator().manual_seed(0))


def found(**settings):
    """A hidden network that is trained a little, so that its statistics are its own."""
    hidden = EdgePopup.convert(model(), k=0.4, seed=11, **settings)
    optimizer = torch.optim.SGD(hidden.scores(), 0.5)
    for _ in range(3):
        optimizer.zero_grad()
        hidden(PICTURES).square().mean().backward()
        optimizer.step()
    return hidden.eval()


@pytest.mark.parametrize("init", ["kaiming_normal", "signed_constant"])
@pytest.mark.parametrize("rule", ["drop", "flip", "stochastic"])
def test_the_network_comes_back_bit_by_bit(tmp_path, init, rule):
    hidden = found(init=init, rule=rule)
    hidden.save_ticket(tmp_path / "a.ticket")
    again = load_ticket(tmp_path / "a.ticket", model()).eval()
    state, wanted = again.state_dict(), hidden.finalize().state_dict()
    assert state.keys() == wanted.keys()
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    assert torch.equal(again(PICTURES), hidden(PICTURES))


def test_it_takes_a_bit_for_a_weight():
    hidden = EdgePopup.convert(perceptron((64, 400, 400, 10)), k=0.3)
    size = len(hidden.ticket().to_bytes())
    assert 189_600 / 8 < size < 189_600 / 8 + 800


def test_it_has_the_same_bytes_every_time():
    hidden = found()
    assert len({hidden.ticket().to_bytes() for _ in range(10)}) == 1


def test_other_precisions_take_the_same_numbers(tmp_path):
    hidden = found()
    hidden.save_ticket(tmp_path / "a.ticket")
    double = load_ticket(tmp_path / "a.ticket", model().double()).eval()
    assert torch.equal(double[4].weight.float(), hidden.model[4].weight)
    hidden.double().ticket()  # float32 numbers in doubles are still those of the seed
    hidden.bfloat16().ticket()


def test_weights_that_were_changed_have_no_ticket(tmp_path):
    hidden = found()
    with torch.no_grad():
        hidden.model[4].parametrizations.weight.original[0, 0] += 1
    with pytest.raises(ValueError, match=r"weight of 4\.weight is not that of seed 11 any more"):
        hidden.save_ticket(tmp_path / "a.ticket")
    assert not list(tmp_path.iterdir())


def test_a_ticket_for_another_network_is_refused(tmp_path):
    found().save_ticket(tmp_path / "a.ticket")
    wider = model()
    wider[0] = nn.Conv2d(2, 7, 3)
    with pytest.raises(ValueError, match="masks are for another network"):
        load_ticket(tmp_path / "a.ticket", wider)
    with pytest.raises(ValueError, match="the ticket is for another network"):
        load_ticket(tmp_path / "a.ticket", nn.Linear(3, 3))
    without = model()
    without[1] = nn.Identity()
    with pytest.raises(ValueError, match=r"it differs in 1\.num_batches_tracked, 1\.running_mean"):
        load_ticket(tmp_path / "a.ticket", without)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.ticket"
    found().save_ticket(path)
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[:-5], b"x" * 2000):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.ticket is no safetensors file"):
            Ticket.load(path)
    path.write_bytes(content)
    tensors = load_file(path)
    save_file(tensors, path, {"format": "other"})
    with pytest.raises(ValueError, match=r"a\.ticket holds no ticket"):
        Ticket.load(path)
    size = int.from_bytes(content[:8], "little")
    about = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["ticket"])
    weight = about["weights"]["4.weight"]
    for change in (
        {"weights": {"4.weight": [weight[0], [3, 30]]}},
        {"weights": {"4.weight": [weight[0], [-3, -24]]}},
        {"weights": {"4.weight": [float("nan"), weight[1]]}},
        {"weights": {"5.weight": weight}},
        {"weights": 3},
        {"format": "mmxx-ticket-2"},
        {"init": "zeros"},
        {"rule": "other"},
        {"seed": None},
    ):
        save_file(tensors, path, {"ticket": json.dumps({**about, **change})})
        with pytest.raises(ValueError, match=r"a\.ticket is damaged"):
            Ticket.load(path)
    with pytest.raises(FileNotFoundError):
        Ticket.load(tmp_path / "missing")


# -- the estimator -----------------------------------------------------------------------------


def moons():
    from sklearn.datasets import make_moons

    X, y = make_moons(300, noise=0.1, random_state=0)
    return X * [1.0, 50.0] + [10.0, 0.0], np.array(["left", "right"])[y]


def test_the_classifier_learns_and_its_ticket_is_its_network():
    X, y = moons()
    fitted = EdgePopupClassifier(hidden=(200, 200), random_state=3).fit(X[:200], y[:200])
    assert fitted.score(X[200:], y[200:]) > 0.95
    chances = fitted.predict_proba(X)
    assert np.allclose(chances.sum(1), 1)
    assert fitted.ticket_.masks.density == pytest.approx(0.3, abs=0.002)
    assert fitted.n_iter_ == len(fitted.loss_curve_) == 100
    again = Ticket.from_bytes(fitted.ticket_.to_bytes()).apply(perceptron((3, 200, 200, 2)))
    pairs = zip(again.parameters(), fitted.network_.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    copied = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(copied.predict_proba(X), chances)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hidden": (0,)}, r"hidden must hold positive integers, got \(0,\)"),
        ({"hidden": 5}, "hidden must hold positive integers, got 5"),
        ({"max_iter": 0}, "max_iter must be a positive integer, got 0"),
        ({"batch_size": 1.5}, "batch_size must be a positive integer, got 1.5"),
        ({"lr": -1}, r"lr must be in \[0, inf\), got -1"),
        ({"momentum": 1}, r"momentum must be in \[0, 1\), got 1"),
        ({"weight_decay": "no"}, "weight_decay must be in .* got 'no'"),
        ({"k": 0}, r"k must be in \(0, 1\]"),
        ({"init": "zeros"}, "init must be one of"),
    ],
)
def test_bad_parameters_are_refused(settings, message):
    X, y = moons()
    with pytest.raises(ValueError, match=message):
        EdgePopupClassifier(**settings).fit(X, y)


def test_a_training_that_diverges_is_an_error():
    X, y = moons()
    with pytest.raises(ValueError, match=r"diverged|hold NaN"):
        EdgePopupClassifier(hidden=(20,), lr=1e38, max_iter=5, random_state=0).fit(X, y)
