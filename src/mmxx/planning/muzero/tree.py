"""What goes into a search and what comes out of it: batches of roots, models, trees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from mmxx.planning.muzero import _kernels as k

MAX_BYTES = 8 << 30  # a tree and its embeddings may not need more


@dataclass(frozen=True)
class RootOutput:
    """What the model says of the roots of a search.

    Attributes:
        prior_logits: Logits of the policy, [B, A]: arrays or tensors, here and below.
        value: The value for the player to move, [B].
        embedding: The hidden state: an array or tensor [B, ...], or tuples, lists, dictionaries
            and dataclasses of these.
    """

    prior_logits: Any
    value: Any
    embedding: Any


@dataclass(frozen=True)
class RecurrentOutput:
    """What the model says of one step from each of a batch of hidden states.

    Attributes:
        reward: The reward of the step, for the player who moves, [B].
        discount: Signed weight of what follows, [B]: γ where the same player moves on, -γ where
            the other does, 0 where the game has ended.
        value: The value of the next state for the player to move there, [B].
        prior_logits: Logits of the policy there, [B, A].
    """

    reward: Any
    discount: Any
    value: Any
    prior_logits: Any


RecurrentFn = Callable[[Any, Any], tuple[RecurrentOutput, Any]]


class PolicyOutput(NamedTuple):
    """What a search decides.

    Attributes:
        action: The chosen action of each row, [B].
        action_weights: The improved policy, [B, A], a target for training.
        tree: The whole search.
    """

    action: Any
    action_weights: Any
    tree: Tree


class Summary(NamedTuple):
    """The roots of a tree: visit counts [B, A], their shares, values [B] and Q [B, A]."""

    visit_counts: np.ndarray
    visit_probs: np.ndarray
    value: np.ndarray
    qvalues: np.ndarray


@dataclass(frozen=True)
class Tree:
    """B searches in arrays: N nodes each, node 0 the root, node i that of simulation i.

    A node that a search did not reach has 0 visits; an action without child has index -1.

    Attributes:
        nodes_i: Visits, parent and action from the parent, int32 [B, N, 3].
        nodes_f: Sum of the values backed up, the network's value, reward and discount, [B, N, 4].
        edges_i: Child or -1, and visits, int32 [B, N, 2, A].
        edges_f: Q = r + d·V(child), and the prior probability, [B, N, 2, A].
        invalid: What the root may not play, bool [B, A].
        embedding: The roots' and all nodes' hidden states, leaves [N·B, ...], node-major.
    """

    nodes_i: np.ndarray
    nodes_f: np.ndarray
    edges_i: np.ndarray
    edges_f: np.ndarray
    invalid: np.ndarray
    embedding: Any

    @property
    def node_visits(self) -> np.ndarray:
        """Visits, int32 [B, N]."""
        return self.nodes_i[..., k.VISITS]

    @property
    def node_values(self) -> np.ndarray:
        """Mean of the values backed up, [B, N]; the network's own where there were none."""
        visits = self.node_visits
        mean = self.nodes_f[..., k.SUM] / np.maximum(visits, 1).astype(self.nodes_f.dtype)
        return np.where(visits > 0, mean, self.raw_values)

    @property
    def raw_values(self) -> np.ndarray:
        """The network's own values, [B, N]."""
        return self.nodes_f[..., k.RAW]

    @property
    def parents(self) -> np.ndarray:
        """The node above, int32 [B, N]; -1 at the root."""
        return self.nodes_i[..., k.PARENT]

    @property
    def action_from_parent(self) -> np.ndarray:
        """The action that led here, int32 [B, N]; -1 at the root."""
        return self.nodes_i[..., k.ACTION]

    @property
    def children_index(self) -> np.ndarray:
        """The node below each action, int32 [B, N, A]; -1 where there is none."""
        return np.where(self.node_visits[..., None] > 0, self.edges_i[:, :, k.CHILD], -1)

    @property
    def children_visits(self) -> np.ndarray:
        """Visits of each action, int32 [B, N, A]."""
        return self.edges_i[:, :, k.COUNT]

    @property
    def children_prior_logits(self) -> np.ndarray:
        """Logarithms of the prior probabilities, [B, N, A]."""
        with np.errstate(divide="ignore"):
            return np.log(self.edges_f[:, :, k.PRIOR])

    @property
    def children_values(self) -> np.ndarray:
        """V of each child, [B, N, A]; 0 where there is none."""
        return self._of_children(self.node_values)

    @property
    def children_rewards(self) -> np.ndarray:
        """The reward of each action, [B, N, A]; 0 where there is no child."""
        return self._of_children(self.nodes_f[..., k.REWARD])

    @property
    def children_discounts(self) -> np.ndarray:
        """The signed discount of each action, [B, N, A]; 0 where there is no child."""
        return self._of_children(self.nodes_f[..., k.DISCOUNT])

    def _of_children(self, values: np.ndarray) -> np.ndarray:
        index = self.children_index
        flat = index.reshape(len(index), -1)
        found = np.take_along_axis(values, np.maximum(flat, 0), axis=1).reshape(index.shape)
        return np.where(index >= 0, found, 0)

    @property
    def qvalues(self) -> np.ndarray:
        """Q = r + d·V(child) of each action, [B, N, A]; 0 where there is no child."""
        return np.where(self.children_index >= 0, self.edges_f[:, :, k.Q], 0)

    def summary(self) -> Summary:
        """The statistics of the roots."""
        counts = self.children_visits[:, 0]
        probs = counts / np.maximum(counts.sum(1, keepdims=True), 1).astype(self.edges_f.dtype)
        return Summary(
            counts, probs.astype(self.edges_f.dtype), self.node_values[:, 0], self.qvalues[:, 0]
        )

    def depths(self) -> np.ndarray:
        """How deep each node lies, int [B, N]; the root at 0, -1 where there is no node."""
        depth = np.where(self.node_visits > 0, 0, -1)
        for node in range(1, depth.shape[1]):  # parents come before their children
            above = np.take_along_axis(depth, np.maximum(self.parents[:, node : node + 1], 0), 1)
            depth[:, node] = np.where(depth[:, node] >= 0, above[:, 0] + 1, -1)
        return depth

    def to_dict(self, b: int = 0) -> dict[str, Any]:
        """Row ``b`` as nested dictionaries with the keys N, V, and children by action: N, P, Q."""
        index, visits = self.children_index[b], self.children_visits[b]
        values, q = self.node_values[b], self.qvalues[b]
        prior, reward = self.edges_f[b, :, k.PRIOR], self.nodes_f[b, :, k.REWARD]

        def node(i: int) -> dict[str, Any]:
            children = {
                int(a): {
                    "P": float(prior[i, a]),
                    "Q": float(q[i, a]),
                    "r": float(reward[index[i, a]]),
                    **node(int(index[i, a])),
                }
                for a in np.flatnonzero(index[i] >= 0)
            }
            count = int(visits[i].sum()) if i == 0 else int(self.node_visits[b, i])
            return {"N": count, "V": float(values[i]), "children": children}

        return node(0)

    def principal_variation(self, b: int = 0) -> list[int]:
        """The most visited actions of row ``b`` from the root on."""
        index, visits = self.children_index[b], self.children_visits[b]
        node, line = 0, []
        while visits[node].any():
            action = int(visits[node].argmax())
            line.append(action)
            node = int(index[node, action])
        return line


