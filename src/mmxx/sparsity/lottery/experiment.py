"""Do lottery tickets train as well as the whole network, and better than with new weights?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from mmxx.lab.run import Run
    from mmxx.sparsity.lottery.tickets import LotteryTicket

_ARMS = {"ticket": "ticket", "reinit": "new weights", "shuffle_layer": "shuffled mask"}
# claims about one density: the share of weights that is kept, and the level's may differ so much
_DENSITIES = {0.139: ("matches-dense", "beats-new-weights", "learns-faster"),
              0.039: ("small-ticket",), 0.021: ("smallest-ticket",)}  # fmt: skip
_NEAR = 0.05  # relative
_CONV_BATCH = 64


@dataclass(frozen=True)
class Config:
    """Find tickets by iterative magnitude pruning, and train them beside the controls."""

    net: Literal["lenet", "conv", "both"] = "lenet"
    """Fully connected on digits, convolutional on patches of photographs, or both."""
    hidden: tuple[int, ...] = (300, 100)
    """Widths of the hidden layers of the fully connected network."""
    levels: int = 10
    """How often the fully connected network is pruned."""
    rate: float = 0.2
    """Share of the remaining weights that each level drops in each layer."""
    output_rate: float = 0.1
    """That of the last layer."""
    rewind: int = 0
    """The step that the fully connected network is rewound to."""
    seeds: int = 3
    """Fully connected networks that are trained side by side."""
    epochs: int = 15
    """Epochs of each training of the fully connected network."""
    early: int = 5
    """The epoch at which to see who learns faster."""
    batch: int = 60
    """Samples in a batch."""
    lr: float = 1.2e-3
    """Learning rate of Adam."""
    control_every: int = 3
    """Levels from one that the controls are trained at to the next."""
    conv_rewinds: tuple[int, ...] = (0, 50)
    """The steps that the convolutional network is rewound to, side by side."""
    conv_levels: int = 6
    """How often the convolutional network is pruned, over all its layers."""
    conv_rate: float = 0.36
    """Share of the remaining weights that each of its levels drops: two levels of 0.2 in one."""
    conv_seeds: int = 2
    """Seeds of the convolutional network."""
    conv_epochs: int = 8
    """Epochs of each of its trainings; the learning rate falls to a tenth at 75 %."""
    conv_lr: float = 0.1
    """Its first learning rate, of SGD with momentum."""
    conv_width: int = 16
    """Channels of its first two convolutions."""
    conv_checked: int = 3
    """Levels from one at which new weights are trained and the barrier is measured to the next."""
    per_class: tuple[int, int] = (100, 50)
    """Training and test patches of each of the 16 photographs."""
    barriers: bool = False
    """Measure the barrier between two trainings of the fully connected tickets too."""
    data: Path | None = None
    """Labelled pictures: an IDX file (MNIST), an .npz file, a folder with a sub-folder a class."""
    size: int | None = None
    """Side to bring the pictures of --data to; by default they stay as they are."""

    def __post_init__(self) -> None:
        for name in ("rate", "output_rate", "conv_rate"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0 and below 1, got {getattr(self, name)}")
        for name, value in vars(self).items():
            least = 0 if name in ("rewind", "levels", "conv_levels", "conv_rewinds") else 1e-12
            for part in value if isinstance(value, tuple) else (value,):
                if type(part) in (int, float) and part < least:
                    wanted = "0 or more" if least == 0 else "above 0"
                    raise ValueError(f"{name} must be {wanted}, got {value}")
        if not self.hidden or not self.conv_rewinds:
            raise ValueError("hidden and conv_rewinds must hold one number or more")
        if self.early > self.epochs:
            raise ValueError(f"early must be at most epochs ({self.epochs}), got {self.early}")


TINY = Config(
    net="both", hidden=(12, 8), levels=2, seeds=2, epochs=1, early=1, control_every=1,
    conv_rewinds=(0, 1), conv_levels=1, conv_seeds=1, conv_epochs=1, conv_width=2, conv_checked=1,
    per_class=(8, 2), barriers=True,
)  # fmt: skip
QUICK = Config()
FULL = Config(net="both", levels=20, seeds=5, control_every=1, barriers=True)


def run(config: Config, run: Run) -> None:
    """Measure the networks that were asked for, on the user's pictures where there are any."""
    from mmxx.data import load

    data: Any = None
    if config.data is not None:
        data = load(config.data, kinds=("images",), size=config.size)
        run.source(data.source)
        if data.labels is None or len(data.classes or ()) < 2 or len(data) < 10:
            raise ValueError(
                "data: 10 pictures or more with labels of 2 classes or more are needed"
            )
    if config.net in ("lenet", "both"):
        _lenet(config, run, data)
    else:
        for claim in run.card.claims:
            run.not_measured(claim.id, "the fully connected network was not asked for")
    if config.net in ("conv", "both"):
        _conv(config, run, data)


