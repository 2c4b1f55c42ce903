"""Does a masked random network compute what a trained network computes?"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from mmxx.lab.run import Run
    from mmxx.sparsity.strong_tickets.arms import Split

_SHUFFLED = False  # the sham: whether the control stands in the tickets' place
_NAMES = {"product": "subset sum", "row": "subset sum, row", "golden": "golden ratio"}
_SAME = {("mlp", "product"): "same-accuracy", ("conv", "product"): "convolutions"}
_SAME |= {("mlp", "golden"): "golden-ratio"}
_AUTHORS = "a5ba25cc4ba71e88eec71d1228b24de9ea09742ff6a58a5f10ee63584cd1fb3c"  # fc2.safetensors
_MNIST = ("mnist-accuracy", "mnist-predictions", "mnist-weights")
_LARGE = 100_000  # weights beyond which a golden ticket takes minutes


@dataclass(frozen=True)
class Config:
    """Find tickets for networks trained on digits, or for your own network."""

    hidden: int = 32
    """Hidden units of the trained network."""
    width: int = 6
    """Channels of the convolutions of the convolutional one."""
    epochs: int = 15
    """Epochs of each training."""
    seeds: int = 3
    """Networks of each kind."""
    eps: float = 0.01
    """No weight may be off by more."""
    tickets: tuple[Literal["product", "row", "golden"], ...] = ("product", "row", "golden")
    """Subset sums of products; the authors' coefficients shared by a row; the golden ratio."""
    stops: tuple[float, ...] = (1.0, 0.1, 0.01, 0.001)
    """Errors at which the search for a weight may end, in eps, to compare."""
    tolerances: tuple[float, ...] = (0.1, 0.05, 0.02, 0.01, 0.005)
    """Tolerances at which random numbers are counted."""
    numbers: int = 20
    """Random numbers in a set at most."""
    sets: int = 1000
    """Sets of random numbers."""
    bins: int = 20
    """Golden bins of the lemma's trials."""
    trials: int = 20_000
    """Trials of the lemma."""
    copies: int = 0
    """Random weights for each, where scores choose in redundant networks; 0 leaves these out."""
    shares: tuple[float, ...] = (0.05, 0.1, 0.3, 0.5, 0.7, 0.9)
    """Shares of the weights that scores choose."""
    model: Path | None = None
    """Your network: a safetensors file of linear layers; needs data."""
    data: Path | None = None
    """Pictures to compare on (MNIST's IDX files, .npz, a folder); without a model, to train on."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            parts = value if isinstance(value, tuple) else (value,)
            if not parts:
                raise ValueError(f"{name} must name one or more, got none")
            for part in parts:
                if type(part) in (int, float) and not part > 0 and name != "copies":
                    raise ValueError(f"{name} must be above 0, got {value}")
        if self.numbers > 28:
            raise ValueError(f"numbers must be 28 at most, for memory, got {self.numbers}")
        if len(self.tolerances) < 3:
            raise ValueError(f"tolerances must be three or more, got {self.tolerances}")
        if self.copies < 0:
            raise ValueError(f"copies must be 0 or more, got {self.copies}")
        if max(self.shares) > 1:
            raise ValueError(f"shares must be 1 at most, got {self.shares}")
        if max(self.stops) > 1:
            raise ValueError(f"stops must be 1 at most, in eps, got {self.stops}")
        if self.model is not None and self.data is None:
            raise ValueError(f"model={self.model} needs data, pictures to compare on")


TINY = Config(
    hidden=4, width=2, epochs=1, seeds=1, tolerances=(0.4, 0.3, 0.2), numbers=8, sets=8, bins=4,
    trials=50, copies=2, shares=(0.5,),
)  # fmt: skip
QUICK = Config()
FULL = Config(
    hidden=500, width=12, epochs=30, numbers=24, trials=1_000_000, copies=5,
    tolerances=(0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005),
)  # fmt: skip


def run(config: Config, run: Run) -> None:
    """Measure the claims on digits, or on the network and the pictures that the user brings."""
    import numpy as np

    from mmxx.sparsity.strong_tickets import arms
    from mmxx.sparsity.strong_tickets.golden import worst_left

    if config.data is None:
        networks, counting = _network_items(config, run), _counting_items(config, run)
        popping = _popping_items(config, run, networks[0])
        results = run.once("tasks", run.map, arms.work, [*networks, *popping, *counting])
        found = iter(results)
        _compare(config, run, networks, list(islice(found, len(networks))))
        if popping:
            _show_redundant(config, run, list(islice(found, len(popping))))
        _count_numbers(config, run, np.concatenate(list(found)))
        worst = run.once("lemma", worst_left, config.bins, config.trials, run.rng("lemma"))
        run.measure("golden-lemma", worst)
        return
    from mmxx.sparsity.strong_tickets.card import CARD

    for claim in CARD.claims:
        if claim.id not in _MNIST:
            run.not_measured(claim.id, "the user's data were run instead")
    _own(config, run)


@contextmanager
def sham() -> Iterator[None]:
    """Masks shuffled within each row in the place of those that were found."""
    global _SHUFFLED
    _SHUFFLED = True
    try:
        yield
    finally:
        _SHUFFLED = False


# -- digits ------------------------------------------------------------------------------------


def _network_items(config: Config, run: Run) -> list[dict[str, Any]]:
    """One training, with all its tickets, for each kind of network and seed."""
    from mmxx.data import digits

    train, test = digits()
    run.source(train.source)
    common = {
        "train": _split(train), "test": _split(test), "eps": config.eps, "epochs": config.epochs,
        "hidden": config.hidden, "width": config.width, "shuffled": _SHUFFLED,
    }  # fmt: skip
    seeds = range(run.seed, run.seed + config.seeds)
    items = [common | {"kind": "mlp", "laws": config.tickets, "seed": seed} for seed in seeds]
    return items + [common | {"kind": "conv", "laws": ("product",), "seed": seed} for seed in seeds]


def _compare(
    config: Config, run: Run, items: list[dict[str, Any]], results: list[dict[str, Any]]
) -> None:
    """The tickets beside the trained networks."""
    seeds, pictures = range(run.seed, run.seed + config.seeds), len(items[0]["test"].x)
    rows, found = [], []
    for item, result in zip(items, results, strict=True):
        for law in item["laws"]:
            found.append((item["kind"], law, result[law]))
            rows.append(_row(item["kind"], law, item["seed"], result[law]))
    run.table(
        "tickets", rows, f"Tickets on {pictures} test pictures; the control's mask is shuffled."
    )
    for key, claim in _SAME.items():
        of_arm = [result for kind, law, result in found if (kind, law) == key]
        if not of_arm:
            run.not_measured(claim, "this ticket was not asked for")
            continue
        ticket, control = (max(_between(r[who]) for r in of_arm) for who in ("ticket", "control"))
        run.measure(claim, ticket, control=control, seeds=list(seeds))
    everything = [result for _, _, result in found]
    run.measure(
        "weights-within-eps", max(r["ticket"]["error"] for r in everything),
        control=max(r["control"]["error"] for r in everything), seeds=list(seeds),
    )  # fmt: skip
    # the bound is in exact arithmetic; single precision adds some 1e-6
    share = max((r["ticket"]["gap"] - 1e-5) / r["bound"] for r in everything)
    run.measure("bound-holds", share, seeds=list(seeds))
    run.measure("seed-and-bits", sum(r["changed"] for r in everything), seeds=list(seeds))
    _show(run, results[0]["expected"], results[0][config.tickets[0]])


def _split(images: Any) -> Split:
    import torch

    from mmxx.sparsity.strong_tickets.arms import Split

    x = torch.from_numpy(images.as_float()).movedim(-1, 1).contiguous()
    return Split(x, None if images.labels is None else torch.from_numpy(images.labels))


def _between(judged: dict[str, Any]) -> int:
    return abs(judged["right"] - judged["target_right"])


def _row(network: str, law: str, seed: int, found: dict[str, Any]) -> dict[str, Any]:
    ticket, control = found["ticket"], found["control"]
    return {
        "network": network, "ticket": _NAMES[law], "seed": seed,
        "target right": ticket["target_right"], "ticket right": ticket["right"],
        "control right": control["right"], "predictions moved": ticket["moved"],
        "largest weight error": float(f"{ticket['error']:.3g}"),
        "largest output difference": float(f"{ticket['gap']:.3g}"),
        "proved": float(f"{found['bound']:.3g}"),
        "weights": found["weights"],
        "random per weight": round(found["choices"] / found["weights"], 2),
        "kept per weight": round(found["kept"] / found["weights"], 2),
        "given more": found["retried"], "bytes": found["bytes"],
    }  # fmt: skip


def _show(run: Run, expected: Any, found: dict[str, Any]) -> None:
    """The outputs of target [n, classes], ticket and control for the first pictures."""
    figure = _draw_outputs(expected, found["ticket"]["outputs"], found["control"]["outputs"])
    caption = (
        f"All outputs for the first {len(expected)} test pictures: on the line, the random network "
        "says what the trained one says."
    )
    run.figure("outputs", figure, caption)
    run.note(
        "A ticket is a construction, not a compression: it keeps several random weights for each "
        "trained one, and finding it takes the trained network."
    )


def _draw_outputs(expected: Any, ticket: Any, control: Any) -> Figure:
    from matplotlib.figure import Figure

    from mmxx.lab.report.figures import COLOURS

    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    ends = [float(expected.min()), float(expected.max())]
    for values, label, colour, size in (
        (control, "the mask shuffled within each row", COLOURS[1], 5),
        (ticket, "the ticket", COLOURS[0], 9),
    ):
        axes.scatter(expected.ravel(), values.ravel(), s=size, color=colour, label=label, lw=0)
    axes.plot(ends, ends, color="#000000", linewidth=0.7, zorder=3)
    axes.set(xlabel="output of the trained network", ylabel="output of the random network")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    low, high = ends[0] - 3, ends[1] + 3
    axes.set_ylim(low, high)
    axes.legend(
        frameon=False, fontsize=8, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), markerscale=2
    )
    return figure


# -- scores in redundant networks --------------------------------------------------------------


def _popping_items(config: Config, run: Run, common: dict[str, Any]) -> list[dict[str, Any]]:
    """Edge-popup in redundant and in wide networks, for each share and seed."""
    from mmxx.sparsity.strong_tickets.redundant import items_of

    seeds = range(run.seed, run.seed + config.seeds)
    return items_of(common, config.copies, config.shares, seeds) if config.copies else []


def _show_redundant(config: Config, run: Run, results: list[dict[str, Any]]) -> None:
    """The paper's second experiment: as it comes out, without a bar."""
    from mmxx.lab.report import figures
    from mmxx.sparsity.strong_tickets.redundant import found_in

    rows, lines, note = found_in(results, config.shares)
    caption = (
        f"Per cent right where scores choose a share of random weights, {config.copies} for each "
        f"of a network of {config.hidden} hidden units; mean of {config.seeds} seeds."
    )
    run.table("redundant", rows, caption)
    figure = figures.curves(lines, xlabel="share that is used", ylabel="right, %")
    run.figure("redundant", figure, "Edge-popup in redundant networks, and in as large wide ones.")
    run.note(note)


