"""Does planning in a learned model work, and is it the model and the search that do it?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mmxx.lab.run import Run
    from mmxx.planning.muzero.arms import Study
    from mmxx.planning.muzero.learner import Learner

_SHAM = False  # whether the controls that must fail stand in MuZero's place
_BOARD = ("optimal-play", "search-adds", "model-matters", "search-teaches", "curve-rises")
_LONG = ("as-good-as-the-rules", "never-loses-first", "perfect-opponent", "beats-model-free")
_CARTPOLE = ("cartpole", "cartpole-search-adds", "cartpole-model-matters")
_NEVER = 100_000  # generations


@dataclass(frozen=True)
class Config:
    """Learn tic-tac-toe without its rules; --full adds AlphaZero, CartPole and Connect Four."""

    env: str = "tictactoe"
    """tictactoe, connect4, gomoku, catch, gridworld, cartpole, a gymnasium id, open_spiel:NAME, or
    your own game as package.module:Game, which imports that module."""
    search: Literal["muzero", "gumbel"] = "muzero"
    """Whose search: pUCT, or Gumbel MuZero's."""
    simulations: int = 25
    """Simulations of each move in training."""
    games: int = 8000
    """Games of tic-tac-toe."""
    control_games: int = 2700
    """Games of the control with one simulation."""
    seeds: int = 1
    """Repetitions on tic-tac-toe."""
    tests: tuple[int, ...] = (0, 5, 25, 100)
    """Simulations in the tests; 0 is the policy alone."""
    parts: tuple[Literal["short", "long", "few", "cartpole", "connect4"], ...] = ("short",)
    """Short trainings with the controls; long ones beside AlphaZero and the model-free twin; fewer
    simulations in training; CartPole; Connect Four."""
    long_games: int = 74_800
    """Games of the long trainings."""
    few: tuple[int, ...] = (2, 4, 6, 25)
    """Simulations in training to compare, with pUCT and with Gumbel's search."""
    few_games: int = 2700
    """Games of each of these."""
    cartpole_moves: int = 78_000
    """Environment steps on CartPole."""
    connect4_games: int = 6000
    """Games of Connect Four."""
    positions: int = 500
    """Positions that are judged one by one: of Connect Four by an exact solver, of Gomoku by the
    moves that win or save at once."""
    ply: int = 14
    """Moves before the positions of Connect Four."""
    moves: int = 20_000
    """Environment steps in another env than tictactoe."""
    reanalyze: float = 0.0
    """Share of the samples that are searched again, in another env."""
    network: Literal["mlp", "resnet"] = "mlp"
    """A perceptron, or a residual network for planes, in another env."""
    blocks: int = 2
    """Residual blocks of h and of g."""
    channels: int = 32
    """Planes of the residual network's hidden state."""
    turns: Literal["alternate", "learned"] = "alternate"
    """Whether the players of another env for two alternate, or who moves on is learned."""
    episodes: int = 32
    """Greedy episodes, or games against a random player, of a test in another env."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if type(value) is int and value < 1:
                raise ValueError(f"{name} must be 1 or more, got {value}")
        for name, least in (("tests", 0), ("few", 1)):
            values = getattr(self, name)
            if not values or min(values) < least or len(set(values)) < len(values):
                raise ValueError(f"{name} must be numbers from {least}, each once, got {values}")
        if not self.parts or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"parts must name one or more, each once, got {self.parts}")
        for name in ("reanalyze", "network", "turns"):
            if self.env == "tictactoe" and getattr(self, name) != getattr(Config, name):
                raise ValueError(
                    f"{name} goes with another env than tictactoe, got {getattr(self, name)!r}"
                )
        if not 0 <= self.reanalyze <= 1:
            raise ValueError(f"reanalyze must be from 0 to 1, got {self.reanalyze}")
        if self.control_games > self.games:
            raise ValueError(
                f"control_games must not exceed games, {self.games}, got {self.control_games}"
            )


TINY = Config(
    simulations=2, games=16, control_games=16, tests=(0, 2), long_games=16, few=(2,), few_games=16,
    parts=("short", "long", "few", "cartpole", "connect4"), cartpole_moves=150, connect4_games=2,
    positions=2, ply=26, episodes=2,
)  # fmt: skip
QUICK = Config()
FULL = Config(
    seeds=2, tests=(0, 5, 25, 100, 400), parts=("short", "long", "few", "cartpole", "connect4")
)


def run(config: Config, run: Run) -> None:
    """Measure the claims on tic-tac-toe, or learn the environment that is asked for."""
    if config.env != "tictactoe":
        _own(config, run)
        return
    from mmxx.planning.muzero import arms

    study = arms.Study(_learners(config, run), _marks(config, run))
    longest = max(arms.generations(learner.settings) for learner in study.learners.values())
    _train(run, study, longest)
    orders = arms.derangements(run.rng("permutations"), 9, 3)
    parts: list[arms.PositionsItem] = []
    if "connect4" in config.parts:
        parts = arms.position_items(config, study.learners["connect4"].game, run.seed)
    solved = run.once("positions", run.map, arms.judged_positions, parts) if parts else []
    mixed = orders if _SHAM else ()
    items = arms.judge_items(config, study, _seeds(config, run), orders, mixed, solved)
    found = run.once("judged", run.map, arms.work_judge, list(items.values()))
    results = dict(zip(items, found, strict=True))
    run.table(
        "results",
        [{"player": name, **_rounded(row)} for name, row in results.items() if "first" in row],
        "Tic-tac-toe: share of optimal moves, worst results, and how often it loses.",
    )
    if "short" in config.parts:
        _measure_short(config, run, results)
        _show(config, run, study, results)
    if "long" in config.parts:
        _measure_long(config, run, results)
    if "cartpole" in config.parts:
        _measure_cartpole(config, run, results)
    for name, caption in (
        (
            "cartpole",
            "CartPole-v1: mean return with its interval, by simulations; @: after so many steps.",
        ),
        ("connect4", "Connect Four: share of optimal moves, and that of random play."),
    ):
        rows = [
            {"player": player, **_rounded(row)}
            for player, row in results.items()
            if player.startswith(name)
        ]
        if rows:
            run.table(name, rows, caption)
    groups = {"short": _BOARD, "long": _LONG, "cartpole": _CARTPOLE}
    for part, claims in groups.items():
        for claim in claims if part not in config.parts else ():
            if claim != "optimal-play" or "long" not in config.parts:  # it is judged there, too
                run.not_measured(claim, f"the part {part!r} was not asked for")


@contextmanager
def sham() -> Iterator[None]:
    """MuZero trained with one simulation, and searched with its actions permuted."""
    global _SHAM
    _SHAM = True
    try:
        yield
    finally:
        _SHAM = False


# -- training ----------------------------------------------------------------------------------


def _seeds(config: Config, run: Run) -> range:
    return range(run.seed, run.seed + config.seeds)


def _learners(config: Config, run: Run) -> dict[str, Learner]:
    """Every training of the parts that are asked for, by name."""
    from mmxx.planning.muzero import arms
    from mmxx.planning.muzero.games import CartPole, connect_four, tic_tac_toe
    from mmxx.planning.muzero.learner import Learner

    simulations = 1 if _SHAM else config.simulations
    game, found = tic_tac_toe(), {}
    for seed in _seeds(config, run):
        if "short" in config.parts:
            settings = arms.board(simulations, config.games, search=config.search)
            found[f"muzero-{seed}"] = Learner(game, settings, seed)
            settings = arms.board(1, config.control_games, config.games)
            found[f"control-{seed}"] = Learner(game, settings, seed)
        if "long" in config.parts:
            settings = arms.board(simulations, config.long_games, search=config.search)
            found[f"long-{seed}"] = Learner(game, settings, seed)
            settings = arms.board(
                config.simulations, config.long_games, model="rules", num_unroll_steps=0
            )
            found[f"alphazero-{seed}"] = Learner(game, settings, seed)
            settings = arms.board(1, config.long_games, model="none", num_unroll_steps=1)
            found[f"modelfree-{seed}"] = Learner(game, settings, seed)
    for number in config.few if "few" in config.parts else ():
        for search in ("muzero", "gumbel"):
            settings = arms.board(number, config.few_games, search=search)
            found[f"few-{search}-{number}"] = Learner(game, settings, run.seed)
    if "cartpole" in config.parts:
        settings = arms.control_task(config.cartpole_moves, num_simulations=config.simulations)
        found["cartpole"] = Learner(CartPole(), settings, run.seed)
    if "connect4" in config.parts:
        settings = arms.board(config.simulations, config.connect4_games, state_size=128, width=256)
        found["connect4"] = Learner(connect_four(), settings, run.seed)
    return found


def _marks(config: Config, run: Run) -> dict[str, tuple[int, ...]]:
    """Where weights are set aside for the learning curves."""
    from mmxx.planning.muzero import arms

    third = config.control_games
    marks = tuple(sorted({third, *range(third, config.games, third), config.games}))
    found = {f"muzero-{seed}": marks for seed in _seeds(config, run)}
    return found | {"cartpole": arms.quarters(config.cartpole_moves)}


def _train(run: Run, study: Study, generations: int) -> None:
    """Play and train, generation by generation, until everyone has finished."""
    every = max(1, generations // 10)
    loop = run.loop("training", _NEVER, state={"study": study}, every=every)
    for step in loop:
        logged = study.absorb(_done(run, study.tasks()))
        run.log(step, **logged)
        losses = {name: value for name, value in logged.items() if name.endswith("/loss")}
        if losses and not run.check_finite(step, **losses):  # the first games are played untrained
            break
        if study.finished:
            loop.finish()


def _done(run: Run, items: list[Any]) -> list[Any]:
    """The results of a generation's tasks; a GPU, or several devices, train outside the workers.

    Of several processes each plays the same games and trains on its part of every batch.
    """
    from mmxx.planning.muzero.learner import work
    from mmxx.planning.muzero.training import TrainItem, train

    team = run if run.options.devices > 1 else None
    if team is None and run.device.type == "cpu":
        return run.map(work, items)
    played = iter(run.map(work, [one for one in items if not isinstance(one, TrainItem)]))
    return [
        train(one, device=run.device, team=team) if isinstance(one, TrainItem) else next(played)
        for one in items
    ]


# -- judging -----------------------------------------------------------------------------------


def _rounded(row: dict[str, float]) -> dict[str, float]:
    return {key.replace("_", " "): float(f"{value:.4g}") for key, value in row.items()}


def _mean(results: dict[str, Any], names: list[str], key: str = "optimal") -> float:
    return sum(results[name][key] for name in names) / len(names)


def _measure_short(config: Config, run: Run, results: dict[str, Any]) -> None:
    seeds, test = list(_seeds(config, run)), config.simulations
    curve = {n: _mean(results, [f"muzero-{s} {n}" for s in seeds]) for n in config.tests}
    own = _mean(results, [f"muzero-{s} {test}" for s in seeds])
    permuted = _mean(results, [f"muzero-{s} permuted" for s in seeds])
    control = _mean(results, [f"control-{s} {test}" for s in seeds])
    if "long" not in config.parts:
        run.measure("optimal-play", own, control=control, seeds=seeds)
    run.measure("model-matters", own - permuted, control=permuted, seeds=seeds)
    if config.games == config.control_games:
        then = own
    else:
        then = _mean(results, [f"muzero-{s}@{config.control_games}" for s in seeds])
    run.measure("search-teaches", then - control, control=control, seeds=seeds)
    if {0, 100} <= set(config.tests):
        run.measure("search-adds", curve[100] - curve[0], baseline=curve[0], seeds=seeds)
    else:
        run.not_measured("search-adds", "it needs the tests with 0 and with 100 simulations")
    ordered = [curve[n] for n in sorted(curve)]
    falls = [ordered[i] - ordered[i + 1] for i in range(len(ordered) - 1)]
    run.measure("curve-rises", max([0.0, *falls]), seeds=seeds)


def _measure_long(config: Config, run: Run, results: dict[str, Any]) -> None:
    seeds, test = list(_seeds(config, run)), config.simulations
    names = [f"long-{s} {test}" for s in seeds]
    own = _mean(results, names)
    rules = _mean(results, [f"alphazero-{s} {test}" for s in seeds])
    twin = _mean(results, [f"modelfree-{s} 0" for s in seeds])
    run.measure("optimal-play", own, baseline=rules, seeds=seeds)
    run.measure("as-good-as-the-rules", own - rules, baseline=rules, seeds=seeds)
    run.measure("beats-model-free", own - twin, baseline=twin, seeds=seeds)
    run.measure("never-loses-first", min(results[n]["first"] for n in names), seeds=seeds)
    lost = [results[n]["lost_to_perfect"] for n in names]
    run.measure(
        "perfect-opponent", sum(lost) / len(lost), seeds=seeds,
        note="by seed: " + ", ".join(f"{one:.3f}" for one in lost),
    )  # fmt: skip


def _measure_cartpole(config: Config, run: Run, results: dict[str, Any]) -> None:
    from mmxx.planning.muzero import arms

    own = results[f"cartpole {config.simulations}"]["return"]
    permuted = results["cartpole permuted"]["return"]
    run.measure("cartpole", own, control=permuted)
    way = arms.on_the_way(results, config.cartpole_moves, config.simulations)
    run.measure("cartpole-model-matters", permuted, note=way)
    policy = results["cartpole 0"]["return"]
    run.measure("cartpole-search-adds", own - policy, baseline=policy, note=way)


# -- what is shown -----------------------------------------------------------------------------


def _show(config: Config, run: Run, study: Study, results: dict[str, Any]) -> None:
    """Curves, a search tree, a game, what the model knows, and the agent itself."""
    import numpy as np

    from mmxx.lab.report import figures
    from mmxx.planning.muzero import showing

    seed = run.seed
    learner = study.learners[f"muzero-{seed}"]
    series = {}
    for arm, label in (
        ("muzero", "MuZero"), ("long", "MuZero, long"), ("alphazero", "AlphaZero, long")
    ):  # fmt: skip
        if f"{arm}-{seed} {config.tests[0]}" in results:
            x = np.array(sorted(config.tests))
            y = [results[f"{arm}-{seed} {n}"]["optimal"] for n in x]
            series[label] = (np.maximum(x, 1), np.array(y))
    figure = figures.curves(
        series, xlabel="simulations in the test (leftmost: the policy alone)",
        ylabel="share of optimal moves", logx=True,
    )  # fmt: skip
    run.figure("strength", figure, "Strength against the budget of the search.")
    marks = study.marks[f"muzero-{seed}"]
    share = [results[f"muzero-{seed}@{m}"]["optimal"] for m in marks[:-1]]
    share.append(results[f"muzero-{seed} {config.simulations}"]["optimal"])
    lines = {
        "MuZero": (np.array(marks), np.array(share)),
        "trained with 1 simulation": (
            np.array([config.control_games]),
            np.array([results[f"control-{seed} {config.simulations}"]["optimal"]]),
        ),
    }
    figure = figures.curves(lines, xlabel="games", ylabel="share of optimal moves")
    run.figure("learning", figure, "Learning, judged in all 4,520 positions.")
    planner = showing.planner_of(learner)
    errors = showing.model_errors(planner, 5, run.rng("errors"))
    run.table(
        "model-errors", [_rounded(row) for row in errors],
        "Mean errors of the learned model along random play, by depth.",
    )  # fmt: skip
    facts = showing.tree_facts(planner, run.rng("trees"))
    run.table(
        "trees", [_rounded(facts)], "Searches of 64 positions with the simulations of training."
    )
    rows = showing.training_rows(learner)
    run.table("training", rows, "MuZero's training by generation.")
    figure = _draw_tree(showing.main_lines(planner), showing.BOARD)
    run.figure("tree", figure, "A search: visits N, prior P and Q of its main lines.")
    run.artifact("game.txt", showing.replay(planner), "MuZero against itself, searching.")
    content = showing.agent_bytes(learner, "tictactoe")
    run.artifact("agent.safetensors", content, "For MuZero.load, and to play against.")


def _draw_tree(lines: list[dict[str, Any]], board: str) -> Figure:
    """Nodes at (depth, height) with their labels, joined to the node above."""
    from matplotlib.figure import Figure

    from mmxx.lab.report.figures import COLOURS

    figure = Figure(figsize=(5.2, 3.8), layout="constrained")
    axes = figure.subplots()
    for node in lines:
        x, y = node["x"], node["y"]
        if node["above"] is not None:
            above = lines[node["above"]]
            width = 0.5 + 4 * node["share"]
            axes.plot(
                [above["x"] + 0.3, x - 0.3], [above["y"], y], color=COLOURS[0], lw=width, alpha=0.5
            )
        axes.text(
            x, y, node["label"], ha="center", va="center", fontsize=7,
            bbox={"boxstyle": "round", "fc": "#ffffff00", "ec": COLOURS[0], "lw": 0.6},
        )  # fmt: skip
    axes.set_title(board, fontsize=8, loc="left")
    axes.margins(0.12)
    axes.set_axis_off()
    return figure


# -- another environment -----------------------------------------------------------------------


def _own(config: Config, run: Run) -> None:
    """Learn a game or an environment by name, and say how well it goes."""
    from mmxx.lab.errors import BadInputError
    from mmxx.planning.muzero import arms, showing
    from mmxx.planning.muzero.card import CARD
    from mmxx.planning.muzero.learner import Learner
    from mmxx.planning.muzero.one_at_a_time import make_game

    try:
        game = make_game(config.env)
    except ValueError as error:
        raise BadInputError(f"env: {error}") from error
    try:
        settings = arms.own_settings(config, game)
        learner = Learner(game, settings, run.seed)
    except ValueError as error:
        raise BadInputError(str(error)) from error
    study = arms.Study({"agent": learner}, {})
    _train(run, study, arms.generations(settings))
    tests = [n for n in config.tests if n <= 4 * config.simulations]
    parts = arms.position_items(config, game, run.seed)
    judged = run.once("positions", run.map, arms.judged_positions, parts) if parts else []
    rows = run.once("tests", showing.test_rows, learner, tests, config.episodes, run.seed, judged)
    against = "result against a random player" if game.num_players == 2 else "mean return"
    for claim in CARD.claims:
        run.not_measured(
            claim.id,
            f"{config.env} was learned instead of tic-tac-toe: {against} {rows[-1]['mean']:.3g} "
            f"with {rows[-1]['simulations']} simulations",
        )
    caption = f"{config.episodes} greedy episodes, {against}, 95 per cent interval."
    if parts:
        how = "of an exact solver" if parts[0].game.gravity else "that win at once, or block"
        caption += f" Good moves: the share of {config.positions} positions with one {how}."
    run.table("tests", rows, caption)
    run.table("training", showing.training_rows(learner), "The training by generation.")
    content = showing.agent_bytes(learner, config.env)
    run.artifact("agent.safetensors", content, "For MuZero.load, and to play against.")
