"""Monte Carlo tree search over a model, for a whole batch at once.

MuZero (arXiv 1911.08265), appendix B. The model is an argument: a learned one or the true rules,
in torch or numpy. One compiled call for each simulation backs up the last one and selects the
next; hidden states lie in one pool.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np

from mmxx.planning.muzero import _kernels as k
from mmxx.planning.muzero.tree import (
    MAX_BYTES,
    PolicyOutput,
    RecurrentFn,
    RecurrentOutput,
    RootOutput,
    Tree,
    is_tensor,
    leaves,
    to_numpy,
    tree_map,
)

QNorm = Literal["tree", "siblings"] | tuple[float, float]
ParentVisits = Literal["sum+1", "sum", "pseudocode"]
_PARENT_VISITS = {
    "sum+1": k.SUM_PLUS_ONE, "sum": k.PLAIN_SUM, "pseudocode": k.PSEUDOCODE,
}  # fmt: skip


def muzero_policy(
    root: RootOutput,
    recurrent_fn: RecurrentFn,
    *,
    num_simulations: int,
    invalid_actions: Any = None,
    max_depth: int | None = None,
    pb_c_init: float = 1.25,
    pb_c_base: float = 19652,
    q_norm: QNorm = "tree",
    parent_visits: ParentVisits = "sum+1",
    dirichlet_alpha: float = 0.3,
    dirichlet_fraction: float = 0.25,
    temperature: float = 1.0,
    tie: Literal["lowest", "highest"] = "lowest",
    generator: np.random.Generator | int | None = None,
) -> PolicyOutput:
    """Search with pUCT and act by the visits of the root.

    A row's search does not depend on the other rows, as far as the model's does not.

    Args:
        root: What the model says of the roots, B rows of A actions.
        recurrent_fn: ``(action [B], embedding) -> (RecurrentOutput, embedding)``: one step of the
            model from each of a batch of hidden states.
        num_simulations: Calls of the model, 1 or more.
        invalid_actions: What the roots may not play, bool [B, A]; by default all is legal. Below
            the root every action counts as legal: a learned model has no rules.
        max_depth: Selection stops at this depth; by default nowhere.
        pb_c_init: c1 of pUCT.
        pb_c_base: c2 of pUCT.
        q_norm: Q is brought to [0, 1] by the least and largest Q of the whole "tree" so far, by
            those of a node's visited "siblings" and the node itself, or by known bounds (low,
            high). Unvisited actions get 0 in place of it.
        parent_visits: What grows the exploration: "sum+1" of the children's visits (as mctx),
            their "sum", or as in the "pseudocode": the sum at the root, one more below it.
        dirichlet_alpha: Parameter of the noise on the root's prior.
        dirichlet_fraction: Share of the noise; 0 for none.
        temperature: Actions are drawn with probability ∝ N^(1/temperature); 0 takes the most
            visited.
        tie: Which of several best actions is taken, here and in the tree.
        generator: Draws noise and action: a numpy generator or a seed; None draws afresh.

    Returns:
        Actions [B], shares of the visits [B, A], and the tree; tensors for a root of tensors.

    Raises:
        ValueError: A setting is out of range; a row has no legal action; the model gives
            something that is not finite, a discount beyond ±1, or another shape; the tree would
            not fit.

    Source: Appendix B and the published pseudocode, with the signs of two players corrected: every
        value and reward is the mover's, and an edge's discount carries the sign.

    Example:
        >>> import numpy as np
        >>> root = RootOutput(np.zeros((1, 3)), np.zeros(1), np.zeros((1, 1)))
        >>> def bandit(action, embedding):  # only action 2 pays
        ...     zeros = np.zeros(len(action))
        ...     step = RecurrentOutput((action == 2) * 1.0, zeros, zeros, np.zeros((1, 3)))
        ...     return step, embedding
        >>> muzero_policy(
        ...     root, bandit, num_simulations=20, dirichlet_fraction=0.0, temperature=0.0
        ... ).action
        array([2])
    """
    if not dirichlet_alpha > 0:
        raise ValueError(f"dirichlet_alpha must be above 0, got {dirichlet_alpha}")
    if not 0 <= dirichlet_fraction <= 1:
        raise ValueError(f"dirichlet_fraction must be from 0 to 1, got {dirichlet_fraction}")
    if not temperature >= 0:
        raise ValueError(f"temperature must be 0 or more, got {temperature}")
    if parent_visits not in _PARENT_VISITS:
        raise ValueError(
            f"parent_visits must be one of {list(_PARENT_VISITS)}, got {parent_visits!r}"
        )
    if tie not in ("lowest", "highest"):
        raise ValueError(f"tie must be 'lowest' or 'highest', got {tie!r}")
    rng = np.random.default_rng(generator)
    norm, bounds = _normalisation(q_norm)
    search = Search(root, num_simulations, invalid_actions, max_depth)
    add_noise(search, dirichlet_alpha, dirichlet_fraction, rng)
    if parent_visits != "sum+1":  # there the root's own evaluation is no visit
        search.nodes_i[:, 0, k.VISITS] = 0
        search.nodes_f[:, 0, k.SUM] = 0
    low_high = np.empty((search.batch, 2), search.dtype)
    low_high[:] = bounds
    options = np.array(
        [norm, _PARENT_VISITS[parent_visits], tie == "highest", search.max_depth], np.int64
    )
    growth = _growth(num_simulations, pb_c_init, pb_c_base, search.dtype)

    step = partial(
        k.step_puct, search.nodes_i, search.nodes_f, search.edges_i, search.edges_f, low_high,
        search.leaf, search.place, search.invalid, growth, options,
    )  # fmt: skip
    tree = search.run(step, recurrent_fn)
    counts = tree.children_visits[:, 0]
    weights = counts / np.maximum(counts.sum(1, keepdims=True), 1).astype(search.dtype)
    action = choose(counts, temperature, tie == "highest", rng)
    return PolicyOutput(search.alike(action), search.alike(weights.astype(search.dtype)), tree)


def _normalisation(q_norm: QNorm) -> tuple[int, tuple[float, float]]:
    if q_norm == "tree":
        return k.TREE, (math.inf, -math.inf)
    if q_norm == "siblings":
        return k.SIBLINGS, (0.0, 0.0)
    if isinstance(q_norm, (tuple, list)) and len(q_norm) == 2 and q_norm[0] < q_norm[1]:
        return k.FIXED, (float(q_norm[0]), float(q_norm[1]))
    raise ValueError(f"q_norm must be 'tree', 'siblings' or (low, high), got {q_norm!r}")


@lru_cache(64)
def _growth(num_simulations: int, pb_c_init: float, pb_c_base: float, dtype: Any) -> np.ndarray:
    """sqrt(n)·(c1 + log((n + c2 + 1)/c2)) and 1/(1 + n) for n = 0 … num_simulations + 1, [2, ·]."""
    n = np.arange(num_simulations + 2, dtype=np.float64)
    factor = np.sqrt(n) * (pb_c_init + np.log((n + pb_c_base + 1) / pb_c_base))
    return np.stack([factor, 1 / (1 + n)]).astype(dtype)


def add_noise(search: Search, alpha: float, fraction: float, rng: np.random.Generator) -> None:
    """Mix Dirichlet noise over the legal actions into the root's prior."""
    if fraction == 0 or not search.batch:
        return
    noise = np.where(search.invalid, 0.0, rng.standard_gamma(alpha, search.invalid.shape))
    total = noise.sum(1, keepdims=True)
    prior = search.edges_f[:, 0, k.PRIOR]
    # draws of a tiny alpha may all be 0 in double precision: then there is no noise
    noise = np.where(total > 0, noise / np.where(total > 0, total, 1.0), prior)
    search.edges_f[:, 0, k.PRIOR] = (1 - fraction) * prior + fraction * noise


