"""Levels, rewinding, controls and resuming, against trainings written out by hand."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from torch import nn

from mmxx.lab.compute import map_items
from mmxx.sparsity.lottery import LotteryTicket, Masks, Replicas, Supervised, hold, snip
from mmxx.sparsity.lottery.holding import mask_state
from mmxx.sparsity.lottery.pruning import prune

STEPS, K = 12, 5


def data():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(48, 6, generator=generator)
    return X, (X[:, :3].sum(1) > 0).long() + (X[:, 3] > 0.5).long()


def network(seed=0):
    """With batch statistics and dropout: everything that a rewinding must bring back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
        )


def tools(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9, weight_decay=1e-3)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.7)


def one_step(model, optimizer, schedule, chosen):
    X, y = data()
    loss = nn.functional.cross_entropy(model(X[chosen]), y[chosen])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    return loss


def train(model, state, start_step):
    optimizer, schedule = tools(model)
    steps = []
    for step in state.steps(STEPS, optimizer=optimizer, schedule=schedule):
        loss = one_step(model, optimizer, schedule, state.batch(step, 48, 16))
        steps.append(step)
    assert steps[0] == start_step
    return {"loss": loss.item(), "steps": len(steps), "lr": optimizer.param_groups[0]["lr"]}


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def batches():
    """The order of the data, as a plain training would see it."""
    lottery = LotteryTicket(network(), train, random_state=3)
    seen = []

    def spy(model, state, start_step):
        seen.extend(state.batch(step, 48, 16) for step in state.steps(STEPS))
        return {}

    lottery.train_fn = spy
    lottery.step()
    return seen


def test_level_0_is_a_plain_training_bit_for_bit():
    order = batches()
    assert sorted(torch.cat(order[:3]).tolist()) == list(range(48))
    assert not torch.equal(order[0], order[3])
    model = network()
    optimizer, schedule = tools(model)
    before = torch.get_rng_state()
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for chosen in order:
            one_step(model, optimizer, schedule, chosen)
    lottery = LotteryTicket(network(), train, random_state=3)
    lottery.step()
    assert equal(lottery.trained.state_dict(), model.state_dict())
    assert torch.equal(before, torch.get_rng_state())
    assert equal(lottery.model.state_dict(), network().state_dict())


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_rewinding_brings_back_weights_optimizer_schedule_statistics_and_noise(scope):
    order = batches()
    lottery = LotteryTicket(network(), train, scope=scope, rewind=K, levels=2, random_state=3).run()

    model = network()
    optimizer, schedule = tools(model)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for chosen in order[:K]:
            one_step(model, optimizer, schedule, chosen)
        noise = torch.get_rng_state()
        saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), schedule.state_dict()))
        for chosen in order[K:]:
            one_step(model, optimizer, schedule, chosen)
        masks = Masks.ones_like(model)
        for level in (1, 2):
            rate = {"0.weight": 0.2, "4.weight": 0.1} if scope == "layer" else 0.2
            weights = dict(model.named_parameters())
            masks = prune(weights, masks, rate=rate, scope=scope)
            assert lottery.tickets[level].masks == masks
            model.load_state_dict(saved[0])
            optimizer, schedule = tools(model)
            optimizer.load_state_dict(copy.deepcopy(saved[1]))
            schedule.load_state_dict(copy.deepcopy(saved[2]))
            torch.set_rng_state(noise)
            with hold(model, masks) as held:
                mask_state(optimizer, held)
                for chosen in order[K:]:
                    one_step(model, optimizer, schedule, chosen)
    assert equal(lottery.trained.state_dict(), model.state_dict())
    assert [t.metrics["steps"] for t in lottery.tickets] == [STEPS, STEPS - K, STEPS - K]
    assert len({t.metrics["lr"] for t in lottery.tickets}) == 1
    ticket = lottery.ticket(2).model()
    assert torch.equal(ticket[1].running_mean, saved[0]["1.running_mean"])
    kept = masks["0.weight"]
    assert torch.equal(ticket[0].weight[kept], saved[0]["0.weight"][kept])
    assert not ticket[0].weight[~kept].any()


