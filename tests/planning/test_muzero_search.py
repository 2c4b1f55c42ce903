"""The compiled searches against plain Python, their invariants, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mmxx.planning.muzero import (
    RecurrentOutput,
    RootOutput,
    Tree,
    gumbel_muzero_policy,
    muzero_policy,
    reference_search,
)
from mmxx.planning.muzero import search as search_module
from mmxx.planning.muzero.gumbel import visit_schedule
from mmxx.planning.muzero.reference import Node, reference_gumbel_search

STATES = 97


def random_model(
    actions: int, discount: float, rewards: bool, *, dtype: Any = np.float64, seed: int = 0
) -> tuple[Callable[..., Any], Callable[[int], RootOutput]]:
    """A model of 97 states in tables, and the roots it starts from."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(STATES, actions)).astype(dtype)
    value = rng.normal(size=STATES).astype(dtype)
    reward = (rng.normal(size=(STATES, actions)) * rewards).astype(dtype)
    follow = rng.integers(0, STATES, (STATES, actions))

    def recurrent_fn(action: Any, state: Any) -> tuple[RecurrentOutput, Any]:
        new = follow[state, action]
        d = np.full(len(new), discount, dtype)
        return RecurrentOutput(reward[state, action], d, value[new], logits[new]), new

    def root(rows: int) -> RootOutput:
        state = np.arange(rows) * 13 % STATES
        return RootOutput(logits[state], value[state], state)

    return recurrent_fn, root


def assert_same_tree(tree: Tree, b: int, root: Node, exact: bool) -> None:
    """Expansion order, visits and values of a row are those of the reference."""
    nodes = {node.index: node for node in root.walk()}
    assert (tree.node_visits[b] > 0).sum() - (root.visits == 0) <= len(nodes)
    values, index = tree.node_values[b], tree.children_index[b]
    for i, node in nodes.items():
        assert tree.node_visits[b, i] == node.visits
        for a, child in node.children.items():
            assert index[i, a] == child.index
            assert tree.children_visits[b, i, a] == child.visits
        if exact:
            assert values[i] == node.value
        else:
            assert abs(values[i] - node.value) < 1e-6 * max(1, abs(node.value))


SETTINGS = [
    # actions, simulations, discount, rewards, masked, parent_visits, q_norm, tie
    (2, 1, 1.0, True, False, "sum+1", "tree", "lowest"),
    (2, 50, -1.0, False, False, "sum", "tree", "lowest"),
    (2, 400, 0.997, True, False, "pseudocode", "siblings", "highest"),
    (9, 2, 0.997, True, True, "sum", "siblings", "lowest"),
    (9, 50, -1.0, False, True, "sum+1", (-1.0, 1.0), "lowest"),
    (9, 50, 0.997, True, True, "pseudocode", "tree", "highest"),
    (9, 400, -1.0, True, False, "sum+1", "tree", "lowest"),
    (9, 50, 1.0, False, False, "sum", (-3.0, 3.0), "highest"),
    (82, 50, 1.0, True, True, "sum+1", "siblings", "lowest"),
    (82, 400, -1.0, False, True, "pseudocode", "tree", "lowest"),
]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: "-".join(map(str, s)))
def test_the_search_is_the_reference(setting: tuple[Any, ...]) -> None:
    actions, simulations, discount, rewards, masked, visits, norm, tie = setting
    recurrent_fn, root = random_model(actions, discount, rewards)
    rows = 3 if simulations < 400 else 2
    invalid = np.zeros((rows, actions), bool)
    if masked:
        invalid[0, ::2] = True
        invalid[1, 1:] = True
    options: Any = {
        "num_simulations": simulations, "invalid_actions": invalid, "parent_visits": visits,
        "q_norm": norm, "tie": tie,
    }  # fmt: skip
    found = muzero_policy(root(rows), recurrent_fn, dirichlet_fraction=0.0, **options)
    for b, expected in enumerate(reference_search(root(rows), recurrent_fn, **options)):
        assert_same_tree(found.tree, b, expected, exact=True)


def test_single_precision_is_near_the_reference() -> None:
    recurrent_fn, root = random_model(9, -1.0, True, dtype=np.float32)
    found = muzero_policy(root(4), recurrent_fn, num_simulations=50, dirichlet_fraction=0.0)
    assert found.action_weights.dtype == np.float32
    for b, expected in enumerate(reference_search(root(4), recurrent_fn, num_simulations=50)):
        assert_same_tree(found.tree, b, expected, exact=False)


