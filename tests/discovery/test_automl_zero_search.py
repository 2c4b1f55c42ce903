"""The search: ageing, tournaments, mutations, the cache, hurdles, budgets, islands, refusals."""

from __future__ import annotations

from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest

from mmxx.discovery.automl_zero import (
    DAMAGED_NEURAL_NET,
    FEC,
    LINEAR,
    NEURAL_NET,
    Hurdle,
    Program,
    RandomSearch,
    RegularizedEvolution,
    SearchSpace,
    evaluate,
    evolve_islands,
    linear_regression_tasks,
    nn_teacher_tasks,
)
from mmxx.discovery.automl_zero import _births as births
from mmxx.discovery.automl_zero._cache import look_up, make_cache, store, value_at
from mmxx.discovery.automl_zero.program import unpack
from mmxx.discovery.automl_zero.results import MUTATIONS, SearchState
from mmxx.discovery.automl_zero.search import RegularizedEvolution as Search
from mmxx.discovery.automl_zero.studies import DEMO, FIXED, REPAIR

TASKS = linear_regression_tasks(3, random_state=0)


def state_bits(state: SearchState) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.arrays().items()}


@pytest.fixture(scope="module")
def evolved() -> tuple[Search, SearchState]:
    search = Search(DEMO, population_size=50, tournament_size=5)
    state = search.start(TASKS)
    search.step(state, TASKS, programs=3000, random_state=1)
    return search, state


def test_the_best_is_as_fit_as_the_result_says(evolved) -> None:
    search, state = evolved
    result = search.result(state)
    assert result.fitness == pytest.approx(evaluate(result.best, TASKS).mean(), abs=1e-12)
    assert result.stats["programs"] == 3000
    found = [step.fitness for step in result.history]
    assert found == sorted(set(found))
    assert result.history[-1].program == result.best
    line = [ancestor.fitness for ancestor in result.lineage]
    assert line == sorted(set(line))
    assert line[-1] == result.fitness
    assert result.lineage[0].mutation == "first"
    assert {a.mutation for a in result.lineage[1:]} <= {"identity", *search.mutations}


def test_steps_may_be_cut_anywhere(evolved) -> None:
    search, whole = evolved
    state = search.start(TASKS)
    for programs in (1, 49, 50, 51, 777, 3000):
        search.step(state, TASKS, programs=programs, random_state=1)
    assert state_bits(state) == state_bits(whole)


def test_every_individual_dies_after_as_many_births_as_there_are_places() -> None:
    search = Search(FIXED, population_size=20, tournament_size=3)
    state = search.start(TASKS)
    search.step(state, TASKS, programs=100, random_state=0)
    before = state.population.code.copy(), state.population.fitness.copy()
    for births_so_far in range(101, 121):
        search.step(state, TASKS, programs=births_so_far, random_state=0)
        gone = (births_so_far - 101) % 20
        kept = np.arange(20) > gone
        np.testing.assert_array_equal(state.population.fitness[kept], before[1][kept])
        np.testing.assert_array_equal(state.population.code[kept], before[0][kept])


def test_tournaments_are_won_as_often_as_they_should_be() -> None:
    size, drawn, trials = 20, 4, 20_000
    search = Search(FIXED, population_size=size, tournament_size=drawn, mutate_prob=0.0)
    state = search.start(TASKS)
    rules, _ = search._rules(TASKS, 0)
    population = state.population
    population.fitness[:] = np.random.default_rng(0).permutation(size)
    population.sizes[:] = 5, 1, 4
    machine_counts = np.array([4, 3, 0, 4, 3], np.int64)
    length = population.code.shape[1]
    errors = np.zeros((1, 1))
    bench = births.Bench(
        np.zeros((length, 5), np.int16), np.zeros((length, 3)), np.zeros(3, np.int64),
        np.zeros(3), errors, errors.view(np.uint64), np.zeros((0, 3)), np.zeros(1, np.uint64),
    )  # fmt: skip
    won = np.zeros(size)
    for birth in range(size, size + trials):
        parent, _ = births.beget(population, rules, bench, machine_counts, birth)
        won[int(population.fitness[parent])] += 1
    below = np.arange(size + 1) / size
    expected = trials * np.diff(below**drawn)
    assert (abs(won - expected) < 5 * np.sqrt(expected + 1)).all()


