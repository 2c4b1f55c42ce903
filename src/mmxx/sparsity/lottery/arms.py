"""What the experiment compares: the sham, and a convolutional network rewound to several steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.sparsity.lottery.barrier import linear_barrier
from mmxx.sparsity.lottery.drawing import redrawn
from mmxx.sparsity.lottery.networks import conv_net
from mmxx.sparsity.lottery.supervised import Supervised
from mmxx.sparsity.lottery.tickets import LotteryTicket
from mmxx.sparsity.lottery.training import Snapshot, at_start


def new_weights(self: LotteryTicket) -> Snapshot:
    """The sham: new random weights where a ticket would be rewound."""
    drawn = redrawn(self.model, self.seed + 7919 * (len(self.tickets) + 1), self.init)
    return at_start(drawn, self.seed)


def control(job: tuple[LotteryTicket, int, str]) -> dict[str, Any]:
    """A control of a fully connected ticket.

    Args:
        job: The tickets, a level, and which control.

    Returns:
        Its ``level``, ``kind`` and ``metrics``.
    """
    lottery, level, kind = job
    ticket = lottery.controls(level, kind)[0]
    return {"level": level, "kind": kind, "metrics": ticket.metrics}


def connected(job: tuple[LotteryTicket, int, str]) -> dict[str, Any]:
    """Two trainings of a fully connected ticket that differ in noise, and the line between them.

    Args:
        job: The tickets, a level, and "ticket", or "shuffle_layer" for the shuffled mask.

    Returns:
        A row: per cent wrong at the ends, at most in between, and the barrier.
    """
    lottery, level, arm = job
    masks, train = lottery.ticket(level).masks, lottery.train_fn
    assert isinstance(train, Supervised)
    if arm != "ticket":
        masks = lottery.shuffled(masks, lottery.seed + level, "layerwise")
    one, other = (lottery.train(masks, noise=lottery.seed + 1000 * k)[0] for k in (1, 2))
    line = linear_barrier(one, other, lambda net: 100 - train.accuracy(net).mean())
    return {
        "weights kept, %": round(100 * masks.density, 2),
        "mask": "ticket's" if arm == "ticket" else "shuffled",
        "at the ends": round((line.losses[0] + line.losses[-1]) / 2, 2),
        "at most": round(max(line.losses), 2),
        "barrier": round(line.height, 2),
    }


def momentum(parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
    """SGD with momentum 0.9 and a weight decay of 1e-4."""
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=1e-4)


def new_statistics(model: nn.Module, X: Tensor) -> None:
    """Set the running statistics of batch normalisation to those of some inputs [N, ...]."""
    layers = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
    model.train()
    with torch.no_grad():
        for part in X.split(256):
            model(part)
    for layer in layers:
        layer.momentum = 0.1


def conv_lotteries(
    item: dict[str, Any], rewinds: Sequence[int], seeds: Iterable[int]
) -> list[LotteryTicket]:
    """Convolutional networks, pruned over all layers: for each rewinding step one of each seed.

    Args:
        item: train and test (each pictures [N, H, W, C] and labels), classes, width, epochs,
            batch, lr, rate, levels, and team (of processes, or None).
        rewinds: Steps to rewind to.
        seeds: Of weights and order of data.
    """
    (X, y), (X_test, y_test) = (
        (torch.from_numpy(x).movedim(-1, 1).contiguous(), torch.from_numpy(labels))
        for x, labels in (item["train"], item["test"])
    )
    train = Supervised(
        X, y, X_test, y_test, epochs=item["epochs"], batch_size=item["batch"], lr=item["lr"],
        milestones=(max(1, item["epochs"] * 3 // 4),), optimizer=momentum,
        team=item["team"],
    )  # fmt: skip
    lotteries = []
    for rewind, seed in product(rewinds, seeds):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = conv_net(X.shape[1], item["width"], item["classes"])
        lotteries.append(
            LotteryTicket(
                model, train, rate=item["rate"], scope="global", rewind=rewind,
                levels=item["levels"], random_state=seed,
            )
        )  # fmt: skip
    return lotteries


def checked(job: tuple[LotteryTicket, int]) -> dict[str, Any]:
    """What a convolutional network's ticket is worth.

    Args:
        job: The tickets, and a level.

    Returns:
        ``reinit``, the accuracy with new weights, in per cent, and ``barrier``, in points of
        error, between two trainings of the ticket with different noise.
    """
    lottery, level = job
    train = lottery.train_fn
    assert isinstance(train, Supervised)
    reinit = lottery.controls(level, "reinit")[0].metrics["accuracy"]
    masks = lottery.ticket(level).masks
    one, other = (lottery.train(masks, noise=lottery.seed + 1000 * k)[0] for k in (1, 2))
    line = linear_barrier(
        one, other, lambda net: 100 - train.accuracy(net).item(),
        prepare=partial(new_statistics, X=train.X),
    )  # fmt: skip
    return {"reinit": reinit, "barrier": line.height}
