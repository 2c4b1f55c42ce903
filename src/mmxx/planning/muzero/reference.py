"""The searches once more in plain Python, one node an object: slow, and easy to check.

Written from the papers, not from the compiled loops, in double precision. The tests compare the
two; use it to see what a search does, or to try a change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmxx.planning.muzero.gumbel import visit_schedule
from mmxx.planning.muzero.tree import RecurrentFn, RootOutput, to_numpy, tree_map


@dataclass
class Node:
    """A node of the reference search.

    Attributes:
        priors: Probabilities of the actions.
        raw: The network's value.
        reward: Of the edge into the node.
        discount: Signed, of that edge.
        embedding: The hidden state, one row.
        index: The simulation that made it; 0 is the root.
        visits: Values backed up, N.
        total: Their sum, W.
        children: By action.
    """

    priors: list[float]
    raw: float
    reward: float
    discount: float
    embedding: Any
    index: int
    visits: int = 0
    total: float = 0.0
    children: dict[int, Node] = field(default_factory=dict)

    @property
    def value(self) -> float:
        """W/N, or the network's value where nothing was backed up."""
        return self.total / self.visits if self.visits else self.raw

    @property
    def q(self) -> float:
        """r + d·V of the edge into the node."""
        return self.reward + self.discount * self.value

    def count(self, action: int) -> int:
        """Visits of an action."""
        return self.children[action].visits if action in self.children else 0

    def walk(self) -> Iterator[Node]:
        """The node and all below it."""
        yield self
        for child in self.children.values():
            yield from child.walk()


def reference_search(
    root: RootOutput,
    recurrent_fn: RecurrentFn,
    *,
    num_simulations: int,
    invalid_actions: Any = None,
    max_depth: int | None = None,
    pb_c_init: float = 1.25,
    pb_c_base: float = 19652,
    q_norm: Any = "tree",
    parent_visits: str = "sum+1",
    tie: str = "lowest",
) -> list[Node]:
    """MuZero's search without noise, row by row.

    Args:
        root: What the model says of the roots, B rows.
        recurrent_fn: The model, called with one row at a time.
        num_simulations: Calls of the model for each row.
        invalid_actions: What the roots may not play, bool [B, A].
        max_depth: Selection stops at this depth.
        pb_c_init: c1 of pUCT.
        pb_c_base: c2 of pUCT.
        q_norm: "tree", "siblings" or (low, high).
        parent_visits: "sum+1", "sum" or "pseudocode".
        tie: "lowest" or "highest".

    Returns:
        The root of each row's tree.

    Source: The published pseudocode, with every value from the mover's view.

    Example:
        >>> import numpy as np
        >>> from mmxx.planning.muzero import RecurrentOutput
        >>> root = RootOutput(np.zeros((1, 2)), np.zeros(1), np.zeros((1, 1)))
        >>> def pays(action, embedding):
        ...     zeros = np.zeros(1)
        ...     return RecurrentOutput(action * 1.0, zeros, zeros, np.zeros((1, 2))), embedding
        >>> (tree,) = reference_search(root, pays, num_simulations=8)
        >>> tree.count(1) > tree.count(0)
        True
    """
    found = []
    for start, legal in _roots(root, invalid_actions):
        if parent_visits == "sum+1":
            start.visits, start.total = 1, start.raw
        low_high = [math.inf, -math.inf]

        def puct(node: Node, is_root: bool, legal: Any = legal, seen: Any = low_high) -> int:
            actions = [a for a in range(len(node.priors)) if not is_root or legal[a]]
            n = sum(node.count(a) for a in range(len(node.priors)))
            if parent_visits == "sum+1" or (parent_visits == "pseudocode" and not is_root):
                n += 1
            growth = math.sqrt(n) * (pb_c_init + math.log((n + pb_c_base + 1) / pb_c_base))
            scores = {
                a: node.priors[a] * growth * (1 / (1 + node.count(a)))
                + _unit_q(node, a, q_norm, seen)
                for a in actions
            }
            best = max(scores.values())
            ties = [a for a in actions if scores[a] == best]
            return ties[0] if tie == "lowest" else ties[-1]

        _grow(start, puct, recurrent_fn, num_simulations, max_depth, low_high)
        found.append(start)
    return found


