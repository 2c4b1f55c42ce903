"""The compiled loops of the tree search: back up one simulation, and select the next leaf.

A tree holds B rows of N nodes with A actions in four arrays. What a level of selection reads lies
side by side: ``edges_i [B, N, 2, A]`` (child or -1; visits) and ``edges_f [B, N, 2, A]``
(Q = r + d·V(child); prior probability). ``nodes_i [B, N, 3]`` holds visits, parent and the action
from it, ``nodes_f [B, N, 4]`` the sum of backed-up values, the network's own value, and reward and
discount of the edge into the node.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit  # pyright: ignore[reportPrivateImportUsage]

# columns of nodes_i and nodes_f, rows of edges_i and edges_f
VISITS, PARENT, ACTION = 0, 1, 2
SUM, RAW, REWARD, DISCOUNT = 0, 1, 2, 3
CHILD, COUNT = 0, 1
Q, PRIOR = 0, 1

TREE, SIBLINGS, FIXED = 0, 1, 2  # how Q is normalised
SUM_PLUS_ONE, PLAIN_SUM, PSEUDOCODE = 0, 1, 2  # what counts as the parent's visits

# codes of what a row can do wrong; 0 is fine
BAD_VALUE, BAD_LOGITS = 1, 2


@njit(cache=True, nogil=True)
def back_up(
    new, nodes_i, nodes_f, edges_i, edges_f, bounds, grow, leaf, reward, discount, value, logits
):
    """Hang the evaluated leaves into the trees, and carry their values to the roots.

    Returns row · 4 + code of the first row that gave no numbers, else -1.
    """
    num_actions = edges_i.shape[3]
    for b in range(len(value)):
        if not (math.isfinite(value[b]) and math.isfinite(reward[b]) and abs(discount[b]) <= 1):
            return 4 * b + BAD_VALUE
        node, action = leaf[0, b], leaf[1, b]
        child = edges_i[b, node, CHILD, action]
        if child < 0:  # else the depth limit led to a node that is there already
            largest = -np.inf
            for a in range(num_actions):
                if logits[b, a] != logits[b, a]:
                    return 4 * b + BAD_LOGITS
                largest = max(largest, logits[b, a])
            if not -np.inf < largest < np.inf:
                return 4 * b + BAD_LOGITS
            child = new
            edges_i[b, node, CHILD, action] = child
            nodes_i[b, child, PARENT] = node
            nodes_i[b, child, ACTION] = action
            total = 0.0
            for a in range(num_actions):
                weight = math.exp(logits[b, a] - largest)
                edges_f[b, child, PRIOR, a] = weight
                edges_i[b, child, CHILD, a] = -1
                total += weight
            share = 1.0 / total
            for a in range(num_actions):
                edges_f[b, child, PRIOR, a] *= share
        nodes_f[b, child, RAW] = value[b]
        nodes_f[b, child, REWARD] = reward[b]
        nodes_f[b, child, DISCOUNT] = discount[b]
        carried = value[b]
        nodes_f[b, child, SUM] += carried
        nodes_i[b, child, VISITS] += 1
        low, high = bounds[b, 0], bounds[b, 1]
        while child != 0:
            node = nodes_i[b, child, PARENT]
            action = nodes_i[b, child, ACTION]
            r, d = nodes_f[b, child, REWARD], nodes_f[b, child, DISCOUNT]
            q = r + d * (nodes_f[b, child, SUM] / nodes_i[b, child, VISITS])
            edges_i[b, node, COUNT, action] += 1
            edges_f[b, node, Q, action] = q
            if grow:
                low, high = min(low, q), max(high, q)
            carried = r + d * carried
            nodes_f[b, node, SUM] += carried
            nodes_i[b, node, VISITS] += 1
            child = node
        bounds[b, 0], bounds[b, 1] = low, high
    return -1


@njit(cache=True, nogil=True)
def select_puct(
    nodes_i, nodes_f, edges_i, edges_f, bounds, leaf, place, invalid, growth, options
):  # fmt: skip
    """Descend each row by pUCT to an edge without child: ``leaf`` and ``place`` as in `step_puct`.

    ``growth[0, n]`` is that of the exploration, ``growth[1, n]`` is 1 / (1 + n); ``options`` are
    the norm, the parent's visits, whether the highest action wins a tie, and the depth limit.
    """
    norm, parent_visits, highest, max_depth = options[0], options[1], options[2], options[3]
    num_actions, batch = edges_i.shape[3], len(place)
    for b in range(batch):
        low, high = bounds[b, 0], bounds[b, 1]
        node, action = 0, -1
        for depth in range(max_depth):
            total = 0
            for a in range(num_actions):
                total += edges_i[b, node, COUNT, a]
            if parent_visits == SUM_PLUS_ONE or (parent_visits == PSEUDOCODE and node != 0):
                total += 1
            if norm == SIBLINGS:
                low = nodes_f[b, node, RAW]
                if nodes_i[b, node, VISITS] > 0:
                    low = nodes_f[b, node, SUM] / nodes_i[b, node, VISITS]
                high = low
                for a in range(num_actions):
                    if edges_i[b, node, COUNT, a] > 0:
                        low = min(low, edges_f[b, node, Q, a])
                        high = max(high, edges_f[b, node, Q, a])
                start, stretch = low, 1.0 / max(high - low, 1e-8)
            elif high > low:
                start, stretch = low, 1.0 / (high - low)
            else:
                start, stretch = 0.0, 1.0
            best = -np.inf
            scale = growth[0, total]
            for a in range(num_actions):
                count = edges_i[b, node, COUNT, a]
                score = edges_f[b, node, PRIOR, a] * scale * growth[1, count]
                if count > 0:
                    score += (edges_f[b, node, Q, a] - start) * stretch
                if (score > best or (highest and score == best)) and (
                    node != 0 or not invalid[b, a]
                ):
                    best, action = score, a
            child = edges_i[b, node, CHILD, action]
            if child < 0 or depth + 1 == max_depth:
                break
            node = child
        leaf[0, b], leaf[1, b], place[b] = node, action, node * batch + b


@njit(cache=True, nogil=True)
def completed_q(b, node, nodes_f, edges_i, edges_f, value_scale, maxvisit_init, rescale, out):
    """σ(q) of Gumbel MuZero (eq. 8, appendix D) of a node into ``out [A]``.

    Returns the sum of visits and the most of them.
    """
    num_actions = edges_i.shape[3]
    visits, most, known, weighted = 0, 0, 0.0, 0.0
    for a in range(num_actions):
        count = edges_i[b, node, COUNT, a]
        if count > 0:
            visits += count
            most = max(most, count)
            p = max(edges_f[b, node, PRIOR, a], 1e-37)
            known += p
            weighted += p * edges_f[b, node, Q, a]
    mixed = nodes_f[b, node, RAW]
    if visits > 0:
        mixed = (mixed + visits * (weighted / known)) / (1 + visits)
    low, high = np.inf, -np.inf
    for a in range(num_actions):
        out[a] = edges_f[b, node, Q, a] if edges_i[b, node, COUNT, a] > 0 else mixed
        low, high = min(low, out[a]), max(high, out[a])
    scale, start = (maxvisit_init + most) * value_scale, 0.0
    if rescale:
        start, scale = low, scale / max(high - low, 1e-8)
    for a in range(num_actions):
        out[a] = scale * (out[a] - start)
    return visits, most


@njit(cache=True, nogil=True)
def gumbel_best(b, considered, gumbel, logits, sigma, edges_i, invalid):
    """The legal root action of the best g + logits + σ(q) among those of ``considered`` visits."""
    best, action = -np.inf, -1
    for a in range(len(sigma)):
        if not invalid[b, a] and edges_i[b, 0, COUNT, a] == considered:
            score = max(gumbel[b, a] + logits[b, a] + sigma[a], -1e9)
            if score > best:
                best, action = score, a
    return action


@njit(cache=True, nogil=True)
def select_gumbel(
    nodes_f, edges_i, edges_f, leaf, place, invalid, gumbel, logits, schedule, work, options
):
    """Descend each row: Sequential Halving at the root, the improved policy's counts below."""
    value_scale, maxvisit_init, rescale, max_depth = options
    num_actions, batch = edges_i.shape[3], len(place)
    for b in range(batch):
        node, action = 0, -1
        for depth in range(max_depth):
            visits, _ = completed_q(
                b, node, nodes_f, edges_i, edges_f, value_scale, maxvisit_init, rescale, work
            )
            if node == 0:
                action = gumbel_best(b, schedule[b, visits], gumbel, logits, work, edges_i, invalid)
            else:
                largest = -np.inf
                for a in range(num_actions):
                    largest = max(largest, work[a])
                total = 0.0
                for a in range(num_actions):
                    work[a] = edges_f[b, node, PRIOR, a] * math.exp(work[a] - largest)
                    total += work[a]
                best, share, spread = -np.inf, 1.0 / total, 1.0 / (1.0 + visits)
                for a in range(num_actions):
                    score = work[a] * share - edges_i[b, node, COUNT, a] * spread
                    if score > best:
                        best, action = score, a
            child = edges_i[b, node, CHILD, action]
            if child < 0 or depth + 1 == max_depth:
                break
            node = child
        leaf[0, b], leaf[1, b], place[b] = node, action, node * batch + b


