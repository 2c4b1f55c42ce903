"""The AdaBelief optimizer (Zhuang et al., NeurIPS 2020, algorithm 2)."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from mmxx.training.adabelief import rule as rules
from mmxx.training.adabelief.fused import PLAIN, Pass
from mmxx.training.adabelief.presets import PRESETS
from mmxx.training.adabelief.rule import Batch, Rule

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_STATE_KEYS = {"step", "exp_avg", "exp_avg_var", "max_exp_avg_var"}
_layout = attrgetter("layout")
_HAS_NUMBA = importlib.util.find_spec("numba") is not None


class AdaBelief(Optimizer):
    r"""Adam that divides by the spread of the gradient about its mean, not by its size.

    With mean $m$, belief $s$ and gradient $g$ at step $t$ (algorithm 2, as the authors' code
    has it)::

        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m) ** 2 + eps
        theta -= lr * m / (1 - beta1**t) / (sqrt(s / (1 - beta2**t)) + eps)

    The updated $m$ stands in the residual, and $\epsilon$ is added inside the recurrence, so
    that it accumulates towards $\epsilon / (1 - \beta_2)$. A gradient that stays as predicted
    makes long steps. ``rectify`` scales the step as RAdam does and takes the root of $s$
    without its correction; the first steps then go along $m$.

    The state of a parameter is ``step`` (int), ``exp_avg``, ``exp_avg_var`` and, with
    ``amsgrad``, ``max_exp_avg_var``, as in adabelief-pytorch, whose checkpoints load.

    Args:
        params: Parameters, named parameters or groups; float16, bfloat16, float32 or float64.
        lr: Learning rate, a float or a tensor of one element.
        betas: Decay of the mean and of the belief.
        eps: About the square of the $\epsilon$ that Adam would be given.
        weight_decay: Strength of the weight decay.
        weight_decouple: Shrink the parameter by ``1 - lr * weight_decay``; else add the decay
            to the gradient.
        fixed_decay: Shrink by ``1 - weight_decay`` instead; with ``weight_decouple`` only.
        rectify: Rectify the variance of the early steps.
        degenerated_to_sgd: While it cannot be rectified, step along the mean; else do not step.
        amsgrad: Divide by the largest belief so far.
        maximize: Ascend.
        foreach: Update all tensors of a kind by the multi-tensor operations.
        fused: Update in one pass: by a numba kernel on the CPU, by torch.compile elsewhere.
            With ``foreach`` and ``fused`` both None the fastest that fits is taken for each
            parameter; False for either, without the other, forces the plain loop.
        state_dtype: ``torch.float32`` or ``torch.float64``, or its name; None means the
            parameter's own, float32 for 16-bit parameters. The step is computed in it.
        stochastic_rounding: Round bfloat16 parameters up or down at random so that steps
            smaller than their spacing are not lost. The noise is a hash of parameter, element
            and step: it draws from no generator, and a resumed run repeats it.

    All but ``params`` may differ between groups. A gradient with NaN or infinity makes its
    parameter NaN, as in torch.optim; `torch.amp.GradScaler` skips such a step.

    Raises:
        ValueError: An argument is outside its range; the message names it.
        TypeError: A parameter is complex or not of a floating type.

    Example:
        >>> net = torch.nn.Linear(3, 1)
        >>> optimizer = AdaBelief(net.parameters(), lr=1e-3)
        >>> net(torch.ones(2, 3)).square().mean().backward()
        >>> optimizer.step()
    """

    # GradScaler hands over grad_scale and found_inf: scaled gradients are never written to.
    _step_supports_amp_scaling = True

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        *,
        weight_decouple: bool = True,
        fixed_decay: bool = False,
        rectify: bool = True,
        degenerated_to_sgd: bool = True,
        amsgrad: bool = False,
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        state_dtype: torch.dtype | str | None = None,
        stochastic_rounding: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "weight_decouple": weight_decouple,
            "fixed_decay": fixed_decay,
            "rectify": rectify,
            "degenerated_to_sgd": degenerated_to_sgd,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "fused": fused,
            "state_dtype": state_dtype,
            "stochastic_rounding": stochastic_rounding,
        }
        _check_options(defaults)
        self._passes: dict[int, Pass] = {}
        super().__init__(params, defaults)

    @classmethod
    def preset(cls, name: str, params: ParamsT, **over: Any) -> AdaBelief:
        """An optimizer with the authors' settings for a task, a key of `PRESETS`.

        Args:
            name: The task, such as "cifar" or "transformer".
            params: As for the class.
            **over: Arguments that override the setting.

        Raises:
            ValueError: There is no such setting.

        Example:
            >>> net = torch.nn.Linear(3, 1)
            >>> AdaBelief.preset("cifar", net.parameters(), lr=3e-3).defaults["eps"]
            1e-08
        """
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
        return cls(params, **{**PRESETS[name], **over})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, also after the first step. Raises ValueError and TypeError as the class."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, got {type(param_group).__name__}")
        options = {**self.defaults, **param_group}
        _check_options(options)
        known = len(self.param_groups)
        super().add_param_group(param_group)
        try:
            for group in self.param_groups[known:]:
                group["state_dtype"] = options["state_dtype"]
                _check_params(group)
        except (TypeError, ValueError):
            del self.param_groups[known:]
            raise

    @torch.compiler.disable
    @torch.no_grad()
    def step(  # pyright: ignore[reportIncompatibleMethodOverride] - by the decorators
        self, closure: Callable[[], Any] | None = None
    ) -> Any:
        """Take one step; parameters without a gradient stay, and so does their state.

        Args:
            closure: Computes the loss again, with its gradients, and returns it.

        Returns:
            What the closure returned, or None.

        Raises:
            RuntimeError: A gradient is sparse, or ``fused=True`` and a tensor does not fit.
                Nothing has been changed, the closure's doing apart.
            ZeroDivisionError: ``eps=0`` and a belief would be 0. Likewise.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        if found_inf is not None and float(found_inf):
            return loss
        grad_scale = getattr(self, "grad_scale", None)
        scale = 1.0 if grad_scale is None else float(grad_scale)

        work: list[tuple[Batch, Callable[[], None]]] = []
        place = 0
        for index, group in enumerate(self.param_groups):
            batch = self._batch(group, place)
            work.append((batch, self._route(index, group, Rule.of(group, scale), batch)))
            place += len(group["params"])
        for batch, update in work:
            update()
            for state, step in zip(batch.states, batch.steps, strict=True):
                state["step"] = step
        return loss

    def _batch(self, group: dict[str, Any], first: int) -> Batch:
        """The parameters that have a gradient, with their state; it is made where missing."""
        params = group["params"]
        grads = [param.grad for param in params]
        places: Sequence[int] = range(first, first + len(params))
        kinds = set(map(type, grads))
        if type(None) in kinds:
            places = [first + row for row, grad in enumerate(grads) if grad is not None]
            params = [params[place - first] for place in places]
            grads = [grads[place - first] for place in places]
        if not set(map(_layout, grads)) <= {torch.strided}:
            raise RuntimeError("AdaBelief does not support sparse gradients; use SparseAdam")
        states = [self.state[param] for param in params]
        if not all(states):
            for param, state in zip(params, states, strict=True):
                if not state:
                    dtype = _state_dtype(group, param)
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(param, dtype=dtype)
                    state["exp_avg_var"] = torch.zeros_like(param, dtype=dtype)
        if group["amsgrad"]:
            for state in states:
                if "max_exp_avg_var" not in state:  # the first step, or switched on later
                    state["max_exp_avg_var"] = state["exp_avg_var"].clone()
        return Batch(params, grads, states, [state["step"] + 1 for state in states], places)

    def _route(
        self, index: int, group: dict[str, Any], rule: Rule, batch: Batch
    ) -> Callable[[], None]:
        """The update by the paths that a group asks for. Changes nothing until it is called."""
        foreach, fused = group["foreach"], group["fused"]
        if not set(map(type, batch.params)) <= PLAIN:
            batch = Batch.of(map(_shard, batch.rows()))
        rules.check_denominator(batch, rule)
        if foreach:
            return partial(rules.foreach, batch, rule)
        if not fused and not (fused is None and foreach is None):
            return partial(rules.single_tensor, batch, rule)

        known = self._passes.get(index)
        if known is not None and known.again(batch, rule.amsgrad):
            return partial(known.run, rule)
        on_cpu = [row for row, param in enumerate(batch.params) if param.is_cpu]
        elsewhere = [row for row, param in enumerate(batch.params) if not param.is_cpu]
        here = batch.pick(on_cpu)
        if not (fused or _HAS_NUMBA):
            return partial(_update, None, here, batch.pick(elsewhere), rule, compiled=False)
        known = Pass(here, rule.amsgrad)
        if known.reusable and not elsewhere:
            self._passes[index] = known
        left = here.pick(known.left)
        if fused and left.places:
            reason = next(iter(known.left.values()))
            raise RuntimeError(f"fused=True does not fit parameter {left.places[0]}: {reason}")
        return partial(_update, known, left, batch.pick(elsewhere), rule, compiled=bool(fused))

    @torch.compiler.disable
    def load_state_dict(  # pyright: ignore[reportIncompatibleMethodOverride] - by the decorator
        self, state_dict: dict[str, Any]
    ) -> None:
        """Load a state of AdaBelief or of adabelief-pytorch.

        Options that the saved groups lack (adabelief-pytorch keeps most outside of them) stay
        as they are here. The state keeps its own precision.

        Raises:
            ValueError: The state belongs to another optimizer, to parameters of another shape,
                or holds an option outside its range.
        """
        handle = self.register_load_state_dict_pre_hook(_prepare)  # after those of the user
        try:
            super().load_state_dict(state_dict)
        finally:
            handle.remove()

    @torch.no_grad()
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._passes = {}
        for group in self.param_groups:
            for name, value in self.defaults.items():
                if name != "differentiable":
                    group.setdefault(name, value)
            for param in group["params"]:
                for name, value in self.state.get(param, {}).items():
                    if isinstance(value, _Held):  # a copy of its own, laid out as the parameter
                        own = torch.empty_like(param, dtype=_state_dtype(group, param))
                        self.state[param][name] = own.copy_(value.tensor)