# -- the two lemmas ----------------------------------------------------------------------------


def _counting_items(config: Config, run: Run) -> list[dict[str, Any]]:
    """Sets of random numbers, in parts."""
    parts = min(8, config.sets)
    common = {"kind": "cover", "most": config.numbers, "eps": config.tolerances}
    return [
        common | {"seed": [run.seed, part], "trials": len(range(part, config.sets, parts))}
        for part in range(parts)
    ]


def _count_numbers(config: Config, run: Run, counts: np.ndarray) -> None:
    """The line through the numbers needed, counts being [sets, tolerances]."""
    import numpy as np

    from mmxx.lab.report import figures
    from mmxx.sparsity.strong_tickets import arms

    n = np.arange(1, config.numbers + 1)
    covered = (counts[:, :, None] <= n).mean(0)
    series = {f"ε = {e:g}": (n, line) for e, line in zip(config.tolerances, covered, strict=True)}
    figure = figures.curves(
        series, xlabel="random numbers, uniform on (-1, 1)", ylabel="share of sets that suffice"
    )
    run.figure("success", figure, "How often so many numbers come near all of [-1/2, 1/2].")
    shares = (0.5, 0.95)
    needed = np.array([[arms.enough(line, share) for line in covered] for share in shares])
    rows = [
        {"tolerance": eps}
        | {f"{share:.0%} of the sets": float(x) for share, x in zip(shares, column, strict=True)}
        for eps, column in zip(config.tolerances, needed.T.round(2), strict=True)
    ]
    run.table("numbers", rows, f"Random numbers that suffice, of {config.sets} sets; interpolated.")
    if not np.isfinite(needed).all():
        run.not_measured("log-law", f"{config.numbers} numbers do not suffice in 95 % of the sets")
        return
    eps = np.array(config.tolerances)
    slope, offset, r2 = arms.log_law(eps, needed[1])
    run.measure("log-law", r2, note=f"n = {slope:.3g} log2(1/ε) + {offset:.3g}")
    x = np.log2(1 / eps)
    lines = {
        "measured, 95% of the sets": (x, needed[1]),
        f"{slope:.2f} log2(1/ε) + {offset:.2f}": (x, slope * x + offset),
    }
    figure = figures.curves(lines, xlabel="log2(1/ε)", ylabel="random numbers")
    legend = figure.axes[0].get_legend()
    for line in (figure.axes[0].lines[0], *(legend.legend_handles[:1] if legend else ())):
        if line is not None:
            line.set(marker="o", linestyle="none")
    run.figure("law", figure, "The numbers needed grow with the logarithm of the precision.")