def test_densities_are_exact_and_masks_nested():
    lottery = LotteryTicket(network(), train, levels=6, random_state=0).run()
    sizes = [96, 48]
    for ticket, after in zip(lottery.tickets, lottery.tickets[1:], strict=False):
        assert ticket.density == sum(sizes) / 144
        assert (ticket.masks & after.masks) == after.masks
        sizes = [sizes[0] - round(0.2 * sizes[0]), sizes[1] - round(0.1 * sizes[1])]
    assert all(
        not p[~after.masks[n]].any()
        for n, p in lottery.trained.named_parameters()
        if n in after.masks
    )


@pytest.mark.parametrize("rewind", [0, K])
def test_a_ticket_trained_again_gives_the_same_bits_and_other_noise_others(rewind):
    lottery = LotteryTicket(network(), train, rewind=rewind, levels=2, random_state=1).run()
    again, metrics = lottery.train(lottery.ticket(2).masks)
    assert equal(again.state_dict(), lottery.trained.state_dict())
    assert metrics == lottery.ticket(2).metrics
    other, _ = lottery.train(lottery.ticket(2).masks, noise=5)
    assert not equal(other.state_dict(), again.state_dict())
    assert other[0].weight.count_nonzero() == again[0].weight.count_nonzero()


def test_cut_off_and_run_again_in_its_folder_it_ends_with_the_same_bits(tmp_path):
    make = partial(LotteryTicket, network(), train, rewind=K, levels=4, random_state=2)
    straight = make().run()
    whole = make().run(tmp_path / "whole")
    first = LotteryTicket(network(), train, rewind=K, levels=2, random_state=2)
    first.run(tmp_path / "cut")
    (tmp_path / "cut" / ".level-003.1").mkdir()  # what a kill may leave
    resumed = make(random_state=77).run(tmp_path / "cut")
    for lottery in (whole, resumed):
        assert equal(lottery.trained.state_dict(), straight.trained.state_dict())
        assert [t.metrics for t in lottery.tickets] == [t.metrics for t in straight.tickets]
        assert all(
            a.masks == b.masks for a, b in zip(lottery.tickets, straight.tickets, strict=True)
        )
    assert (
        Masks.load(tmp_path / "cut" / "level-004" / "masks.safetensors") == resumed.ticket(4).masks
    )
    earlier = make(levels=3).load(tmp_path / "cut", level=1)
    assert len(earlier.tickets) == 2
    earlier.rate = 0.5
    earlier.run()
    assert earlier.ticket(2).masks["0.weight"].sum() == 77 - round(0.5 * 77)


def test_a_folder_of_another_network_is_refused(tmp_path):
    LotteryTicket(network(), train, levels=1, random_state=0).run(tmp_path)
    other = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    message = r"2\.weight is missing; 4\.weight is not one of ours; 0\.weight has shape \(16, 6\)"
    with pytest.raises(ValueError, match=message):
        LotteryTicket(other, train).run(tmp_path)
    with pytest.raises(ValueError, match="rewind is 5, but the levels were rewound to step 0"):
        LotteryTicket(network(), train, rewind=K).run(tmp_path)
    with pytest.raises(ValueError, match="holds 2 levels from 0 on, not level 2"):
        LotteryTicket(network(), train).load(tmp_path, level=2)
    (tmp_path / "level-001" / "tree.json").write_text("{")
    with pytest.raises(ValueError, match="level-001 is damaged"):
        LotteryTicket(network(), train).load(tmp_path)


def test_controls_are_what_they_are_called():
    lottery = LotteryTicket(network(), train, rewind=K, levels=3, random_state=4).run()
    kinds = ("reinit", "sign", "shuffle_layer", "shuffle_global")
    ticket = lottery.ticket(3)
    reinit, sign, layer, everywhere = lottery.controls(3, *kinds)
    assert [c.kind for c in (reinit, sign, layer, everywhere)] == list(kinds)
    assert [c.metrics["steps"] for c in (reinit, sign, layer, everywhere)] == [12, 12, 7, 7]
    start, mask = network()[0].weight, ticket.masks["0.weight"]
    for control in (reinit, sign):
        assert control.masks == ticket.masks
        assert (control.model()[0].weight != start)[mask].all()
    assert torch.equal(sign.model()[0].weight.sign()[mask], start.sign()[mask])
    assert not torch.equal(reinit.model()[0].weight.sign()[mask], start.sign()[mask])
    for control in (layer, everywhere):
        assert control.masks != ticket.masks
        assert control.masks.kept == ticket.masks.kept
        both = control.masks["0.weight"] & mask
        assert torch.equal(control.model()[0].weight[both], ticket.model()[0].weight[both])
    assert layer.masks.per_layer() == ticket.masks.per_layer()
    assert everywhere.masks.per_layer() != ticket.masks.per_layer()
    other_level = lottery.controls(2, "reinit")[0]
    assert not torch.equal(other_level._begin.model["0.weight"], reinit._begin.model["0.weight"])