@contextmanager
def sham() -> Iterator[None]:
    """New random weights where a ticket would be rewound to its first ones."""
    from mmxx.sparsity.lottery import arms, tickets

    real = tickets.LotteryTicket._beginning
    tickets.LotteryTicket._beginning = arms.new_weights
    try:
        yield
    finally:
        tickets.LotteryTicket._beginning = real


# -- a fully connected network -----------------------------------------------------------------


def _lenet(config: Config, run: Run, data: Any) -> None:
    from mmxx.lab.compute import one_thread
    from mmxx.sparsity.lottery import LotteryTicket, Replicas, fully_connected

    train, shape = _trainer(config, run, data)
    classes = int(train.y.max()) + 1
    widths = (train.X.shape[-1], *config.hidden, classes)
    seeds = range(run.seed, run.seed + config.seeds)
    lottery = LotteryTicket(
        Replicas(lambda: fully_connected(widths), seeds), train, rate=config.rate,
        output_rate=config.output_rate, rewind=config.rewind, levels=config.levels,
        random_state=run.seed,
    )  # fmt: skip
    loop = run.loop("levels", config.levels + 1, state={"lottery": lottery}, every=1)
    for level in loop:
        with one_thread():  # layers so small gain nothing from more, and all runs have equal bits
            ticket = lottery.step()
        loss, accuracy = (float(ticket.metrics[key].mean()) for key in ("loss", "accuracy"))
        run.log(level, density=ticket.density, loss=loss, accuracy=accuracy)
        run.check_finite(level, loss=loss)
    if loop.diverged:
        return
    found = _controls(config, run, lottery)
    _judge(config, run, lottery, found, list(seeds))
    _show(config, run, lottery, found, shape)
    if config.barriers:
        _barriers(config, run, lottery)


def _trainer(config: Config, run: Run, data: Any) -> tuple[Any, tuple[int, int]]:
    """The trainer, which holds out another third for each network; and the pictures' shape."""
    import numpy as np
    import torch

    from mmxx.data import digits
    from mmxx.sparsity.lottery import Supervised

    if data is None:
        parts = digits()
        run.source(parts[0].source)
        pictures = np.concatenate([part.images for part in parts])
        labels = np.concatenate([part.labels for part in parts if part.labels is not None])
    else:
        pictures, labels = data.as_float(), data.labels
    cut = round(len(pictures) * 1200 / 1797)
    orders = [run.rng(f"split-{k}").permutation(len(pictures)) for k in range(config.seeds)]
    flat, classes = torch.from_numpy(pictures.reshape(len(pictures), -1)), torch.from_numpy(labels)
    training, test = (
        torch.from_numpy(np.stack(part))
        for part in ([o[:cut] for o in orders], [o[cut:] for o in orders])
    )
    train = Supervised(
        flat[training], classes[training], flat[test], classes[test], epochs=config.epochs,
        batch_size=config.batch, lr=config.lr, team=run if run.together else None,
    )  # fmt: skip
    return train, pictures.shape[1:3]