def programs_of(search: Search, state: SearchState) -> list[Program]:
    starts = search._starts()
    p = state.population
    return [unpack(c, d, s, starts) for c, d, s in zip(p.code, p.data, p.sizes, strict=True)]


@pytest.mark.parametrize("kind", MUTATIONS)
def test_a_mutation_does_what_its_name_says(kind: str) -> None:
    space = SearchSpace(
        5, 9, 2, ["vector_gaussian", "scalar_const", "matrix_cell"], ["matrix_vector_product"],
        ["vector_sum", "scalar_uniform", "vector_element"], sizes=(3, 5, 11), size_min=(2, 4, 8),
        size_max=(6, 7, 13),
    )  # fmt: skip
    search = Search(
        space, population_size=1, tournament_size=1, mutate_prob=1.0, mutations=[kind],
        initial=NEURAL_NET, fec=None,
    )  # fmt: skip
    tasks = nn_teacher_tasks(1, train=2, valid=1, random_state=0)
    changed, sizes = 0, set()
    for seed in range(60):
        state = search.start(tasks)
        search.step(state, tasks, programs=2, random_state=seed)
        (child,) = programs_of(search, state)
        sizes.add(len(child) - len(NEURAL_NET))
        moved = [
            sum(a != b for a, b in zip(old, new, strict=False))
            for old, new in zip(NEURAL_NET.parts, child.parts, strict=True)
        ]
        changed += child != NEURAL_NET
        if kind in ("alter", "randomize_instruction"):
            assert sum(moved) <= 1
        if kind == "alter":
            assert all(
                a.op == b.op for a, b in zip(NEURAL_NET, child, strict=True)
            )  # only parameters
        if kind == "randomize_component":
            assert sum(m > 0 for m in moved) <= 1
        for part, low, high in zip(child.parts, (2, 4, 8), (6, 7, 13), strict=True):
            assert low <= len(part) < high
    wanted = {"insert": {1}, "remove": {-1}}.get(kind, {0})
    assert sizes - {0} <= wanted
    assert (changed > 20) == (kind != "identity")


def test_what_may_not_change_does_not() -> None:
    search = Search(
        REPAIR, population_size=10, tournament_size=2, mutate_prob=1.0, initial=DAMAGED_NEURAL_NET,
        mutations=("alter", "insert", "remove", "trade"), fec=None, train_budget=2.0,
    )  # fmt: skip
    tasks = nn_teacher_tasks(1, train=20, valid=10, random_state=0)
    state = search.start(tasks)
    search.step(state, tasks, programs=400, random_state=0)
    lengths = set()
    for program in programs_of(search, state):
        assert program.parts[1:] == DAMAGED_NEURAL_NET.parts[1:]
        lengths.add(len(program.setup))
    assert max(lengths) == 6  # one below the largest size


def test_the_cache_changes_no_fitness_without_draws() -> None:
    runs = [
        Search(DEMO, population_size=50, tournament_size=5, fec=fec).run(
            TASKS, max_programs=4000, random_state=2
        )
        for fec in (FEC(), None)
    ]
    assert runs[0].fitness == runs[1].fitness
    assert runs[0].best == runs[1].best
    assert runs[0].stats["fec_hits"] > 1000
    assert runs[1].stats["fec_hits"] == 0
    assert runs[0].stats["steps"] < runs[1].stats["steps"]


def test_the_cache_forgets() -> None:
    space = SearchSpace(2, 1, 0, ["no_op"], ["no_op"], ["no_op"], sizes=(1, 1, 1))
    tasks = linear_regression_tasks(1, train=20, valid=20, random_state=0)
    search = RandomSearch(space, fec=FEC(forget_every=10))
    stats = search.run(tasks, max_programs=100, random_state=0).stats
    assert stats["fec_hits"] == 100 - 10  # one in ten is evaluated anew


