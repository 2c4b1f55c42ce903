"""One training: where it begins, what it leaves at the rewinding step, and in which order."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.sparsity._common import Masks
from mmxx.sparsity.lottery.holding import hold, mask_state, moved


class Snapshot(NamedTuple):
    """Everything from which a training goes on.

    Attributes:
        step: How many steps lie behind.
        model: The state of the network, running statistics included.
        tracked: The states of what the train function named in `Training.steps`, by name.
        rng: The state of torch's default generator on the CPU.
    """

    step: int
    model: dict[str, Tensor]
    tracked: dict[str, Any]
    rng: Tensor


class TrainFunction(Protocol):
    """What trains a network: ``train_fn(model, state, start_step) -> metrics``."""

    def __call__(self, model: nn.Module, state: Training, start_step: int) -> Mapping[str, Any]:
        """Train the network in place and say how well it does."""
        ...


class Training:
    """What a train function gets beside the network: its steps and the order of its data.

    Attributes:
        seed: Of the order of the data, the same for all levels and arms.
        start: The step to begin at.

    Example:
        >>> def train(model, state, start_step):
        ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ...     for step in state.steps(100, optimizer=optimizer):
        ...         chosen = state.batch(step, count=len(X), size=60)
        ...         loss = nn.functional.cross_entropy(model(X[chosen]), y[chosen])
        ...         optimizer.zero_grad()
        ...         loss.backward()
        ...         optimizer.step()
        ...     return {"loss": loss.item()}
    """

    def __init__(
        self,
        model: nn.Module,
        begin: Snapshot,
        held: Mapping[Tensor, Tensor],
        seed: int,
        save_at: int,
    ) -> None:
        self.seed = seed
        self.start = begin.step
        self.saved: Snapshot | None = None
        self._model = model
        self._begin = begin
        self._held = dict(held)
        self._save_at = save_at
        self._orders: dict[int, tuple[int, Tensor]] = {}

    def steps(self, total: int, **tracked: Any) -> Iterator[int]:
        """The steps that are to do, from the rewinding step (or 0) to ``total`` - 1.

        Args:
            total: Steps of a whole training.
            **tracked: What the training changes beside the network: optimizers, schedulers,
                generators. Before the first step it is brought to the state that it had at the
                rewinding step, with the momentum of dropped weights set to 0.

        Raises:
            ValueError: The training is no longer than the rewinding step, or other things are
                tracked than when the state was saved.
            TypeError: Something tracked has no state that can be saved.
        """
        if total <= max(self.start, self._save_at):
            raise ValueError(
                f"a training of {total} steps cannot be rewound to step "
                f"{max(self.start, self._save_at)}: it must be longer"
            )
        if self.start:
            if tracked.keys() != self._begin.tracked.keys():
                raise ValueError(
                    f"the training tracks {sorted(tracked)}, but the state to rewind to has "
                    f"{sorted(self._begin.tracked)}"
                )
            for name, thing in tracked.items():
                _restore(thing, self._begin.tracked[name])
                if isinstance(thing, torch.optim.Optimizer):
                    mask_state(thing, self._held)
        for step in range(self.start, total):
            if step == self._save_at and step > self.start:
                states = {name: _capture(name, thing) for name, thing in tracked.items()}
                self.saved = Snapshot(step, _clone(self._model), states, torch.get_rng_state())
            yield step

    def batch(self, step: int, count: int, size: int, *, replicas: int | None = None) -> Tensor:
        """The places of a step's batch, a pure function of the seed and the step.

        Each epoch is a new order of all places; places that do not fill a batch are left out.

        Args:
            step: The step.
            count: Number of samples.
            size: Samples in a batch; all of them where there are fewer.
            replicas: Number of networks that train at once, each with an order of its own.

        Returns:
            int64 [size], or [replicas, size].
        """
        size = min(size, count)
        epoch, place = divmod(step, count // size)
        rows = []
        for replica in range(replicas or 1):
            kept = self._orders.get(replica)
            if kept is None or kept[0] != epoch or len(kept[1]) != count:
                mixed = np.random.SeedSequence([self.seed + replica, epoch]).generate_state(1)
                order = torch.randperm(
                    count, generator=torch.Generator().manual_seed(int(mixed[0]))
                )
                kept = self._orders[replica] = (epoch, order)
            rows.append(kept[1][place * size : (place + 1) * size])
        return torch.stack(rows) if replicas is not None else rows[0]


@dataclass
class Job:
    """One network to train: what a worker gets.

    Attributes:
        model: The network; it is trained in place.
        train_fn: What trains it.
        masks: What is kept.
        begin: Where the training begins.
        seed: Of the order of the data.
        save_at: The step to save on the way; 0 for none.
        metrics: What ``train_fn`` returned.
        saved: What was saved on the way.
    """

    model: nn.Module
    train_fn: TrainFunction
    masks: Masks
    begin: Snapshot
    seed: int
    save_at: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    saved: Snapshot | None = None

    def run(self) -> None:
        """Train. torch's default generator is given back.

        Raises:
            RuntimeError: A dropped weight has moved, or the step to save was never reached.
        """
        device = next((p.device for p in self.model.parameters()), torch.device("cpu"))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            if device.type == "cuda":  # its generator begins anew, at a place that step decides
                torch.cuda.manual_seed(self.seed + self.begin.step)
            torch.set_rng_state(self.begin.rng)
            self.model.load_state_dict(self.begin.model)
            with hold(self.model, self.masks) as held:
                state = Training(self.model, self.begin, held, self.seed, self.save_at)
                self.metrics = dict(self.train_fn(self.model, state, self.begin.step))
        if wrong := moved(self.model, self.masks):
            raise RuntimeError(
                f"train_fn has moved dropped weights of {', '.join(wrong)}: it must not write to "
                "weights by any other way than an optimizer's step"
            )
        if self.save_at and state.saved is None:
            raise RuntimeError(
                f"train_fn never came to step {self.save_at} of state.steps(...), which the "
                "tickets are to be rewound to"
            )
        self.saved = state.saved


def run_job(job: Job) -> Job:
    """Train a job where it is, for `map`."""
    job.run()
    return job


def at_start(model: nn.Module, seed: int) -> Snapshot:
    """The snapshot of a network that has not been trained."""
    return Snapshot(0, _clone(model), {}, torch.Generator().manual_seed(seed).get_state())


def _clone(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _capture(name: str, thing: Any) -> Any:
    if hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict"):
        return copy.deepcopy(thing.state_dict())
    if isinstance(thing, torch.Generator):
        return thing.get_state()
    if isinstance(thing, np.random.Generator):
        return copy.deepcopy(thing.bit_generator.state)
    raise TypeError(
        f"{name} must have state_dict and load_state_dict, or be a generator of torch or numpy, "
        f"got {type(thing).__name__}"
    )


def _restore(thing: Any, state: Any) -> None:
    if isinstance(thing, torch.Generator):
        thing.set_state(state)
    elif isinstance(thing, np.random.Generator):
        thing.bit_generator.state = copy.deepcopy(state)
    else:
        thing.load_state_dict(copy.deepcopy(state))