def _controls(config: Config, run: Run, lottery: LotteryTicket) -> dict[tuple[int, str], Any]:
    """The metrics of every training, by level and arm."""

    from mmxx.sparsity.lottery import arms

    levels = range(config.control_every, config.levels + 1, config.control_every)
    jobs = [(lottery, level, kind) for level in levels for kind in list(_ARMS)[1:]]
    found = {(t.level, "ticket"): t.metrics for t in lottery.tickets}
    done = run.each("controls", arms.control, jobs)
    return found | {(t["level"], t["kind"]): t["metrics"] for t in done}


def _judge(
    config: Config,
    run: Run,
    lottery: LotteryTicket,
    found: Mapping[tuple[int, str], Any],
    seeds: list[int],
) -> None:
    """Measure each claim at the level whose density is that of the claim."""
    tickets = lottery.tickets

    def mean(level: int, arm: str, *, early: bool = False) -> float:
        metrics = found[level, arm]
        values = metrics["curve"][_row(config, metrics)] if early else metrics["accuracy"]
        return float(values.mean())

    for density, claims in _DENSITIES.items():
        nearest = min(tickets, key=lambda ticket: abs(ticket.density - density))
        level = nearest.level
        there = abs(nearest.density / density - 1) < _NEAR and (level, "reinit") in found
        for claim in claims:
            if not there:
                reason = f"no level with controls keeps {density:.1%} of the weights"
                run.not_measured(claim, reason)
                continue
            early = claim == "learns-faster"
            ours, new, shuffled = (mean(level, arm, early=early) for arm in _ARMS)
            if claim == "matches-dense":
                dense = mean(0, "ticket")
                run.measure(claim, ours - dense, baseline=dense, control=new - dense, seeds=seeds)
            else:
                run.measure(claim, ours - new, baseline=new, control=shuffled - new, seeds=seeds)


def _row(config: Config, metrics: Mapping[str, Any]) -> int:
    """The row of the early epoch in a curve, which after a rewinding lacks the first epochs."""
    epochs = metrics["epochs"]
    return epochs.index(config.early) if config.early in epochs else 0


