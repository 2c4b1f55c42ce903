"""Iterative magnitude pruning with rewinding: train, prune, rewind, again."""

from __future__ import annotations

import builtins
import copy
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from mmxx.sparsity._common import Masks, prunable
from mmxx.sparsity.lottery import storage
from mmxx.sparsity.lottery.drawing import redrawn, with_signs
from mmxx.sparsity.lottery.pruning import (
    Criterion,
    Scope,
    check_rate,
    magnitude,
    output_layer,
    prune,
)
from mmxx.sparsity.lottery.replicas import Replicas
from mmxx.sparsity.lottery.training import Job, Snapshot, TrainFunction, at_start, run_job

CONTROLS = ("reinit", "shuffle_layer", "shuffle_global", "sign")


@dataclass
class Ticket:
    """A network within a mask, and how well it trained.

    Attributes:
        level: How often was pruned.
        masks: What is kept.
        metrics: What the train function returned.
        kind: "ticket", or the name of a control.
        density: Share of the prunable weights that is kept.
    """

    level: int
    masks: Masks
    metrics: dict[str, Any]
    kind: str = "ticket"
    _begin: Snapshot = field(repr=False, kw_only=True)
    _network: nn.Module = field(repr=False, kw_only=True)

    @property
    def density(self) -> float:
        """Share of the prunable weights that is kept."""
        return self.masks.density

    def model(self) -> nn.Module:
        """The sparse network as its training begins: the weights to rewind to, masked."""
        network = copy.deepcopy(self._network)
        network.load_state_dict(self._begin.model)
        self.masks.apply(network)
        return network