class _Held:
    """Carries a tensor past the base class, which would round it to the parameter's type."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _prepare(optimizer: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
    """The state dict as the base class may load it; refuses what is not ours."""
    here = optimizer.param_groups
    saved_groups = [dict(group) for group in state_dict["param_groups"]]
    for group, saved in zip(here, saved_groups, strict=False):  # the base class counts them
        saved.pop("buffer", None)
        for name, value in group.items():
            if name not in ("params", "param_names"):
                saved.setdefault(name, value)
        _check_options(saved)
    pairs = zip(
        (key for group in saved_groups for key in group["params"]),
        (param for group in here for param in group["params"]),
        strict=False,
    )
    states = dict(state_dict["state"])
    for key, param in pairs:
        if key in states:
            states[key] = _prepare_state(key, states[key], param)
    return {**state_dict, "param_groups": saved_groups, "state": states}


def _prepare_state(key: Any, state: dict[str, Any], param: Tensor) -> dict[str, Any]:
    missing = {"step", "exp_avg", "exp_avg_var"} - set(state)
    if state and (missing or set(state) - _STATE_KEYS):
        raise ValueError(
            f"state of parameter {key}: expected {', '.join(sorted(_STATE_KEYS))} "
            f"(the last with amsgrad only), got {', '.join(map(str, state))}: "
            "not a state of AdaBelief"
        )
    prepared: dict[str, Any] = {}
    for name, value in state.items():
        if name == "step":
            prepared[name] = int(value)
        elif not isinstance(value, Tensor) or value.shape != param.shape:
            got = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"state of parameter {key}: {name} must have the shape {tuple(param.shape)}, "
                f"got {got}"
            )
        else:
            prepared[name] = _Held(value)
    return prepared


def _check_options(options: dict[str, Any]) -> None:
    """Raise for a value outside its range; bring ``state_dtype`` to its stored form, a name."""
    lr = options["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"lr must be a number or a tensor of one element, got {lr.numel()}")
    for name in ("lr", "eps", "weight_decay"):
        if not 0.0 <= float(options[name]) < math.inf:
            raise ValueError(f"{name} must be finite and 0 or more, got {options[name]}")
    betas = options["betas"]
    if len(betas) != 2:
        raise ValueError(f"betas must be two numbers, got {betas!r}")
    for index, beta in enumerate(betas):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"betas[{index}] must be in [0, 1), got {beta}")
    if options["foreach"] and options["fused"]:
        raise ValueError("foreach and fused must not both be True")
    wanted = options["state_dtype"]
    name = str(wanted).removeprefix("torch.") if wanted is not None else None
    if name not in (None, "float32", "float64"):
        raise ValueError(f"state_dtype must be float32, float64 or None, got {wanted!r}")
    options["state_dtype"] = name


def _check_params(group: dict[str, Any]) -> None:
    dtypes = {param.dtype for param in group["params"]}
    for dtype in dtypes:
        if dtype.is_complex:
            raise TypeError(
                f"params: AdaBelief does not take complex parameters ({dtype}); "
                "optimize torch.view_as_real of them"
            )
        if dtype not in _DTYPES:
            accepted = ", ".join(str(d).removeprefix("torch.") for d in _DTYPES)
            raise TypeError(f"params: dtype must be one of {accepted}, got {dtype}")
    if group["stochastic_rounding"] and torch.float16 in dtypes:
        raise ValueError("stochastic_rounding=True takes no float16 parameters, only bfloat16")
    if group["state_dtype"] == "float32" and torch.float64 in dtypes:
        raise ValueError("state_dtype=float32 is too coarse for float64 parameters")
    if not group["fused"]:
        return
    devices = {param.device for param in group["params"]}
    if len(dtypes) > 1 or len(devices) > 1:
        kinds = ", ".join(sorted(f"{p.dtype} on {p.device}" for p in group["params"]))
        raise ValueError(
            "fused=True needs one dtype and one device in a group, got "
            f"{kinds}; make a group of each, or leave fused=None"
        )


def _state_dtype(group: dict[str, Any], param: Tensor) -> torch.dtype:
    if group["state_dtype"] is not None:
        return getattr(torch, group["state_dtype"])
    return torch.float32 if param.dtype in (torch.float16, torch.bfloat16) else param.dtype


def _update(
    one_pass: Pass | None, single: Batch, elsewhere: Batch, rule: Rule, *, compiled: bool
) -> None:
    if one_pass is not None:
        one_pass.run(rule)
    rules.single_tensor(single, rule)
    rules.foreach(elsewhere, rule, compiled=compiled)


def _shard(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The rank's part of distributed tensors: the rule is element-wise, each does its own."""
    param, grad, state, step, place = row
    if not hasattr(param, "to_local"):
        return row
    if grad.placements != param.placements:
        grad = grad.redistribute(placements=param.placements)
    tensors = {name: value for name, value in state.items() if name != "step"}
    local = {name: value.to_local() for name, value in tensors.items()}
    return param.to_local(), grad.to_local(), local, step, place