# -- a network and pictures of one's own -------------------------------------------------------


def _own(config: Config, run: Run) -> None:
    from mmxx.data import load
    from mmxx.sparsity.strong_tickets import arms

    assert config.data is not None
    images: Any = load(config.data, kinds=("images",))
    run.source(images.source)
    data = _split(images)
    if config.model is not None:
        digest = (
            hashlib.sha256(config.model.read_bytes()).hexdigest() if config.model.is_file() else ""
        )
        target = arms.read_model(config.model)
        arms.check_size(target, data.x)
        reason = "" if digest == _AUTHORS else "another network than the authors'"
    else:
        target, data = _trained(config, run, data)
        reason = "it needs the authors' network as model, fc2.safetensors"
    for claim in _MNIST if reason else ():
        run.not_measured(claim, reason)
    expected = arms.outputs(target, data.x)
    weights = sum(parameter.numel() for parameter in target.parameters())
    rows = []
    for law in config.tickets:
        if law == "golden" and weights > _LARGE:
            run.note(f"The golden ratio was left out: the network has {weights:,} weights.")
            continue
        found = run.once(f"ticket-{law}", _ticket, run, config, law, target, data, expected)
        rows.append(_row("own", law, run.seed, found))
        content = found["file"].tobytes()
        run.artifact(f"ticket-{law}.safetensors", content, "For RandomNet.load: seed and bits.")
        _show(run, expected[:100].numpy(), found)
        if law == "row" and not reason:
            _judge_mnist(run, found, len(data.x))
    run.table(
        "tickets", rows, f"Tickets on {len(data.x)} pictures; the control's mask is shuffled."
    )
    stops = run.once("stops", _stops, run, config, target, data, expected)
    run.table(
        "stops", stops, "Where the search for a weight ends, and what becomes of the network."
    )