def test_any_way_of_mapping_gives_the_same_controls():
    trainer = Supervised(*data(), epochs=2, batch_size=16)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    lottery = LotteryTicket(net, trainer, levels=2, random_state=0).run()
    here = lottery.controls((1, 2), "reinit", "shuffle_layer")
    there = lottery.controls(
        (1, 2), "reinit", "shuffle_layer", map=partial(map_items, backend="process", workers=1)
    )
    assert [(c.level, c.kind) for c in here] == [(c.level, c.kind) for c in there]
    for one, other in zip(here, there, strict=True):
        assert one.masks == other.masks
        assert one.metrics == other.metrics


@pytest.mark.slow
def test_ray_with_two_workers_gives_the_same_controls():
    pytest.importorskip("ray")
    trainer = Supervised(*data(), epochs=2, batch_size=16)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    lottery = LotteryTicket(net, trainer, levels=1, random_state=0).run()
    here = lottery.controls(1, "reinit", "shuffle_layer")
    there = lottery.controls(
        1, "reinit", "shuffle_layer", map=partial(map_items, backend="ray", workers=2)
    )
    assert [c.metrics for c in here] == [c.metrics for c in there]
    assert all(one.masks == other.masks for one, other in zip(here, there, strict=True))


def test_other_criteria():
    X, y = data()
    criterion = snip(lambda net: nn.functional.cross_entropy(net(X), y))
    trainer = Supervised(X, y, epochs=1)
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    masks = {}
    for name, rule in (("magnitude", "magnitude"), ("random", "random"), ("snip", criterion)):
        lottery = LotteryTicket(
            net, trainer, levels=2, scope="global", criterion=rule, random_state=0
        ).run()
        masks[name] = lottery.ticket(2).masks
    assert len({m.kept for m in masks.values()}) == 1
    assert masks["random"] != masks["magnitude"] != masks["snip"]


def test_shared_weights_are_pruned_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
            self.second.weight = self.first.weight
            self.out = nn.Linear(6, 3)

        def forward(self, x):
            return self.out(self.second(torch.relu(self.first(x))))

    lottery = LotteryTicket(Tied(), Supervised(*data(), epochs=1), levels=2, random_state=0).run()
    assert list(lottery.ticket(2).masks) == ["first.weight", "out.weight"]
    assert lottery.trained.second.weight is lottery.trained.first.weight
    assert not lottery.trained.second.weight[~lottery.ticket(2).masks["first.weight"]].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": 1.0}, "rate must be above 0 and below 1, got 1.0"),
        ({"output_rate": 0.0}, "output_rate must be above 0 and below 1, got 0.0"),
        ({"scope": "unit"}, "scope must be 'layer' or 'global', got 'unit'"),
        ({"rewind": -1}, "rewind must be a whole number, 0 or more, got -1"),
        ({"levels": 1.5}, "levels must be a whole number, 0 or more, got 1.5"),
        ({"criterion": "taylor"}, "criterion must be 'magnitude', 'random' or a function"),
        ({"prunable": ["0.weight", "9.weight"]}, "the model has no parameter 9.weight"),
        ({"prunable": []}, "there is nothing to prune"),
        ({"model": nn.Sequential(nn.LazyLinear(3))}, "lazy parameters without a shape"),
        ({"train_fn": 3}, "train_fn must be callable, got int"),
    ],
)
def test_what_is_wrong_is_named_before_any_training(change, message):
    arguments = {"model": network(), "train_fn": train, **change}
    with pytest.raises(ValueError, match=message):
        LotteryTicket(arguments.pop("model"), arguments.pop("train_fn"), **arguments)


def test_weights_that_are_nan_are_named():
    broken = network()
    broken[4].weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"weights hold NaN: 4\.weight"):
        LotteryTicket(broken, train)

    def diverges(model, state, start_step):
        model[0].weight.data.fill_(torch.nan)
        return {}

    lottery = LotteryTicket(network(), diverges, random_state=0)
    lottery.step()
    with pytest.raises(ValueError, match=r"the score of 0\.weight holds NaN: did the training"):
        lottery.step()