# -- trees of arrays ---------------------------------------------------------------------------


def tree_map(fn: Callable[..., Any], value: Any, *others: Any) -> Any:
    """Apply ``fn`` to the arrays and tensors of trees of one structure."""
    if type(value) is np.ndarray:
        return fn(value, *others)
    if isinstance(value, (tuple, list)):
        parts = [tree_map(fn, *parts) for parts in zip(value, *others, strict=True)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: tree_map(fn, *(one[key] for one in (value, *others))) for key in value}
    if is_dataclass(value) and not isinstance(value, type):
        return replace(
            value,
            **{
                f.name: tree_map(fn, *(getattr(one, f.name) for one in (value, *others)))
                for f in fields(value)
            },
        )
    return None if value is None else fn(value, *others)


def leaves(value: Any) -> list[Any]:
    """The arrays and tensors of a tree."""
    found: list[Any] = []
    tree_map(found.append, value)
    return found


def is_tensor(value: Any) -> bool:
    """Whether it is torch's, without importing torch."""
    return type(value).__module__.partition(".")[0] == "torch"


def to_numpy(value: Any, dtype: Any = None) -> np.ndarray:
    """An array or tensor as a contiguous array."""
    if is_tensor(value):
        value = value.detach().cpu().numpy()
    return np.ascontiguousarray(value, dtype)
