"""The built-in trainer: classification of (X, y), for one network or for many side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmxx.sparsity._common import Alone, Team
from mmxx.sparsity.lottery.replicas import Replicas
from mmxx.sparsity.lottery.training import Training

_EVALUATED_AT_ONCE = 1024


@dataclass(frozen=True, eq=False)
class Supervised:
    """Trains a classifier by cross-entropy; a ``train_fn`` for `LotteryTicket`.

    Args:
        X: Inputs [N, ...]; for `Replicas` also [E, N, ...], data of its own for each network.
        y: Classes [N], int64 from 0; or [E, N].
        X_test: Inputs of the test, or None.
        y_test: Their classes.
        epochs: Passes over the data.
        batch_size: Samples in a batch.
        lr: Learning rate.
        milestones: Epochs after which the learning rate falls to a tenth.
        optimizer: Called with the parameters and the learning rate; by default Adam.
        team: Processes that share each batch, and then end with the same weights; by default
            this one alone. Batch normalisation sees the part of its process.

    Returns:
        When called, metrics: ``loss``, the mean training loss of the last epoch; with a test set
        ``accuracy``, in per cent, ``curve``, the accuracy at the end of each epoch, ``epochs``,
        their numbers from 1, and ``stop``, the one with the least test loss, where early stopping
        would end. Of `Replicas`, tensors with an entry (a column) for each network.

    Raises:
        ValueError: Lengths differ, a class is negative, or a number is out of range.

    Example:
        >>> from mmxx.sparsity.lottery import LotteryTicket
        >>> X, y = torch.randn(90, 4), torch.arange(90) % 3
        >>> train = Supervised(X, y, X, y, epochs=2)
        >>> lottery = LotteryTicket(nn.Linear(4, 3), train, levels=0, random_state=0).run()
        >>> lottery.tickets[0].metrics["epochs"]
        [1, 2]
    """

    X: Tensor
    y: Tensor
    X_test: Tensor | None = None
    y_test: Tensor | None = None
    epochs: int = 15
    batch_size: int = 60
    lr: float = 1.2e-3
    milestones: Sequence[int] = ()
    optimizer: Callable[[Iterable[Tensor], float], torch.optim.Optimizer] | None = None
    team: Team | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if (self.X_test is None) != (self.y_test is None):
            raise ValueError("X_test and y_test must be given together")
        for name, x, y in (("", self.X, self.y), ("_test", self.X_test, self.y_test)):
            if x is None or y is None:
                continue
            if y.ndim != self.y.ndim or y.ndim not in (1, 2) or x.shape[: y.ndim] != y.shape:
                raise ValueError(
                    f"X{name} and y{name} must be [N, ...] and [N], or [E, N, ...] and [E, N], got "
                    f"{tuple(x.shape)} and {tuple(y.shape)}"
                )
            if not y.numel():
                raise ValueError(f"X{name} and y{name} must hold a sample or more")
        if self.y.dtype != torch.int64 or int(self.y.min()) < 0:
            raise ValueError(f"y must hold classes, int64 from 0 on, got {self.y.dtype}")

    def __call__(self, model: nn.Module, state: Training, start_step: int) -> dict[str, Any]:
        """Train in place from ``start_step`` on; see `Training` for ``state``."""
        count = self.y.shape[-1]
        replicas = self._replicas(model)
        per_epoch = count // min(self.batch_size, count)
        make = self.optimizer or _adam
        optimizer = make(model.parameters(), self.lr)
        drops = [epoch * per_epoch for epoch in self.milestones]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, gamma=0.1)
        curve: list[Tensor] = []
        test_losses: list[Tensor] = []
        epochs: list[int] = []
        home = next(model.parameters()).device
        team = self.team or Alone()
        shared, update = team.distribute(model, optimizer)
        device = next(model.parameters()).device
        total, seen = torch.zeros(replicas or 1), 0
        model.train()
        steps = state.steps(self.epochs * per_epoch, optimizer=optimizer, schedule=schedule)
        for step in steps:
            chosen = state.batch(step, count, self.batch_size, replicas=replicas)
            chosen = team.part(chosen.movedim(-1, 0)).movedim(0, -1)
            each = (torch.arange(replicas or 1)[:, None], chosen) if self.y.ndim == 2 else chosen
            losses = self._losses(shared(self.X[each].to(device)), self.y[each].to(device))
            optimizer.zero_grad()
            losses.sum().backward()
            update.step()
            schedule.step()
            total, seen = total + losses.detach().cpu(), seen + 1
            if (step + 1) % per_epoch == 0:
                epochs.append((step + 1) // per_epoch)
                if epochs[-1] < self.epochs:
                    total, seen = torch.zeros(replicas or 1), 0
                if self.X_test is not None:
                    right, test_loss = self._tested(model)
                    curve.append(right)
                    test_losses.append(test_loss)
        model.to(home)
        loss = [team.mean(mine) for mine in total / seen]
        metrics: dict[str, Any] = {"loss": total.new_tensor(loss), "epochs": epochs}
        if curve:
            stop = torch.tensor(epochs)[torch.stack(test_losses).argmin(0)]
            metrics.update(accuracy=curve[-1], curve=torch.stack(curve), stop=stop)
        if replicas is None:
            metrics["loss"] = metrics["loss"].item()
            if curve:
                metrics.update(
                    accuracy=curve[-1].item(),
                    curve=metrics["curve"][:, 0].tolist(),
                    stop=metrics["stop"].item(),
                )
        return metrics

    @staticmethod
    def _losses(logits: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of each network, [1] or [E]."""
        flat = logits.reshape(-1, logits.shape[-1])
        each = nn.functional.cross_entropy(flat, labels.reshape(-1), reduction="none")
        return each.view(*labels.shape[:-1], -1).mean(-1).reshape(-1)

    def accuracy(self, model: nn.Module) -> Tensor:
        """Per cent right on the test set, [1], or [E] of `Replicas`.

        Raises:
            ValueError: There is no test set.
        """
        return self._tested(model)[0]

    @torch.no_grad()
    def _tested(self, model: nn.Module) -> tuple[Tensor, Tensor]:
        """Per cent right and mean cross-entropy on the test set, [1] or [E]."""
        if self.X_test is None or self.y_test is None:
            raise ValueError("X_test and y_test must be given for an accuracy")
        replicas = self._replicas(model)
        device = next(model.parameters()).device
        was_training = model.training
        model.eval()
        right = torch.zeros(replicas or 1, dtype=torch.int64)
        total = torch.zeros(replicas or 1, dtype=torch.float64)
        axis = self.y_test.ndim - 1  # that of the samples
        parts = zip(
            self.X_test.split(_EVALUATED_AT_ONCE, axis),
            self.y_test.split(_EVALUATED_AT_ONCE, axis),
            strict=True,
        )
        for x, y in parts:
            if replicas and axis == 0:
                x, y = x.expand(replicas, *x.shape), y.expand(replicas, *y.shape)
            x, y = x.to(device), y.to(device)
            logits = model(x)
            right += (logits.argmax(-1) == y).view(replicas or 1, -1).sum(1).cpu()
            total += self._losses(logits, y).cpu() * y.shape[-1]
        model.train(was_training)
        count = self.y_test.shape[-1]
        return 100 * right.double() / count, total / count

    def _replicas(self, model: nn.Module) -> int | None:
        """How many networks train at once; None for a plain one."""
        count = model.count if isinstance(model, Replicas) else None
        if self.y.ndim == 2 and len(self.y) != count:
            raise ValueError(
                f"y is [{len(self.y)}, N], data for {len(self.y)} networks, but the model "
                + ("is one network" if count is None else f"has {count}")
            )
        return count


def _adam(parameters: Iterable[Tensor], lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=lr, fused=True)