def _trained(config: Config, run: Run, data: Split) -> tuple[nn.Sequential, Split]:
    """A network trained on four fifths of the user's pictures, and the last fifth."""
    import torch

    from mmxx.sparsity.strong_tickets import arms

    if data.y is None or len(data.x) < 10:
        raise ValueError("data: without a model, 10 pictures with labels or more are needed")
    order = torch.from_numpy(run.rng("split").permutation(len(data.x)))
    test, rest = order[: len(order) // 5], order[len(order) // 5 :]
    training = arms.Split(data.x[rest], data.y[rest])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(run.seed)
        net = arms.mlp(data.x[0].numel(), config.hidden, int(data.y.max()) + 1)
    state = run.once("target", arms.trained, net, training, config.epochs, run.seed)
    net.load_state_dict(state)
    return net, arms.Split(data.x[test], data.y[test])


def _ticket(
    run: Run, config: Config, law: str, target: nn.Sequential, data: Split, expected: Tensor
) -> dict[str, Any]:
    import numpy as np

    from mmxx.sparsity.strong_tickets import arms

    ticket = arms.make(law, target, config.eps, run.seed, map=run.map)
    found = arms.report(ticket, data, expected, run.seed, shuffled=_SHUFFLED)
    return found | {"file": np.frombuffer(ticket.net.to_bytes(), np.uint8)}


def _judge_mnist(run: Run, found: dict[str, Any], pictures: int) -> None:
    ticket, control = found["ticket"], found["control"]
    accuracies = "{:.2f} and {:.2f} per cent; {:,} of {:,} random weights kept".format(
        100 * ticket["target_right"] / pictures, 100 * ticket["right"] / pictures,
        found["kept"], found["choices"],
    )  # fmt: skip
    run.measure("mnist-accuracy", _between(ticket), control=_between(control), note=accuracies)
    run.measure(
        "mnist-predictions", 1 - ticket["moved"] / pictures, control=1 - control["moved"] / pictures
    )
    run.measure("mnist-weights", ticket["error"], control=control["error"])


def _stops(
    run: Run, config: Config, target: nn.Sequential, data: Split, expected: Tensor
) -> list[dict[str, Any]]:
    """Row-shared tickets whose search ended at several errors."""
    from mmxx.sparsity.strong_tickets import arms

    rows = []
    for stop in config.stops:
        ticket = arms.make("row", target, config.eps, run.seed, map=run.map, stop=stop * config.eps)
        found = arms.judge(ticket, ticket.net, data, expected)
        rows.append(
            {
                "search ends at": stop * config.eps,
                "largest weight error": float(f"{found['error']:.3g}"),
                "target right": found["target_right"],
                "ticket right": found["right"],
                "predictions moved": found["moved"],
                "kept per weight": round(ticket.kept_per_weight, 2),
            }
        )
    return rows
