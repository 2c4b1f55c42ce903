"""The checks of public objects: functions, modules, optimizers and estimators."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal

import numpy as np

from mmxx.lab import checkpoint
from mmxx.lab.testing.watching import global_states, same_states

Kind = Literal["module", "optimizer", "estimator", "function"]


@dataclass(frozen=True)
class Case:
    """One public object and what to call it with.

    Attributes:
        make: Builds the module, estimator or optimizer, or returns the function. That of an
            optimizer takes the list of parameters.
        args: Builds valid arguments: tensors or arrays whose first axis counts samples.
        kind: Which checks apply: "module", "optimizer", "estimator" (scikit-learn's own) or
            "function".
        name: Shown in the name of the test.
        per_sample: Whether the first axis of the arguments and the result are the same
            samples, so that no sample and one sample are valid input.
    """

    make: Callable[..., Any]
    args: Callable[[], tuple[Any, ...]] = tuple
    kind: Kind = "function"
    name: str = ""
    per_sample: bool = True


def _is_array(value: object) -> bool:
    return isinstance(value, np.ndarray) or checkpoint.is_tensor(value)


def _each(value: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a change to every array and tensor of a tree."""
    if _is_array(value):
        return change(value)
    if isinstance(value, (list, tuple)):
        parts = [_each(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {key: _each(v, change) for key, v in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        twin = copy.copy(value)  # its own checks need not hold for what stands in for arrays
        for field in fields(value):
            object.__setattr__(twin, field.name, _each(getattr(value, field.name), change))
        return twin
    return value


def _bits(value: Any) -> Any:
    """A tree with arrays replaced by what must be equal in a repetition."""

    def of(array: Any) -> Any:
        array = array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()
        return ("array", array.dtype.str, array.shape, array.tobytes())

    return _each(value, of)


def _floats(value: Any, dtype: str) -> Any:
    def change(array: Any) -> Any:
        if isinstance(array, np.ndarray):
            return array.astype(dtype) if array.dtype.kind == "f" else array
        return (
            array.to(getattr(sys.modules["torch"], dtype)) if array.is_floating_point() else array
        )

    return _each(value, change)


def _strided(value: Any) -> Any:
    """The same numbers in memory that is not contiguous."""

    def change(array: Any) -> Any:
        if array.ndim == 0:
            return array
        if isinstance(array, np.ndarray):
            wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
            wide[..., ::2] = array
            return wide[..., ::2]
        wide = array.new_zeros((*array.shape[:-1], 2 * array.shape[-1]))
        wide[..., ::2] = array
        return wide[..., ::2]

    return _each(value, change)


def _call(case: Case, args: tuple[Any, ...], dtype: str | None = None) -> Any:
    thing = case.make()
    if case.kind == "module":
        thing = thing.double() if dtype == "float64" else thing
    return thing(*args)


def inputs_are_not_changed(case: Case) -> None:
    """The arguments have the same bits after the call."""
    args = case.args()
    before = copy.deepcopy(_bits(args))
    _call(case, args)
    assert _bits(args) == before, "an argument was changed in place"


def repeats_bit_for_bit(case: Case) -> None:
    """The same object and arguments, made and called twice, give the same bits."""
    assert _bits(_call(case, case.args())) == _bits(_call(case, case.args()))


def keeps_global_generators(case: Case) -> None:
    """The call leaves the generators of random, numpy and torch where they were."""
    thing, args = case.make(), case.args()
    before = global_states()
    thing(*args)
    assert same_states(before, global_states()), "a global random generator has moved"


def takes_float64(case: Case) -> None:
    """Doubles in, doubles out, and close to the result in single precision."""
    single = _numbers(_call(case, _floats(case.args(), "float32")))
    double = _numbers(_call(case, _floats(case.args(), "float64"), "float64"))
    for one, other in zip(single, double, strict=True):
        assert other.dtype in (np.float64, np.complex128), f"doubles became {other.dtype}"
        scale = max(1.0, float(np.abs(other).max(initial=0.0)))
        assert np.allclose(one, other, rtol=1e-3, atol=1e-3 * scale, equal_nan=True)


def _numbers(value: Any) -> list[np.ndarray]:
    found: list[np.ndarray] = []

    def keep(array: Any) -> Any:
        array = array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()
        if array.dtype.kind in "fc":
            found.append(array)
        return array

    _each(value, keep)
    return found


def takes_strided_input(case: Case) -> None:
    """Memory that is not contiguous gives the same result."""
    plain, strided = _call(case, case.args()), _call(case, _strided(case.args()))
    for one, other in zip(_numbers(plain), _numbers(strided), strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True)


def takes_no_and_one_sample(case: Case) -> None:
    """One sample gives one result; none gives none, or an error that says so."""
    if not case.per_sample:
        return
    one = _call(case, _each(case.args(), lambda array: array[:1]))
    assert all(len(array) == 1 for array in _numbers(one)), "one sample gave another number"
    try:
        none = _call(case, _each(case.args(), lambda array: array[:0]))
    except ValueError as error:
        assert str(error).strip(), "no sample raises an error without words"
    else:
        assert all(len(array) == 0 for array in _numbers(none)), "no sample gave a result"


def survives_copy_and_state_dict(case: Case) -> None:
    """A deep copy, and a new object that loads the state, give the same bits."""
    thing, args = case.make(), case.args()
    expected = _bits(thing(*args))
    assert _bits(copy.deepcopy(thing)(*args)) == expected, "a deep copy differs"
    torch = sys.modules["torch"]
    state = {name: value.clone() for name, value in thing.state_dict().items()}
    other = case.make()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(state)
    assert _bits(other(*args)) == expected, "an object that loads the state differs"


def has_finite_gradients(case: Case) -> None:
    """Every parameter gets a finite gradient."""
    thing = case.make()
    torch = sys.modules["torch"]
    outputs: list[Any] = []
    _each(thing(*case.args()), outputs.append)
    losses = [out.double().pow(2).sum() for out in outputs if out.is_floating_point()]
    torch.stack(losses).sum().backward()
    for name, parameter in thing.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} gets no gradient"
            assert torch.isfinite(parameter.grad).all(), f"{name} gets a gradient with NaN or inf"


def _quadratic(dtype: Any = None) -> tuple[Any, Callable[[], Any]]:
    import torch

    generator = torch.Generator().manual_seed(0)
    start = torch.randn(6, 5, generator=generator).to(dtype or torch.float32)
    weights = torch.nn.Parameter(start)
    return weights, lambda: (weights**2).sum()


def _descend(weights: Any, loss: Callable[[], Any], optimizer: Any, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def optimizer_descends(case: Case) -> None:
    """A quadratic bowl gets lower, in single and double precision."""
    import torch

    for dtype in (torch.float32, torch.float64):
        weights, loss = _quadratic(dtype)
        before = loss().item()
        _descend(weights, loss, case.make([weights]), 60)
        assert loss().item() < before, f"the loss did not fall in {dtype}"
        assert weights.dtype == dtype, f"{dtype} parameters became {weights.dtype}"


def optimizer_resumes(case: Case) -> None:
    """With its state loaded, or copied, an optimizer goes on bit for bit."""
    weights, loss = _quadratic()
    optimizer = case.make([weights])
    _descend(weights, loss, optimizer, 5)
    middle, state = weights.detach().clone(), copy.deepcopy(optimizer.state_dict())
    _descend(weights, loss, optimizer, 5)
    other, other_loss = _quadratic()
    other.data.copy_(middle)
    resumed = case.make([other])
    resumed.load_state_dict(state)
    _descend(other, other_loss, resumed, 5)
    assert _bits(weights) == _bits(other), "a resumed optimizer goes another way"
    copied_weights, copied = copy.deepcopy((weights, optimizer))
    _descend(weights, loss, optimizer, 3)
    _descend(copied_weights, lambda: (copied_weights**2).sum(), copied, 3)
    assert _bits(weights) == _bits(copied_weights), "a deep copy goes another way"


def optimizer_leaves_gradients(case: Case) -> None:
    """A step does not change the gradient, and skips a parameter that has none."""
    weights, loss = _quadratic()
    idle, _ = _quadratic()
    optimizer = case.make([weights, idle])
    loss().backward()
    before, still = _bits(weights.grad), _bits(idle)
    optimizer.step()
    assert _bits(weights.grad) == before, "the step changed the gradient"
    assert _bits(idle) == still, "a parameter without a gradient moved"


def optimizer_takes_strided_parameters(case: Case) -> None:
    """Parameters and gradients that are not contiguous move as contiguous ones do."""
    import torch

    weights, _ = _quadratic()
    strided = torch.nn.Parameter(weights.detach().t().contiguous().t())
    for parameter in (weights, strided):
        optimizer = case.make([parameter])
        _descend(parameter, lambda p=parameter: (p**2).sum(), optimizer, 5)
    assert torch.allclose(weights, strided, rtol=1e-5, atol=1e-7)


def optimizer_keeps_global_generators(case: Case) -> None:
    """Steps leave the global generators alone."""
    weights, loss = _quadratic()
    optimizer = case.make([weights])
    before = global_states()
    _descend(weights, loss, optimizer, 2)
    assert same_states(before, global_states()), "a global random generator has moved"


def passes_check_estimator(case: Case) -> None:
    """Every check of scikit-learn's own contract, without an exception."""
    from sklearn.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(case.make())


def estimator_repeats(case: Case) -> None:
    """Fitted twice with one random_state it predicts the same bits; nothing global moves."""
    from sklearn.base import clone

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40)
    first: Any = case.make()
    if "random_state" in first.get_params():
        first.set_params(random_state=0)
    second: Any = clone(first)
    kept, before = (X.copy(), y.copy()), global_states()
    results = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few steps need not converge
        for model in (first, second):
            model.fit(X, y)
            method = "predict" if hasattr(model, "predict") else "transform"
            results.append(_bits(np.asarray(getattr(model, method)(X))))
    assert results[0] == results[1], "two fits with one random_state differ"
    assert same_states(before, global_states()), "a global random generator has moved"
    assert np.array_equal(kept[0], X), "fit changed X"
    assert np.array_equal(kept[1], y), "fit changed y"


_CALLED = (
    inputs_are_not_changed,
    repeats_bit_for_bit,
    keeps_global_generators,
    takes_float64,
    takes_strided_input,
    takes_no_and_one_sample,
)
CHECKS: dict[Kind, tuple[Callable[[Case], None], ...]] = {
    "function": _CALLED,
    "module": (*_CALLED, survives_copy_and_state_dict, has_finite_gradients),
    "optimizer": (
        optimizer_descends,
        optimizer_resumes,
        optimizer_leaves_gradients,
        optimizer_takes_strided_parameters,
        optimizer_keeps_global_generators,
    ),
    "estimator": (passes_check_estimator, estimator_repeats),
}