@pytest.mark.parametrize("size", [1, 2, 13])
def test_an_exact_cache_drops_the_longest_unused(size: int) -> None:
    """Beside an ordered dictionary; keys that share a slot, and some that are met too often."""
    rng = np.random.default_rng(size)
    cache, truth = make_cache(size, exact=True), OrderedDict()
    keys = (rng.integers(0, 3, 30) + 64 * np.arange(30)).astype(np.uint64)
    hits = 0
    for now, key in enumerate(rng.choice(keys, 4000, p=np.arange(1, 31) / 465)):
        place = look_up(cache, key, 9, now)
        wanted = None
        if key in truth:
            truth.move_to_end(key)
            truth[key][1] += 1
            if truth[key][1] > 9:
                del truth[key]
            else:
                wanted = truth[key][0]
        assert (place < 0) == (wanted is None)
        if wanted is not None:
            hits += 1
            assert value_at(cache, place) == wanted
        else:
            store(cache, key, float(now), now)
            truth[key] = [float(now), 1]
            if len(truth) > size:
                truth.popitem(last=False)
    assert hits > 100


def test_an_exact_cache_gives_the_same_fitness_and_goes_on() -> None:
    search = Search(
        DEMO, population_size=50, tournament_size=5, fec=FEC(cache_size=200, exact=True)
    )
    plain = replace(search, fec=None).run(TASKS, max_programs=1500, random_state=2)
    whole = search.run(TASKS, max_programs=1500, random_state=2)
    assert whole.best == plain.best
    assert whole.stats["fec_hits"] > 300


def test_the_hurdle_stops_what_is_below_it() -> None:
    search = RandomSearch(DEMO, fec=None, hurdle=Hurdle(0.75, tasks=1, every=200))
    tasks = linear_regression_tasks(4, random_state=0)
    stats = search.run(tasks, max_programs=2000, random_state=0).stats
    plain = RandomSearch(DEMO, fec=None).run(tasks, max_programs=2000, random_state=0).stats
    assert 700 < stats["early_stops"] < 1800  # many are as fit as the threshold: these go on
    assert stats["steps"] < 0.75 * plain["steps"]


def test_programs_beyond_the_budget_are_not_run() -> None:
    tight = Search(DEMO, population_size=10, tournament_size=2, initial=LINEAR, train_budget=0.01)
    stats = tight.run(TASKS, max_programs=50, random_state=0).stats
    assert stats["over_budget"] > 20
    loose = replace(tight, train_budget=2.0).run(TASKS, max_programs=50, random_state=0).stats
    assert loose["over_budget"] == 0


def test_the_median_and_the_mean_are_what_they_say() -> None:
    tasks = linear_regression_tasks(5, random_state=1)
    for combine, of in (("mean", np.mean), ("median", np.median)):
        search = Search(FIXED, population_size=5, tournament_size=2, combine=combine)
        result = search.run(tasks, max_programs=50, random_state=0)
        assert result.fitness == pytest.approx(of(evaluate(result.best, tasks)), abs=1e-12)


def test_evolution_goes_on_from_a_program() -> None:
    search = Search(DEMO, population_size=20, tournament_size=5, initial=LINEAR)
    result = search.run(TASKS, max_train_steps=300_000, random_state=0)
    assert result.history[0].program == LINEAR
    assert result.fitness > evaluate(LINEAR, TASKS).mean() + 0.05


def test_a_target_ends_the_search() -> None:
    search = Search(DEMO, population_size=20, tournament_size=5, initial=LINEAR)
    result = search.run(TASKS, max_programs=1000, target_fitness=0.1, random_state=0)
    assert result.stats["programs"] == 1


# -- islands -----------------------------------------------------------------------------------


def islands(map_: object) -> tuple[object, list[dict[str, bytes]]]:
    search = Search(FIXED, population_size=20, tournament_size=3, fec=FEC(cache_size=64))
    result, states = evolve_islands(
        search, TASKS, islands=4, epochs=3, max_train_steps=1_500_000, migrants=5, random_state=3,
        map=map_,
    )  # fmt: skip
    return result, [state_bits(state) for state in states]