def _show(
    config: Config,
    run: Run,
    lottery: LotteryTicket,
    found: Mapping[tuple[int, str], Any],
    shape: tuple[int, int],
) -> None:
    from mmxx.lab.report import figures
    from mmxx.sparsity.lottery import Replicas

    densities = [100 * ticket.density for ticket in lottery.tickets]
    rows = []
    for level, density in enumerate(densities):
        row: dict[str, Any] = {"level": level, "weights kept, %": round(density, 2)}
        for arm, label in _ARMS.items():
            metrics = found.get((level, arm))
            row[label] = "" if metrics is None else round(float(metrics["accuracy"].mean()), 2)
            early = "" if metrics is None else metrics["curve"][_row(config, metrics)].mean()
            row[f"{label}, epoch {config.early}"] = early and round(float(early), 2)
            stop = "" if metrics is None else round(float(metrics["stop"].double().mean()), 1)
            row[f"{label}, stop"] = stop
        rows.append(row)
    caption = f"Per cent right on the test pictures, at the end and after epoch {config.early}."
    caption += " New weights stand in the ticket's mask; in a shuffled mask stand the ticket's own."
    caption += " Stop: the epoch of the least test loss, where early stopping would end."
    run.table("levels", rows, f"{caption} Means of {config.seeds} networks.")

    for name, early in (("accuracy", False), ("early", True)):
        series, bands = {}, {}
        for arm, label in _ARMS.items():
            levels = [level for level in range(len(densities)) if (level, arm) in found]
            values = [
                found[n, arm]["curve"][_row(config, found[n, arm])]
                if early
                else found[n, arm]["accuracy"]
                for n in levels
            ]
            x = [densities[level] for level in levels]
            series[label] = (x, [float(v.mean()) for v in values])
            bands[label] = (x, [float(v.min()) for v in values], [float(v.max()) for v in values])
        when = f"after epoch {config.early}" if early else "at the end"
        figure = figures.curves(
            series, bands=bands, logx=True, xlabel="weights kept, %", ylabel="test accuracy, %"
        )
        _falling(figure.axes[0], min(densities))
        run.figure(name, figure, f"Accuracy {when}; the bands span the networks.")

    there = [level for level in range(len(densities)) if (level, "reinit") in found]
    shown = sorted(
        {min(there, key=lambda n: abs(densities[n] - 100 * d)) for d in _DENSITIES if there}
    )[:2]
    lines = {"the whole network": found[0, "ticket"]}
    for level in shown:
        for arm in ("ticket", "reinit"):
            lines[f"{densities[level]:.1f} %, {_ARMS[arm]}"] = found[level, arm]
    curves = {name: (m["epochs"], m["curve"].mean(1).numpy()) for name, m in lines.items()}
    figure = figures.curves(curves, xlabel="epoch", ylabel="test accuracy, %")
    run.figure("learning", figure, "Learning curves of tickets and of new weights in their masks.")

    first = next(iter(lottery.tickets[0].masks))
    pictures = []
    last = len(densities) - 1
    for level in sorted({-(-last // 3), -(-2 * last // 3), last}):
        kept = lottery.tickets[level].masks[first][0].double().mean(0)
        image = kept.view(*shape, -1).mean(2).numpy()
        pictures.append((f"{densities[level]:.1f} %", image / max(image.max(), 1e-12)))
    run.figure(
        "pixels", figures.pictures([pictures]),
        "Share of the weights of each input pixel that is kept in the first network; white is the "
        "most. Pruning finds out which pixels matter.",
    )  # fmt: skip
    nets = lottery.model
    assert isinstance(nets, Replicas)
    for level in shown:
        masks = nets.masks_alone(lottery.tickets[level].masks, 0)
        run.artifact(
            f"masks-level-{level}.safetensors", masks.to_bytes(),
            f"Masks of the first network at level {level}, for Masks.load",
        )  # fmt: skip


def _falling(axes: Any, least: float) -> None:
    """An axis of per cent that falls from left to right, as the papers have it."""
    marks = [mark for mark in (100, 50, 20, 10, 5, 2, 1) if mark >= least]
    axes.set_xticks(marks, [str(mark) for mark in marks])
    axes.set_xticks([], minor=True)
    axes.invert_xaxis()


def _barriers(config: Config, run: Run, lottery: LotteryTicket) -> None:
    """The barrier between two trainings of a ticket with other noise, and of its shuffled mask."""
    from mmxx.sparsity.lottery import arms

    levels = range(0, config.levels + 1, max(1, config.levels // 4))
    jobs = [(lottery, level, arm) for level in levels for arm in ("ticket", "shuffle_layer")]
    run.table(
        "barriers", run.each("barriers", arms.connected, jobs),
        "Per cent wrong on the line between two trainings that differ in the order of the data: at "
        "the ends, at most on the line, and the barrier (means of the networks).",
    )  # fmt: skip


# -- a convolutional network -------------------------------------------------------------------


def _conv(config: Config, run: Run, data: Any) -> None:
    import numpy as np

    from mmxx.lab.report import figures
    from mmxx.sparsity.lottery import advance, arms

    item = {
        **_pictures(config, run, data), "width": config.conv_width, "epochs": config.conv_epochs,
        "batch": _CONV_BATCH, "lr": config.conv_lr, "rate": config.conv_rate,
        "levels": config.conv_levels, "team": run if run.together else None,
    }  # fmt: skip
    seeds = range(run.seed, run.seed + config.conv_seeds)
    lotteries = arms.conv_lotteries(item, config.conv_rewinds, seeds)
    loop = run.loop(
        "conv", config.conv_levels + 1, state={"lotteries": lotteries}, every=1, claims=()
    )
    for level in loop:
        tickets = advance(lotteries, map if run.together else run.map)
        loss, accuracy = (
            np.mean([t.metrics[key] for t in tickets]) for key in ("loss", "accuracy")
        )
        run.log(level, density=tickets[0].density, loss=loss, accuracy=accuracy)
        run.check_finite(level, loss=loss)
    if loop.diverged:
        run.note(f"The convolutional network was given up: {loop.diverged}.")
        return
    checked = list(range(config.conv_checked, config.conv_levels + 1, config.conv_checked))
    jobs = [(lottery, level) for lottery in lotteries for level in checked]
    worth = run.each("conv-checked", arms.checked, jobs)
    rows, series, bands, walls = [], {}, {}, {}
    for index, rewind in enumerate(config.conv_rewinds):
        some = slice(index * config.conv_seeds, (index + 1) * config.conv_seeds)
        density = 100 * np.mean([[t.density for t in one.tickets] for one in lotteries[some]], 0)
        accuracy = np.array([[t.metrics["accuracy"] for t in one.tickets]
                             for one in lotteries[some]])  # fmt: skip
        found = worth[some.start * len(checked) : some.stop * len(checked)]
        new, height = (
            np.array([w[key] for w in found]).reshape(config.conv_seeds, len(checked))
            for key in ("reinit", "barrier")
        )
        for level, kept in enumerate(density):
            row = {"rewound to step": rewind, "weights kept, %": round(float(kept), 2)}
            row["accuracy, %"] = round(float(accuracy[:, level].mean()), 2)
            place = checked.index(level) if level in checked else None
            row["new weights, %"] = "" if place is None else round(float(new[:, place].mean()), 2)
            row["barrier"] = "" if place is None else round(float(height[:, place].mean()), 2)
            rows.append(row)
        label = f"rewound to step {rewind}"
        series[label] = (density, accuracy.mean(0))
        bands[label] = (density, accuracy.min(0), accuracy.max(0))
        if checked:
            walls[label] = float(height[:, -1].mean())
        if checked and index == 0:
            series["new weights"] = (density[checked], new.mean(0))
            bands["new weights"] = (density[checked], new.min(0), new.max(0))
    run.table(
        "convolutional", rows,
        "Per cent right of a convolutional network, pruned over all layers, with its weights set "
        "back to two steps; and the barrier (points of error) between two trainings of each ticket "
        f"that differ in the order of the data. Means of {config.conv_seeds} networks.",
    )  # fmt: skip
    figure = figures.curves(
        series, bands=bands, logx=True, xlabel="weights kept, %", ylabel="test accuracy, %"
    )
    _falling(figure.axes[0], min(row["weights kept, %"] for row in rows))
    run.figure("convolutional", figure, "A convolutional network; the bands span the seeds.")
    last = {name: float(series[name][1][-1]) for name in series}
    run.note(
        "Of the convolutional network's smallest tickets, "
        + "; ".join(f"{name}: {value:.2f} % right" for name, value in last.items())
        + ". Barriers: "
        + ("; ".join(f"{name}: {wall:.2f}" for name, wall in walls.items()) or "not measured") + "."
    )  # fmt: skip


def _pictures(config: Config, run: Run, data: Any) -> dict[str, Any]:
    """Training and test pictures; of the user's a third, at random, is for the test."""
    from mmxx.data import photo_patches

    if data is None:
        train, test = photo_patches(config.per_class, random_state=run.seed)
        run.source(train.source)
        pairs = {"train": (train.images, train.labels), "test": (test.images, test.labels)}
        return {**pairs, "classes": len(train.classes or ())}
    order = run.rng("conv-split").permutation(len(data))
    places = {"test": order[: len(order) // 3], "train": order[len(order) // 3 :]}
    pictures = data.as_float()
    known = pictures[places["train"]]
    pictures = (pictures - known.mean()) / max(float(known.std()), 1e-6)
    pairs = {name: (pictures[some], data.labels[some]) for name, some in places.items()}
    return {**pairs, "classes": len(data.classes)}