def choose(
    counts: np.ndarray, temperature: float, highest: bool, rng: np.random.Generator
) -> np.ndarray:
    """Actions [B] from visits [B, A]: the most visited, or drawn ∝ N^(1/temperature)."""
    if temperature == 0:
        if highest:
            return counts.shape[1] - 1 - counts[:, ::-1].argmax(1)
        return counts.argmax(1)
    logs = np.full(counts.shape, -np.inf)
    np.log(counts, out=logs, where=counts > 0)
    logs /= temperature
    weights = np.exp(logs - logs.max(1, keepdims=True))
    total = weights.cumsum(1)
    draws = rng.random((len(counts), 1)) * total[:, -1:]
    return (total <= draws).sum(1)


class Search:
    """The arrays of one batched search, and its loop over simulations.

    Attributes:
        batch: Rows.
        dtype: Of all floating-point arrays: that of the root's output.
        leaf: Node and action to expand, int32 [2, B].
        place: Places of the leaves' parents in the pool, int64 [B].
    """

    def __init__(
        self,
        root: RootOutput,
        num_simulations: int,
        invalid_actions: Any,
        max_depth: int | None,
    ) -> None:
        if num_simulations < 1:
            raise ValueError(f"num_simulations must be 1 or more, got {num_simulations}")
        if max_depth is not None and max_depth < 1:
            raise ValueError(f"max_depth must be 1 or more, got {max_depth}")
        self._tensor = root.value if is_tensor(root.value) else None
        logits, value = to_numpy(root.prior_logits), to_numpy(root.value)
        if logits.ndim != 2 or value.shape != logits.shape[:1] or not logits.shape[1]:
            raise ValueError(
                f"root must have prior_logits [B, A] and value [B], got {logits.shape} and "
                f"{value.shape}"
            )
        self.dtype = np.result_type(logits, value)
        if self.dtype not in (np.float32, np.float64):
            raise ValueError(f"root must be float32 or float64, got {self.dtype}")
        self.logits = logits.astype(self.dtype)
        self.batch, self.num_actions = self._shape = logits.shape
        self._rows = (self.batch,)
        self.num_simulations = num_simulations
        self.max_depth = max_depth or num_simulations
        self.invalid = _invalid(invalid_actions, logits.shape)
        self._embedding = root.embedding
        self._check_memory()
        rows, nodes, actions = self.batch, num_simulations + 1, self.num_actions
        self.nodes_i = np.zeros((rows, nodes, 3), np.int32)
        self.nodes_f = np.zeros((rows, nodes, 4), self.dtype)
        self.edges_i = np.zeros((rows, nodes, 2, actions), np.int32)
        self.edges_f = np.zeros((rows, nodes, 2, actions), self.dtype)
        self.nodes_i[:, 0] = (1, -1, -1)
        self.nodes_f[:, 0, k.SUM] = self.nodes_f[:, 0, k.RAW] = value
        self.edges_i[:, 0, k.CHILD] = -1
        self.leaf = np.zeros((2, rows), np.int32)
        self.place = np.zeros(rows, np.int64)
        self._set_root(value)

    def _set_root(self, value: np.ndarray) -> None:
        legal = np.where(self.invalid, -np.inf, self.logits)
        if not self.batch:
            return
        largest = legal.max(1, keepdims=True)
        bad = ~(np.isfinite(largest[:, 0]) & np.isfinite(value)) | np.isnan(legal).any(1)
        if bad.any():
            b = int(bad.argmax())
            raise ValueError(
                f"root, row {b}: prior_logits of legal actions must not be NaN or all -inf, and "
                f"the value finite; got {self.logits[b].tolist()} and {value[b]}"
            )
        weights = np.exp(legal - largest)
        self.edges_f[:, 0, k.PRIOR] = weights / weights.sum(1, keepdims=True)

    def _check_memory(self) -> None:
        rows, nodes = self.batch, self.num_simulations + 1
        size = rows * nodes * (self.num_actions * 2 * (4 + self.dtype.itemsize) + 28)
        for leaf in leaves(self._embedding):
            if len(leaf) != rows:
                raise ValueError(
                    f"root.embedding must have {rows} rows as prior_logits, got {len(leaf)}"
                )
            size += nodes * (leaf.nbytes if hasattr(leaf, "nbytes") else 0)
        if size > MAX_BYTES:
            raise ValueError(
                f"the search of {rows} rows × {nodes} nodes × {self.num_actions} actions needs "
                f"{size / 2**30:.1f} GiB, more than {MAX_BYTES / 2**30:.0f}: take fewer rows or "
                "simulations"
            )

    def alike(self, array: np.ndarray) -> Any:
        """The array as a tensor on the root's device, where the root is of tensors."""
        if self._tensor is None:
            return array
        import torch

        return torch.from_numpy(np.ascontiguousarray(array)).to(self._tensor.device)

    def run(self, step: Any, recurrent_fn: RecurrentFn) -> Tree:
        """Alternate ``step(new, last, reward, discount, value, logits)`` with the model.

        Returns:
            The tree.
        """
        pool = _Pool(self._embedding, self.batch, self.num_simulations + 1, self.place)
        nothing, most = np.zeros(self.batch, self.dtype), self.num_simulations
        actions, tensors = self.leaf[1], self._tensor is not None
        if self.batch:
            step(0, False, nothing, nothing, nothing, np.zeros_like(self.logits))
            for i in range(1, most + 1):
                if tensors:
                    actions = self.alike(self.leaf[1].astype(np.int64))
                output, embedding = recurrent_fn(actions, pool.gather())
                pool.store(i, embedding)
                parts = (output.reward, output.discount, output.value, output.prior_logits)
                if not self._fit(*parts):
                    parts = self._converted(parts)
                failed = step(i, i == most, *parts)
                if failed >= 0:
                    self._refuse(i, failed, output)
        return Tree(
            self.nodes_i, self.nodes_f, self.edges_i, self.edges_f, self.invalid, pool.values
        )

    def _fit(self, reward: Any, discount: Any, value: Any, logits: Any) -> bool:
        """Whether the kernels can take what the model gave as it is."""
        dtype, rows = self.dtype, self._rows
        return (
            type(reward) is type(discount) is type(value) is type(logits) is np.ndarray
            and reward.dtype is discount.dtype is value.dtype is logits.dtype is dtype
            and reward.shape == rows == discount.shape == value.shape
            and logits.shape == self._shape
            and reward.flags.c_contiguous
            and discount.flags.c_contiguous
            and value.flags.c_contiguous
            and logits.flags.c_contiguous
        )

    def _converted(self, parts: tuple[Any, ...]) -> tuple[np.ndarray, ...]:
        given = tuple(to_numpy(one, self.dtype) for one in parts)
        shapes = [one.shape for one in given]
        if shapes != [self._rows, self._rows, self._rows, self._shape]:
            raise ValueError(
                f"recurrent_fn must give reward, discount, value [{self.batch}] and "
                f"prior_logits {list(self._shape)}, got {shapes}"
            )
        return given

    def _refuse(self, i: int, failed: int, output: RecurrentOutput) -> None:
        b, code = divmod(failed, 4)
        if code == k.BAD_LOGITS:
            what = f"prior_logits {to_numpy(output.prior_logits)[b].tolist()}"
        else:
            names = ("reward", "discount", "value")
            what = ", ".join(f"{name} {to_numpy(getattr(output, name))[b]}" for name in names)
        raise ValueError(
            f"recurrent_fn, simulation {i}, row {b}: everything must be finite, the discount from "
            f"-1 to 1 and some logit above -inf, got {what}"
        )