def reference_gumbel_search(
    root: RootOutput,
    recurrent_fn: RecurrentFn,
    gumbel: Any,
    *,
    num_simulations: int,
    invalid_actions: Any = None,
    max_num_considered_actions: int = 16,
    value_scale: float = 0.1,
    maxvisit_init: float = 50.0,
    rescale_values: bool = True,
) -> list[tuple[Node, int, np.ndarray]]:
    """Gumbel MuZero's search row by row, with given noise.

    Args:
        root: What the model says of the roots, B rows.
        recurrent_fn: The model, called with one row at a time.
        gumbel: The noise, [B, A].
        num_simulations: Calls of the model for each row.
        invalid_actions: What the roots may not play, bool [B, A].
        max_num_considered_actions: The root considers so many actions at most.
        value_scale: c_scale of σ.
        maxvisit_init: c_visit of σ.
        rescale_values: Whether completed Q are brought to [0, 1].

    Returns:
        For each row the root, the action and the improved policy [A].

    Source: Danihelka et al. (2022), algorithms 1 and 2.
    """

    def sigma(node: Node) -> list[float]:
        every = range(len(node.priors))
        visited = [a for a in every if node.count(a)]
        mixed, visits = node.raw, sum(node.count(a) for a in every)
        if visited:
            known = sum(max(node.priors[a], 1e-37) for a in visited)
            mean = sum(max(node.priors[a], 1e-37) * node.children[a].q for a in visited) / known
            mixed = (node.raw + visits * mean) / (1 + visits)
        q = [node.children[a].q if node.count(a) else mixed for a in every]
        if rescale_values:
            low, width = min(q), max(max(q) - min(q), 1e-8)
            q = [(one - low) / width for one in q]
        most = max(node.count(a) for a in every)
        return [(maxvisit_init + most) * value_scale * one for one in q]

    found = []
    noise, all_logits = to_numpy(gumbel, np.float64), to_numpy(root.prior_logits, np.float64)
    for b, (start, legal) in enumerate(_roots(root, invalid_actions)):
        start.visits, start.total = 1, start.raw
        logits = all_logits[b] - max(all_logits[b][legal])
        schedule = visit_schedule(
            min(max_num_considered_actions, int(legal.sum())), num_simulations
        )

        def considered(node: Node, visits: int, b: int = b, logits: Any = logits,
                       legal: Any = legal) -> int:  # fmt: skip
            scale = sigma(node)
            rivals = [a for a in np.flatnonzero(legal).tolist() if node.count(a) == visits]
            return int(max(rivals, key=lambda a: noise[b, a] + logits[a] + scale[a]))

        def select(node: Node, is_root: bool, schedule: Any = schedule,
                   considered: Any = considered) -> int:  # fmt: skip
            every = range(len(node.priors))
            visits = sum(node.count(a) for a in every)
            if is_root:
                return considered(node, schedule[visits])
            scale = sigma(node)
            raw = [node.priors[a] * math.exp(scale[a] - max(scale)) for a in every]
            return max(every, key=lambda a: raw[a] / sum(raw) - node.count(a) / (1 + visits))

        _grow(start, select, recurrent_fn, num_simulations, None, [0.0, 0.0])
        action = considered(start, max(start.count(a) for a in range(len(legal))))
        improved = np.where(legal, logits + np.array(sigma(start)), -np.inf)
        weights = np.exp(improved - improved.max())
        found.append((start, action, weights / weights.sum()))
    return found


def _roots(root: RootOutput, invalid_actions: Any) -> Iterator[tuple[Node, np.ndarray]]:
    """A root with its prior over legal actions, and what is legal, for each row."""
    logits, value = to_numpy(root.prior_logits, np.float64), to_numpy(root.value, np.float64)
    legal = np.ones(logits.shape, bool)
    if invalid_actions is not None:
        legal = ~to_numpy(invalid_actions).astype(bool)
    for b in range(len(logits)):
        masked = np.where(legal[b], logits[b], -np.inf)
        weights = np.exp(masked - masked.max())
        embedding = tree_map(lambda leaf, b=b: leaf[b : b + 1], root.embedding)
        yield (
            Node((weights / weights.sum()).tolist(), float(value[b]), 0.0, 0.0, embedding, 0),
            legal[b],
        )


def _grow(
    root: Node, select: Any, recurrent_fn: RecurrentFn, simulations: int, max_depth: int | None,
    low_high: list[float],
) -> None:  # fmt: skip
    """Simulations from one root: descend, expand, back up."""
    for index in range(1, simulations + 1):
        path, node, action = [root], root, -1
        for depth in range(max_depth or simulations):
            action = select(node, node is root)
            child = node.children.get(action)
            if child is None or depth + 1 == max_depth:
                break
            path.append(child)
            node = child
        output, embedding = recurrent_fn(np.array([action]), node.embedding)
        reward, discount, value = (
            float(to_numpy(part)[0]) for part in (output.reward, output.discount, output.value)
        )
        logits = to_numpy(output.prior_logits, np.float64)[0]
        leaf = node.children.get(action)
        if leaf is None:
            weights = [math.exp(one - max(logits)) for one in logits]
            leaf = Node(
                [w / sum(weights) for w in weights], value, reward, discount, embedding, index
            )
            node.children[action] = leaf
        path.append(leaf)
        for one in reversed(path):
            one.total += value
            one.visits += 1
            if one is not root:
                low_high[:] = [min(low_high[0], one.q), max(low_high[1], one.q)]
            value = one.reward + one.discount * value


def _unit_q(node: Node, action: int, q_norm: Any, seen: list[float]) -> float:
    """Q brought to [0, 1]; 0 where the action was not visited."""
    if not node.count(action):
        return 0.0
    if q_norm == "siblings":
        around = [node.value, *(child.q for child in node.children.values() if child.visits)]
        low, width = min(around), max(max(around) - min(around), 1e-8)
    else:
        low, high = seen if q_norm == "tree" else q_norm
        low, width = (low, high - low) if high > low else (0.0, 1.0)
    return (node.children[action].q - low) * (1 / width)