def test_what_a_train_function_does_wrong_is_said():
    def writes(model, state, start_step):
        with torch.no_grad():
            model[0].weight.add_(1)
        return {}

    lottery = LotteryTicket(network(), writes, random_state=0)
    lottery.step()
    with pytest.raises(RuntimeError, match=r"moved dropped weights of 0\.weight"):
        lottery.step()

    with pytest.raises(RuntimeError, match="never came to step 5"):
        LotteryTicket(network(), lambda *_: {}, rewind=K).step()
    with pytest.raises(ValueError, match="a training of 12 steps cannot be rewound to step 12"):
        LotteryTicket(network(), train, rewind=STEPS).step()

    def untracked(model, state, start_step):
        optimizer, schedule = tools(model)
        tracked = {} if start_step else {"optimizer": optimizer}
        for step in state.steps(STEPS, **tracked):
            one_step(model, optimizer, schedule, state.batch(step, 48, 16))
        return {}

    lottery = LotteryTicket(network(), untracked, rewind=K)
    lottery.step()
    with pytest.raises(ValueError, match=r"tracks \[\], but the state to rewind to has \['opt"):
        lottery.step()

    def odd(model, state, start_step):
        return {"steps": list(state.steps(STEPS, thing=3))}

    with pytest.raises(TypeError, match="thing must have state_dict and load_state_dict"):
        LotteryTicket(network(), odd, rewind=K).step()


def test_questions_that_have_no_answer_yet():
    lottery = LotteryTicket(network(), train, rewind=K)
    with pytest.raises(ValueError, match="level must be one of the 0 that are trained"):
        lottery.ticket(0)
    with pytest.raises(ValueError, match="not known before level 0 is trained"):
        lottery.train(Masks.ones_like(network()))
    lottery.step()
    with pytest.raises(ValueError, match=r"kinds must be some of reinit, .* got 'resign'"):
        lottery.controls(0, "reinit", "resign")
    with pytest.raises(ValueError, match="got none"):
        lottery.controls(0)


def test_new_weights_need_a_layer_that_draws_them_or_init():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.layer = nn.Parameter(torch.ones(3)), nn.Linear(6, 3)

        def forward(self, x):
            return self.layer(x) * self.scale

    trainer = Supervised(*data(), epochs=1)
    lottery = LotteryTicket(Scaled(), trainer, levels=0, random_state=0).run()
    with pytest.raises(ValueError, match="no layer can draw scale anew"):
        lottery.controls(0, "reinit")
    lottery.init = lambda net: nn.init.constant_(net.layer.weight, 0.5)
    assert (lottery.controls(0, "reinit")[0].model().layer.weight == 0.5).all()


def test_without_a_seed_torch_s_generator_decides():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        one = LotteryTicket(network(), train).seed
        torch.manual_seed(0)
        assert LotteryTicket(network(), train).seed == one
        assert LotteryTicket(network(), train).seed != one


def test_replicas_learn_as_they_would_alone():
    X, y = data()
    make = lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))  # noqa: E731
    nets = Replicas(make, seeds=(5, 6, 7))
    together = LotteryTicket(
        nets, Supervised(X, y, X, y, epochs=3, batch_size=16), levels=3, random_state=10
    ).run()
    for index in range(3):
        alone = LotteryTicket(
            nets.alone(index), Supervised(X, y, X, y, epochs=3, batch_size=16), levels=3,
            random_state=10 + index,
        ).run()  # fmt: skip
        for one, other in zip(alone.tickets, together.tickets, strict=True):
            assert nets.masks_alone(other.masks, index) == one.masks
            assert other.metrics["loss"][index].item() == pytest.approx(one.metrics["loss"], 1e-4)
        weights = together.trained.alone(index).state_dict()
        for name, value in alone.trained.state_dict().items():
            assert torch.allclose(weights[name], value, atol=1e-5)
    (shuffled,) = together.controls(3, "shuffle_layer")
    for index in range(3):
        one, other = (
            nets.masks_alone(m, index) for m in (shuffled.masks, together.ticket(3).masks)
        )
        assert one.per_layer() == other.per_layer()
        assert one != other