class LotteryTicket:
    """Find small networks inside a network that train as well as the whole.

    Each level trains from the rewinding step to the end, drops the weights of least magnitude, and
    sets the others back to what they were at the rewinding step; optimizer, schedule, running
    statistics and random numbers go back too. Level 0 is the whole network. All levels and
    controls see the data in the same order.

    Args:
        model: The network at its initialisation, or `Replicas` of it; it is not changed.
        train_fn: ``train_fn(model, state, start_step) -> metrics`` trains the network in place,
            with the steps and batches of its `Training` state; or a `Supervised` trainer.
        rate: Share of the remaining weights that each level drops.
        output_rate: That of the last layer, where each layer is pruned on its own.
        scope: "layer": each layer loses its share; "global": all layers together.
        rewind: The step to rewind to; 0 is the initialisation.
        levels: How often `run` prunes.
        prunable: Names of the parameters to prune; by default the weights of all linear and
            convolutional layers. Densities count these only.
        criterion: "magnitude", "random", or a function of the trained network and its masks that
            scores each weight; the smallest magnitudes of the scores are dropped.
        min_per_unit: Weights that every output unit keeps.
        init: Initialises a network in place, for the controls with new weights; by default the
            ``reset_parameters`` of its layers.
        random_state: Seed of data order and controls; by default from torch's default generator.

    Attributes:
        tickets: The `Ticket` of each level so far.
        trained: The network as the last level has trained it, or None.
        seed: The seed.

    Raises:
        ValueError: An argument is out of range, names no parameter, or the network has lazy
            layers that have not seen data.

    Source: Frankle and Carbin (2019), section 1; rewinding: Frankle, Dziugaite, Roy and Carbin
    (2020), algorithm 2.

    Example:
        >>> from mmxx.sparsity.lottery import Supervised
        >>> X, y = torch.randn(120, 4), torch.arange(120) % 3
        >>> net = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 3))
        >>> lottery = LotteryTicket(net, Supervised(X, y, epochs=1), levels=2, random_state=0)
        >>> [round(ticket.density, 2) for ticket in lottery.run().tickets]
        [1.0, 0.84, 0.71]
    """

    def __init__(
        self,
        model: nn.Module,
        train_fn: TrainFunction,
        *,
        rate: float = 0.2,
        output_rate: float = 0.1,
        scope: Scope = "layer",
        rewind: int = 0,
        levels: int = 12,
        prunable: Iterable[str] | None = None,
        criterion: Literal["magnitude", "random"] | Criterion = "magnitude",
        min_per_unit: int = 0,
        init: Callable[[nn.Module], Any] | None = None,
        random_state: int | None = None,
    ) -> None:
        if not callable(train_fn):
            raise ValueError(f"train_fn must be callable, got {type(train_fn).__name__}")
        for name, share in (("rate", rate), ("output_rate", output_rate)):
            check_rate(name, share)
        if scope not in ("layer", "global"):
            raise ValueError(f"scope must be 'layer' or 'global', got {scope!r}")
        for name, count in (("rewind", rewind), ("levels", levels), ("min_per_unit", min_per_unit)):
            if not isinstance(count, int) or count < 0:
                raise ValueError(f"{name} must be a whole number, 0 or more, got {count!r}")
        if not callable(criterion) and criterion not in ("magnitude", "random"):
            raise ValueError(
                f"criterion must be 'magnitude', 'random' or a function, got {criterion!r}"
            )
        self.names = _names(model, prunable)
        self.model = model
        self.train_fn = train_fn
        self.rate = rate
        self.output_rate = output_rate
        self.scope: Scope = scope
        self.rewind = rewind
        self.levels = levels
        self.criterion = criterion
        self.min_per_unit = min_per_unit
        self.init = init
        if random_state is None:
            random_state = int(torch.randint(2**31, ()))
        self.seed = random_state
        self.tickets: list[Ticket] = []
        self.trained: nn.Module | None = None
        self._start = at_start(model, self.seed)
        self._rewound: Snapshot | None = None if rewind else self._start

    # -- the levels ------------------------------------------------------------------------

    def run(self, folder: str | PathLike[str] | None = None) -> LotteryTicket:
        """Train and prune until there are tickets of all levels.

        Args:
            folder: Where to keep each level, a folder ``level-…`` with ``masks.safetensors`` and
                more. Levels that are there are read, not trained; killed and run again, it ends
                with the same bits.

        Returns:
            Itself.

        Raises:
            ValueError: What the folder holds belongs to another network or is damaged.
        """
        if folder is not None and not self.tickets:
            self.load(folder)
        while len(self.tickets) <= self.levels:
            self.step()
            if folder is not None:
                storage.save(folder, len(self.tickets) - 1, self.state_dict())
        return self

    def step(self) -> Ticket:
        """Prune what was trained last (not at level 0), rewind, train: the ticket of one level."""
        return advance([self])[0]

    def _next(self) -> Job:
        """The training of the next level."""
        masks = self._pruned() if self.tickets else Masks.ones_like(self.model, self.names)
        job = self._job(masks, self._beginning() if self.tickets else self._start)
        job.save_at = 0 if self.tickets else self.rewind
        return job

    def _take(self, job: Job) -> Ticket:
        """The ticket of the next level, which has been trained."""
        self._rewound = job.saved or self._rewound
        self.trained = job.model
        self.tickets.append(self._ticket(len(self.tickets), "ticket", job))
        return self.tickets[-1]

    def _beginning(self) -> Snapshot:
        """Where every training but the first begins."""
        if self._rewound is None:
            raise ValueError(
                f"the state at step {self.rewind} is not known before level 0 is trained: call "
                "run() or step() first"
            )
        return self._rewound

    def _pruned(self) -> Masks:
        masks, trained = self.tickets[-1].masks, self.trained
        assert trained is not None
        replicas = trained.count if isinstance(trained, Replicas) else None
        if callable(self.criterion):
            scores = self.criterion(trained, masks)
        elif self.criterion == "magnitude":
            scores = magnitude(trained, masks)
        else:
            generator = torch.Generator().manual_seed(self._mixed(len(self.tickets), "random"))
            scores = {n: torch.rand(m.shape, generator=generator) for n, m in masks.items()}
        rate: float | dict[str, float] = self.rate
        if self.scope == "layer":
            last = output_layer(self.model, self.names)
            rate = {name: self.output_rate if name == last else self.rate for name in self.names}
        return prune(
            scores, masks, rate=rate, scope=self.scope, min_per_unit=self.min_per_unit,
            replicas=replicas,
        )  # fmt: skip

    def _job(self, masks: Masks, begin: Snapshot) -> Job:
        return Job(copy.deepcopy(self.model), self.train_fn, masks, begin, self.seed)

    def _ticket(self, level: int, kind: str, job: Job) -> Ticket:
        return Ticket(
            level, job.masks, job.metrics, kind, _begin=self._begin(job), _network=self.model
        )

    def _begin(self, job: Job) -> Snapshot:
        """Where a job began; the dense one passed the step that the others begin at."""
        return self._rewound if job.save_at and self._rewound is not None else job.begin

    def ticket(self, level: int) -> Ticket:
        """The ticket of a level.

        Raises:
            ValueError: It has not been trained yet.
        """
        if not 0 <= level < len(self.tickets):
            raise ValueError(
                f"level must be one of the {len(self.tickets)} that are trained (from 0), "
                f"got {level}"
            )
        return self.tickets[level]

    def train(self, masks: Masks, *, noise: int | None = None) -> tuple[nn.Module, dict[str, Any]]:
        """Train within any masks from the rewinding step, as a level does.

        Args:
            masks: Of a ticket, of `one_shot`, of the user.
            noise: Another seed for the order of the data (and dropout) from there on; by default
                the one of all levels, and then a ticket's training gives the same bits again.

        Returns:
            The trained network, and its metrics.

        Raises:
            ValueError: The masks are for another network, or no level has been trained that
                gives the state to rewind to.
        """
        masks.validate(self.model)
        begin = self._beginning()
        job = self._job(masks, begin)
        if noise is not None:
            job.seed = noise
            job.begin = begin._replace(rng=torch.Generator().manual_seed(noise).get_state())
        job.run()
        return job.model, job.metrics

    # -- the controls ----------------------------------------------------------------------

    def controls(
        self, levels: int | Iterable[int], *kinds: str, map: Callable[..., Any] = builtins.map
    ) -> list[Ticket]:
        """Train what should do worse than the tickets of some levels.

        Args:
            levels: One level or several.
            *kinds: "reinit": the same mask, new weights, trained from step 0. "sign": alike, but
                each new weight has the sign that it had at first. "shuffle_layer": the weights
                of the ticket's beginning, each layer's mask shuffled. "shuffle_global": shuffled
                over all layers.
            map: What to spread the trainings with, called as ``map(fn, items)``.

        Returns:
            A `Ticket` for each level and kind, levels first.

        Raises:
            ValueError: A kind is unknown or none is given, or a level has not been trained.
        """
        wanted = [levels] if isinstance(levels, int) else list(levels)
        unknown = [kind for kind in kinds if kind not in CONTROLS]
        if unknown or not kinds:
            found = ", ".join(repr(kind) for kind in unknown) if kinds else "none"
            raise ValueError(f"kinds must be some of {', '.join(CONTROLS)}, got {found}")
        pairs = [(self.ticket(level).level, kind) for level in wanted for kind in kinds]
        jobs = [self._control(level, kind) for level, kind in pairs]
        done = map(run_job, jobs)
        return [
            self._ticket(level, kind, job) for (level, kind), job in zip(pairs, done, strict=True)
        ]

    def _control(self, level: int, kind: str) -> Job:
        masks, begin = self.tickets[level].masks, self._beginning()
        seed = self._mixed(level, kind)
        if kind.startswith("shuffle"):
            mode = "layerwise" if kind == "shuffle_layer" else "global"
            return self._job(self.shuffled(masks, seed, mode), begin)
        drawn = redrawn(self.model, seed, self.init)
        if kind == "sign":
            with_signs(drawn, self._start.model, self.names)
        return self._job(masks, at_start(drawn, self.seed))

    def shuffled(self, masks: Masks, seed: int, mode: str = "layerwise") -> Masks:
        """As `Masks.randomise`; of `Replicas`, each network's masks on their own."""
        if not isinstance(self.model, Replicas):
            return masks.randomise(seed, mode)
        rows = [
            self.model.masks_alone(masks, index).randomise(seed + index, mode)
            for index in range(self.model.count)
        ]
        return Masks({f"net.{name}": torch.stack([row[name] for row in rows]) for name in rows[0]})

    def _mixed(self, level: int, word: str) -> int:
        """A seed of its own for a draw of that name."""
        mixed = np.random.SeedSequence([self.seed, level, zlib.crc32(word.encode())])
        return int(mixed.generate_state(1)[0])

    # -- keeping ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tickets, the state to rewind to and the last trained weights, as a tree."""
        return {
            "settings": self._settings(),
            "start": self._start._asdict(),
            "rewound": None if self._rewound is None else self._rewound._asdict(),
            "trained": None if self.trained is None else dict(self.trained.state_dict()),
            "tickets": [
                {"masks": dict(ticket.masks), "metrics": ticket.metrics} for ticket in self.tickets
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another `LotteryTicket` of the same network stood.

        Rates, scope and the like are this one's own: they may differ from now on.

        Raises:
            ValueError: The state is of another network, or rewound to another step.
        """
        masks = [Masks(ticket["masks"]) for ticket in state["tickets"]]
        for mask in masks[:1]:
            _same_network(mask, Masks.ones_like(self.model, self.names))
        if state["settings"]["rewind"] != self.rewind:
            raise ValueError(
                f"rewind is {self.rewind}, but the levels were rewound to step "
                f"{state['settings']['rewind']}"
            )
        self.seed = state["settings"]["seed"]
        self._start = Snapshot(**state["start"])
        self._rewound = None if state["rewound"] is None else Snapshot(**state["rewound"])
        self.trained = None
        if state["trained"] is not None:
            self.trained = copy.deepcopy(self.model)
            self.trained.load_state_dict(state["trained"])
        begin = self._rewound or self._start
        self.tickets = [
            Ticket(level, mask, dict(ticket["metrics"]), _begin=begin, _network=self.model)
            for level, (mask, ticket) in enumerate(zip(masks, state["tickets"], strict=True))
        ]

    def load(self, folder: str | PathLike[str], level: int | None = None) -> LotteryTicket:
        """Read the levels that `run` has kept in a folder.

        Args:
            folder: The folder; where it holds no level, nothing happens.
            level: The last level to read, from which `run` then goes on; by default all.

        Returns:
            Itself.

        Raises:
            ValueError: They are of another network, damaged, or the level is not there.
        """
        state = storage.load(folder, level)
        if state is not None:
            self.load_state_dict(state)
        return self

    def _settings(self) -> dict[str, Any]:
        return {"rewind": self.rewind, "seed": self.seed}


def advance(
    lotteries: Sequence[LotteryTicket], map: Callable[..., Any] = builtins.map
) -> list[Ticket]:
    """The next level of several lotteries, which do not wait for one another.

    Args:
        lotteries: Of other seeds, networks or rewinding steps.
        map: What to spread the trainings with, called as ``map(fn, items)``.

    Returns:
        The new ticket of each.
    """
    done = map(run_job, [lottery._next() for lottery in lotteries])
    return [lottery._take(job) for lottery, job in zip(lotteries, done, strict=True)]


def _names(model: nn.Module, wanted: Iterable[str] | None) -> list[str]:
    """The parameters to prune, checked: there, initialised, each once."""
    lazy = [n for n, p in model.named_parameters() if isinstance(p, nn.UninitializedParameter)]
    if lazy:
        raise ValueError(
            f"the model has lazy parameters without a shape ({', '.join(lazy)}): send a batch "
            "through it first"
        )
    names = list(prunable(model)) if wanted is None else list(dict.fromkeys(wanted))
    if not names:
        raise ValueError(
            "there is nothing to prune: the model has no linear or convolutional layer"
        )
    Masks.ones_like(model, names)  # names those that are not there
    if bad := [n for n, p in model.named_parameters() if n in names and p.isnan().any()]:
        raise ValueError(f"the model's weights hold NaN: {', '.join(bad)}")
    return names


def _same_network(masks: Masks, ours: Masks) -> None:
    wrong = [f"{name} is missing" for name in ours if name not in masks]
    wrong += [f"{name} is not one of ours" for name in masks if name not in ours]
    wrong += [
        f"{name} has shape {tuple(masks[name].shape)}, ours {tuple(mask.shape)}"
        for name, mask in ours.items()
        if name in masks and masks[name].shape != mask.shape
    ]
    if wrong:
        raise ValueError("the levels are of another network: " + "; ".join(wrong))