@pytest.mark.parametrize(("policy", "options"), [
    (muzero_policy, {"dirichlet_fraction": 0.0}),
    (gumbel_muzero_policy, {"gumbel_scale": 0.0}),
])  # fmt: skip
@pytest.mark.slow
@pytest.mark.parametrize(("actions", "discount"), [(9, -1.0), (5, 0.997)])
def test_visits_are_those_of_mctx(
    policy: Any, options: dict[str, float], actions: int, discount: float
) -> None:
    mctx: Any = pytest.importorskip("mctx")
    jax: Any = pytest.importorskip("jax")
    tensor = jax.numpy.asarray
    rows, simulations = 16, 50
    model, root = random_model(actions, discount, True, dtype=np.float32)
    invalid = np.zeros((rows, actions), bool)
    invalid[::2, 1] = True
    own: Any = {"q_norm": "siblings"} if policy is muzero_policy else {}
    found = policy(
        root(rows), model, num_simulations=simulations, invalid_actions=invalid, generator=0,
        **options, **own,
    )  # fmt: skip

    # the model's answers for every state and action, as tables that jax can look up
    state, action = (grid.ravel() for grid in np.indices((STATES, actions)))
    output, after = model(action, state)
    tables = [tensor(part) for part in (*vars(output).values(), after)]

    def recurrent_fn(params: Any, key: Any, action: Any, state: Any) -> Any:
        reward, discounts, value, logits, new = (
            table[state * actions + action] for table in tables
        )
        return mctx.RecurrentFnOutput(
            reward=reward, discount=discounts, prior_logits=logits, value=value
        ), new

    start: RootOutput = root(rows)
    expected = getattr(mctx, policy.__name__)(
        (), jax.random.PRNGKey(0),
        mctx.RootFnOutput(
            prior_logits=tensor(start.prior_logits), value=tensor(start.value),
            embedding=tensor(start.embedding),
        ),
        recurrent_fn, simulations, invalid_actions=tensor(invalid), **options,
    )  # fmt: skip
    summary = expected.search_tree.summary()
    assert np.array_equal(found.tree.children_visits[:, 0], summary.visit_counts)
    np.testing.assert_allclose(found.tree.node_values[:, 0], summary.value, rtol=1e-5)
    np.testing.assert_allclose(found.action_weights, expected.action_weights, atol=1e-4)


def test_a_depth_limit_evaluates_the_same_node_again() -> None:
    recurrent_fn, root = random_model(3, 0.9, True)
    options: Any = {"num_simulations": 40, "max_depth": 2}
    found = muzero_policy(root(2), recurrent_fn, dirichlet_fraction=0.0, **options)
    for b, expected in enumerate(reference_search(root(2), recurrent_fn, **options)):
        assert_same_tree(found.tree, b, expected, exact=True)
    assert found.tree.depths().max() == 2


@pytest.mark.parametrize(
    "setting", [(9, 16, 0.997, True), (9, 50, -1.0, True), (82, 33, 1.0, False)]
)
def test_the_gumbel_search_is_the_reference(setting: tuple[int, int, float, bool]) -> None:
    actions, simulations, discount, rescale = setting
    recurrent_fn, root = random_model(actions, discount, True)
    invalid = np.zeros((3, actions), bool)
    invalid[0, ::2] = invalid[1, 1:] = True
    options: Any = {
        "num_simulations": simulations, "invalid_actions": invalid, "rescale_values": rescale
    }  # fmt: skip
    gumbel = np.random.default_rng(5).gumbel(size=(3, actions))
    found = gumbel_muzero_policy(root(3), recurrent_fn, generator=5, **options)
    expected = reference_gumbel_search(root(3), recurrent_fn, gumbel, **options)
    for b, (node, action, weights) in enumerate(expected):
        assert_same_tree(found.tree, b, node, exact=False)
        assert found.action[b] == action
        np.testing.assert_allclose(found.action_weights[b], weights, atol=1e-9)
    assert found.action[1] == 0  # its only legal one


def test_sequential_halving_spends_what_the_paper_says() -> None:
    assert visit_schedule(1, 3) == [0, 1, 2]
    # m = 16, n = 200: four rounds of 3, 6, 12 and 25 visits for 16, 8, 4 and 2 actions
    sequence = visit_schedule(16, 200)
    assert [sequence.count(v) for v in (0, 3, 9, 21)] == [16, 8, 4, 2]
    assert len(sequence) == 200


# -- invariants --------------------------------------------------------------------------------


def test_rows_do_not_matter_to_each_other() -> None:
    recurrent_fn, root = random_model(9, -1.0, True)
    both = muzero_policy(root(5), recurrent_fn, num_simulations=30, dirichlet_fraction=0.0)
    whole = root(5)
    for b in range(5):
        alone = RootOutput(
            whole.prior_logits[b : b + 1], whole.value[b : b + 1], whole.embedding[b : b + 1]
        )
        one = muzero_policy(alone, recurrent_fn, num_simulations=30, dirichlet_fraction=0.0)
        assert np.array_equal(one.tree.edges_i[0], both.tree.edges_i[b])
        assert np.array_equal(one.tree.nodes_f[0], both.tree.nodes_f[b])


