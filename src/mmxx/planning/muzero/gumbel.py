"""Gumbel MuZero's search: Sequential Halving at the root, an improved policy as the target.

Danihelka, Guez, Schrittwieser, Silver: Policy improvement by planning with Gumbel, ICLR 2022.
Better than pUCT where simulations are few.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from mmxx.planning.muzero import _kernels as k
from mmxx.planning.muzero.search import Search
from mmxx.planning.muzero.tree import PolicyOutput, RecurrentFn, RootOutput


def gumbel_muzero_policy(
    root: RootOutput,
    recurrent_fn: RecurrentFn,
    *,
    num_simulations: int,
    invalid_actions: Any = None,
    max_depth: int | None = None,
    max_num_considered_actions: int = 16,
    gumbel_scale: float = 1.0,
    value_scale: float = 0.1,
    maxvisit_init: float = 50.0,
    rescale_values: bool = True,
    generator: np.random.Generator | int | None = None,
) -> PolicyOutput:
    """Search with Gumbel MuZero's rule and act by its best considered action.

    Args:
        root: What the model says of the roots, B rows of A actions.
        recurrent_fn: ``(action [B], embedding) -> (RecurrentOutput, embedding)``.
        num_simulations: Calls of the model, 1 or more.
        invalid_actions: What the roots may not play, bool [B, A].
        max_depth: Selection stops at this depth; by default nowhere.
        max_num_considered_actions: The root considers so many actions at most.
        gumbel_scale: Scale of the Gumbel noise; 0 for evaluation.
        value_scale: c_scale of σ.
        maxvisit_init: c_visit of σ.
        rescale_values: Whether completed Q are brought to [0, 1] before σ.
        generator: Draws the noise: a numpy generator or a seed; None draws afresh.

    Returns:
        Actions [B], the improved policy [B, A], and the tree; tensors for a root of tensors.

    Raises:
        ValueError: As `muzero_policy`.

    Source: Algorithms 1 and 2, equations 8, 10, 11, 14; appendix D.

    Example:
        >>> from mmxx.planning.muzero import RecurrentOutput
        >>> root = RootOutput(np.zeros((1, 3)), np.zeros(1), np.zeros((1, 1)))
        >>> def bandit(action, embedding):  # only action 2 pays
        ...     zeros = np.zeros(len(action))
        ...     step = RecurrentOutput((action == 2) * 1.0, zeros, zeros, np.zeros((1, 3)))
        ...     return step, embedding
        >>> gumbel_muzero_policy(root, bandit, num_simulations=4, generator=0).action
        array([2])
    """
    if max_num_considered_actions < 1:
        raise ValueError(
            f"max_num_considered_actions must be 1 or more, got {max_num_considered_actions}"
        )
    if not 0 <= gumbel_scale < math.inf:
        raise ValueError(f"gumbel_scale must be 0 or more, got {gumbel_scale}")
    rng = np.random.default_rng(generator)
    search = Search(root, num_simulations, invalid_actions, max_depth)
    rows, actions = search.logits.shape
    gumbel = (gumbel_scale * rng.gumbel(size=(rows, actions))).astype(search.dtype)
    legal = np.where(search.invalid, -np.inf, search.logits)
    logits = search.logits - legal.max(1, keepdims=True, initial=-np.inf)
    schedule = _schedules(search.invalid, max_num_considered_actions, num_simulations)
    work = np.zeros(actions, search.dtype)
    bounds = np.zeros((rows, 2), search.dtype)
    options = (float(value_scale), float(maxvisit_init), bool(rescale_values), search.max_depth)

    step = partial(
        k.step_gumbel, search.nodes_i, search.nodes_f, search.edges_i, search.edges_f, bounds,
        search.leaf, search.place, search.invalid, gumbel, logits, schedule, work, options,
    )  # fmt: skip
    tree = search.run(step, recurrent_fn)
    chosen = np.zeros(rows, np.int64)
    sigma = np.zeros((rows, actions), search.dtype)
    k.decide_gumbel(
        tree.nodes_f, tree.edges_i, tree.edges_f, search.invalid, gumbel, logits, work, options,
        sigma, chosen,
    )  # fmt: skip
    improved = np.where(search.invalid, -np.inf, logits + sigma)
    weights = np.exp(improved - improved.max(1, keepdims=True, initial=-np.inf))
    weights /= weights.sum(1, keepdims=True)
    return PolicyOutput(search.alike(chosen), search.alike(weights), tree)


def _schedules(invalid: np.ndarray, considered: int, simulations: int) -> np.ndarray:
    """For each row the visits that an action must have to be considered, int32 [B, S]."""
    legal = np.minimum((~invalid).sum(1), considered)
    table = {int(m): visit_schedule(int(m), simulations) for m in np.unique(legal)}
    rows = [table[int(m)] for m in legal]
    return np.array(rows, np.int32).reshape(len(legal), simulations)


def visit_schedule(considered: int, simulations: int) -> list[int]:
    """Sequential Halving as visit counts: simulation i goes to an action visited so often.

    Args:
        considered: Actions considered at first, m.
        simulations: The budget S.

    Example:
        >>> visit_schedule(4, 8)
        [0, 0, 0, 0, 1, 1, 2, 2]
    """
    if considered <= 1:
        return list(range(simulations))
    rounds = math.ceil(math.log2(considered))
    visits, sequence, left = [0] * considered, [], considered
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (rounds * left))):
            sequence += visits[:left]
            visits[:left] = [count + 1 for count in visits[:left]]
        left = max(2, left // 2)
    return sequence[:simulations]