class _Pool:
    """The hidden states of all nodes, node-major: leaves [N·B, ...]."""

    def __init__(self, root: Any, rows: int, nodes: int, place: np.ndarray) -> None:
        self._rows, self._place = rows, place
        self._single = isinstance(root, np.ndarray) or is_tensor(root)  # spares the walk
        self._tensors = any(is_tensor(leaf) for leaf in leaves(root))
        if self._tensors:
            import torch

            self._index = torch.from_numpy(place)  # shares its memory
        self.values = tree_map(lambda leaf: _empty(leaf, nodes), root)
        self.store(0, root)

    def store(self, node: int, embedding: Any) -> None:
        low, high = node * self._rows, (node + 1) * self._rows
        if self._single:
            self.values[low:high] = embedding
            return

        def put(leaf: Any, new: Any) -> None:
            leaf[low:high] = new

        tree_map(put, self.values, embedding)

    def gather(self) -> Any:
        if self._single and not self._tensors:
            return self.values.take(self._place, 0)
        return self._take(self.values) if self._single else tree_map(self._take, self.values)

    def _take(self, leaf: Any) -> Any:
        if self._tensors:
            return leaf.index_select(0, self._index.to(leaf.device))
        return leaf.take(self._place, 0)


def _empty(leaf: Any, nodes: int) -> Any:
    shape = (nodes * len(leaf), *leaf.shape[1:])
    return leaf.new_zeros(shape) if is_tensor(leaf) else np.zeros(shape, leaf.dtype)


def _invalid(invalid_actions: Any, shape: tuple[int, ...]) -> np.ndarray:
    if invalid_actions is None:
        return np.zeros(shape, bool)
    mask = to_numpy(invalid_actions)
    if mask.shape != shape:
        raise ValueError(f"invalid_actions must be {list(shape)}, got {list(mask.shape)}")
    mask = mask.astype(bool)
    if len(mask) and mask.all(1).any():
        raise ValueError(f"invalid_actions: row {int(mask.all(1).argmax())} has no legal action")
    return mask