@njit(cache=True, nogil=True)
def decide_gumbel(nodes_f, edges_i, edges_f, invalid, gumbel, logits, work, options, sigma, chosen):
    """σ(q) of the roots into ``sigma [B, A]``, and their best most visited actions [B]."""
    value_scale, maxvisit_init, rescale, _ = options
    for b in range(len(chosen)):
        _, most = completed_q(
            b, 0, nodes_f, edges_i, edges_f, value_scale, maxvisit_init, rescale, work
        )
        sigma[b] = work
        chosen[b] = gumbel_best(b, most, gumbel, logits, work, edges_i, invalid)


@njit(cache=True, nogil=True)
def step_puct(
    nodes_i, nodes_f, edges_i, edges_f, bounds, leaf, place, invalid, growth, options, new, last,
    reward, discount, value, logits,
):  # fmt: skip
    """Back up node ``new`` (0: nothing yet) in all rows and, unless ``last``, select again.

    ``leaf [2, B]`` is the node and action to expand, ``place [B]`` the node's place in a pool of
    N × B embeddings. Returns row · 4 + code of the first row that gave no numbers, else -1.
    """
    if new > 0:
        failed = back_up(
            new, nodes_i, nodes_f, edges_i, edges_f, bounds, options[0] == TREE, leaf, reward,
            discount, value, logits,
        )  # fmt: skip
        if failed >= 0:
            return failed
    if not last:
        select_puct(
            nodes_i, nodes_f, edges_i, edges_f, bounds, leaf, place, invalid, growth, options
        )  # fmt: skip
    return -1


@njit(cache=True, nogil=True)
def step_gumbel(
    nodes_i, nodes_f, edges_i, edges_f, bounds, leaf, place, invalid, gumbel, logits0, schedule,
    work, options, new, last, reward, discount, value, logits,
):  # fmt: skip
    """As `step_puct`, for Gumbel MuZero."""
    if new > 0:
        failed = back_up(
            new, nodes_i, nodes_f, edges_i, edges_f, bounds, False, leaf, reward, discount, value,
            logits,
        )  # fmt: skip
        if failed >= 0:
            return failed
    if not last:
        select_gumbel(
            nodes_f, edges_i, edges_f, leaf, place, invalid, gumbel, logits0, schedule, work,
            options,
        )  # fmt: skip
    return -1