def test_counts_add_up_and_node_i_is_that_of_simulation_i() -> None:
    recurrent_fn, root = random_model(9, 0.9, True)
    tree = muzero_policy(root(4), recurrent_fn, num_simulations=60, generator=0).tree
    counts, probs, value, q = tree.summary()
    assert (counts.sum(1) == 60).all()
    np.testing.assert_allclose(probs.sum(1), 1)
    assert (tree.node_visits[:, 1:] >= 1).all()
    assert (tree.parents[:, 1:] < np.arange(1, 61)).all()
    rewards, discounts = tree.children_rewards[:, 0], tree.children_discounts[:, 0]
    recomputed = rewards + discounts * tree.children_values[:, 0]
    np.testing.assert_allclose(q, np.where(counts > 0, recomputed, 0))
    mean = (root(4).value + (q * counts).sum(1)) / 61  # the root's own value counts once
    np.testing.assert_allclose(value, mean)


def test_one_simulation_takes_the_priors_favourite() -> None:
    recurrent_fn, root = random_model(9, 1.0, True)
    found = muzero_policy(root(8), recurrent_fn, num_simulations=1, dirichlet_fraction=0.0)
    assert np.array_equal(found.action_weights.argmax(1), root(8).prior_logits.argmax(1))


def test_permuted_actions_permute_the_result() -> None:
    recurrent_fn, root = random_model(9, -1.0, True)
    order = np.random.default_rng(1).permutation(9)
    plain = muzero_policy(root(3), recurrent_fn, num_simulations=60, dirichlet_fraction=0.0)

    def permuted(action: Any, state: Any) -> Any:
        output, new = recurrent_fn(order[action], state)
        return RecurrentOutput(
            output.reward, output.discount, output.value, output.prior_logits[:, order]
        ), new

    start = root(3)
    start = RootOutput(start.prior_logits[:, order], start.value, start.embedding)
    found = muzero_policy(start, permuted, num_simulations=60, dirichlet_fraction=0.0)
    assert np.array_equal(found.action_weights, plain.action_weights[:, order])


def test_a_constant_added_to_all_values_changes_nothing() -> None:
    recurrent_fn, root = random_model(9, 1.0, False)

    def lifted(action: Any, state: Any) -> Any:
        output, new = recurrent_fn(action, state)
        return RecurrentOutput(
            output.reward, output.discount, output.value + 4, output.prior_logits
        ), new

    options: Any = {"num_simulations": 60, "dirichlet_fraction": 0.0, "q_norm": "siblings"}
    plain = muzero_policy(root(3), recurrent_fn, **options)
    start = RootOutput(root(3).prior_logits, root(3).value + 4, root(3).embedding)
    found = muzero_policy(start, lifted, **options)
    assert np.array_equal(found.action_weights, plain.action_weights)


def test_noise_stays_on_legal_actions() -> None:
    recurrent_fn, root = random_model(9, 1.0, False)
    invalid = np.zeros((2, 9), bool)
    invalid[:, 3:] = True
    options: Any = {"num_simulations": 20, "invalid_actions": invalid, "generator": 0}
    found = muzero_policy(root(2), recurrent_fn, dirichlet_fraction=1.0, **options)
    prior = found.tree.edges_f[:, 0, 1]
    assert (prior[:, 3:] == 0).all()
    np.testing.assert_allclose(prior.sum(1), 1)
    assert not np.allclose(prior[0], prior[1])
    assert (found.action < 3).all()


def test_actions_are_drawn_by_temperature() -> None:
    recurrent_fn, root = random_model(2, 1.0, False)
    state = np.full(4000, 5)
    logits = np.tile(root(6).prior_logits[5] * 0, (4000, 1))
    many = RootOutput(logits, np.zeros(4000), state)
    options: Any = {"num_simulations": 12, "dirichlet_fraction": 0.0, "generator": 0}
    for temperature in (1.0, 0.5):
        found = muzero_policy(many, recurrent_fn, temperature=temperature, **options)
        share = found.action_weights[0] ** (1 / temperature)
        assert abs((found.action == 1).mean() - share[1] / share.sum()) < 0.03
    greedy = muzero_policy(many, recurrent_fn, temperature=0.0, **options)
    assert (greedy.action == greedy.action_weights[0].argmax()).all()