def test_islands_are_the_same_in_other_processes() -> None:
    here = islands(map)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        there = islands(pool.map)
    assert here == there
    assert len({state["fitness"] for state in here[1]}) == 4


def test_migration_moves_individuals_along_the_ring() -> None:
    from mmxx.discovery.automl_zero.islands import migrate

    search = Search(FIXED, population_size=10, tournament_size=3)
    states = [search.start(TASKS).arrays() for _ in range(3)]
    for number, arrays in enumerate(states):
        arrays["fitness"][:] = number
    migrate(states, 4, 0, 0)
    for number, arrays in enumerate(states):
        assert sorted(arrays["fitness"]) == sorted([number] * 6 + [(number - 1) % 3] * 4)


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"setup_ops": ["matrix_sum"], "matrices": 0}, "setup_ops: matrix_sum needs matrices"),
        ({"setup_ops": ["vector_sum"], "vectors": 1}, "vector_sum needs vectors of 2 or more"),
        ({"scalars": 1}, "scalars must be 2 or more, the label and the prediction, got 1"),
        ({"size_min": (4, 1, 1)}, "size_min of setup, 4, must not exceed size_max, 3"),
        ({"learn_ops": ["jump"]}, "op: 'jump' is unknown"),
        ({"sizes": (3, 1)}, "sizes must be three numbers from 0 to 250"),
        ({"vectors": 61}, "vectors must be 60 at most, got 61"),
    ],
)
def test_a_space_that_cannot_be_is_refused(change, message) -> None:
    ops = {"setup_ops": ["scalar_const"], "predict_ops": [27], "learn_ops": ["vector_sum"]}
    with pytest.raises(ValueError, match=message):
        SearchSpace(**{"sizes": (3, 1, 4), **ops, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tournament_size": 0}, "tournament_size must be 1 or more, got 0"),
        ({"mutations": ("alter", "swap")}, r"mutations must be of alter, .*'swap'"),
        ({"mutate_prob": 1.5}, "mutate_prob must be 0 to 1, got 1.5"),
        ({"initial": "ones"}, "initial must be 'random', 'noop' or a Program, got 'ones'"),
        ({"initial": NEURAL_NET}, "scalars must be 5 or more for this program, got 4"),
        ({"combine": "max"}, "combine must be 'mean' or 'median', got 'max'"),
        ({"train_budget": 0}, "train_budget must be above 0, got 0"),
        ({"space": REPAIR}, "predict_ops is empty, but sizes asks for 5 random instructions"),
    ],
)
def test_a_search_that_cannot_be_is_refused(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        Search(**{"space": DEMO, **change})


def test_a_large_tournament_warns() -> None:
    with pytest.warns(UserWarning, match="tournament_size=10 is larger than population_size=5"):
        RegularizedEvolution(DEMO, population_size=5)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "max_train_steps or max_programs must be given"),
        ({"max_train_steps": 0}, "max_train_steps must be 1 or more, got 0"),
        ({"max_programs": 5, "target_fitness": 1.5}, "target_fitness must be 1 at most, got 1.5"),
    ],
)
def test_a_run_that_would_not_begin_is_refused(budget, message) -> None:
    with pytest.raises(ValueError, match=message):
        Search(DEMO).run(TASKS, **budget)


def test_tasks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="alike in features: task 0 has 4, task 3 5"):
        Search(DEMO).run([*TASKS, *linear_regression_tasks(1, 5)], max_programs=1)
    few = linear_regression_tasks(1, train=5, random_state=0)
    with pytest.raises(ValueError, match="its probe takes train=10 examples, the tasks have 5"):
        Search(DEMO).run(few, max_programs=1)
    with pytest.raises(ValueError, match="migrants must be 0 to half the population, 500"):
        evolve_islands(Search(DEMO), TASKS, max_train_steps=10, migrants=501)
    for change in ({"quantile": 1.0}, {"every": 0}):
        with pytest.raises(ValueError, match=r"quantile must lie|must be 1 or more"):
            Hurdle(**change)
    with pytest.raises(ValueError, match="train must be 1 or more, got 0"):
        FEC(train=0)