def test_tensors_and_trees_of_them_give_the_same() -> None:
    recurrent_fn, root = random_model(9, -1.0, True, dtype=np.float32)
    plain = muzero_policy(root(3), recurrent_fn, num_simulations=30, dirichlet_fraction=0.0)

    def on_tensors(action: Any, embedding: Any) -> Any:
        output, new = recurrent_fn(action.numpy(), embedding["s"][0].numpy())
        parts = [torch.from_numpy(part) for part in vars(output).values()]
        return RecurrentOutput(*parts), {"s": (torch.from_numpy(new),)}

    start = root(3)
    tensors = RootOutput(
        torch.from_numpy(start.prior_logits), torch.from_numpy(start.value),
        {"s": (torch.from_numpy(start.embedding),)},
    )  # fmt: skip
    found = muzero_policy(tensors, on_tensors, num_simulations=30, dirichlet_fraction=0.0)
    assert torch.equal(found.action_weights, torch.from_numpy(plain.action_weights))
    assert found.tree.embedding["s"][0].shape == (31 * 3,)


def test_a_tree_shows_its_lines() -> None:
    recurrent_fn, root = random_model(3, -1.0, True)
    tree = muzero_policy(root(2), recurrent_fn, num_simulations=25, dirichlet_fraction=0.0).tree
    shown = tree.to_dict(1)
    assert shown["N"] == 25
    assert sum(child["N"] for child in shown["children"].values()) == 25
    assert sum(child["P"] for child in shown["children"].values()) <= 1 + 1e-9
    line = tree.principal_variation(1)
    assert line[0] == tree.children_visits[1, 0].argmax()
    assert len(line) <= tree.depths()[1].max()


# -- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"num_simulations": 0}, "num_simulations must be 1 or more, got 0"),
        ({"temperature": -1.0}, "temperature must be 0 or more, got -1"),
        ({"dirichlet_alpha": 0.0}, "dirichlet_alpha must be above 0, got 0"),
        ({"dirichlet_fraction": 2.0}, "dirichlet_fraction must be from 0 to 1"),
        ({"q_norm": (1.0, 1.0)}, "q_norm must be"),
        ({"q_norm": "none"}, "q_norm must be"),
        ({"parent_visits": "all"}, "parent_visits must be one of"),
        ({"tie": "random"}, "tie must be"),
        ({"max_depth": 0}, "max_depth must be 1 or more"),
        ({"invalid_actions": np.array([[False] * 4, [True] * 4])}, "row 1 has no legal action"),
        ({"invalid_actions": np.zeros((2, 3), bool)}, "invalid_actions must be"),
    ],
)
def test_bad_settings_are_refused(options: Any, match: str) -> None:
    recurrent_fn, root = random_model(4, 1.0, True)
    with pytest.raises(ValueError, match=match):
        muzero_policy(root(2), recurrent_fn, **{"num_simulations": 3, **options})


@pytest.mark.parametrize("policy", [muzero_policy, gumbel_muzero_policy])
def test_a_model_that_gives_no_numbers_is_named(policy: Any) -> None:
    recurrent_fn, root = random_model(4, 1.0, True)

    def broken(field: str, value: float) -> Any:
        calls = []

        def model(action: Any, state: Any) -> Any:
            output, new = recurrent_fn(action, state)
            calls.append(1)
            if len(calls) == 3:
                getattr(output, field)[1] = value
            return output, new

        return model

    for field, value in (
        ("value", np.nan), ("reward", np.inf), ("prior_logits", -np.inf), ("discount", 1.5)
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"simulation 3, row 1.*" + field):
            policy(root(2), broken(field, value), num_simulations=5)
    bad = RootOutput(np.full((2, 4), np.nan), np.zeros(2), np.zeros(2, int))
    with pytest.raises(ValueError, match="root, row 0"):
        policy(bad, recurrent_fn, num_simulations=5)
    narrow = random_model(3, 1.0, True)[0]
    with pytest.raises(ValueError, match=r"recurrent_fn must give .* prior_logits \[2, 4\]"):
        policy(root(2), lambda action, state: narrow(action % 3, state), num_simulations=5)


def test_no_rows_give_no_rows() -> None:
    recurrent_fn, root = random_model(4, 1.0, True)
    for policy in (muzero_policy, gumbel_muzero_policy):
        found = policy(root(0), recurrent_fn, num_simulations=3)
        assert found.action.shape == (0,)
        assert found.action_weights.shape == (0, 4)


def test_a_search_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "MAX_BYTES", 1 << 10)
    recurrent_fn, root = random_model(4, 1.0, True)
    with pytest.raises(ValueError, match="GiB, more than"):
        muzero_policy(root(2), recurrent_fn, num_simulations=50)
