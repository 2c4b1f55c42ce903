"""The AdaBelief rule on tensors, one after the other and all at once.

Both give the same result up to rounding. They write into the parameter and its state and
never into the gradient.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_torch: Any = torch  # the multi-tensor operations bear private names


@dataclass(frozen=True, slots=True)
class Batch:
    """Parameters that have a gradient, by columns; a group may hold thousands.

    Attributes:
        params: The parameters.
        grads: Their gradients.
        states: Their states, as the optimizer keeps them.
        steps: The number of this step for each, counted from 1.
        places: Where each stands among all parameters of the optimizer.
    """

    params: Sequence[Tensor]
    grads: Sequence[Tensor]
    states: Sequence[dict[str, Any]]
    steps: Sequence[int]
    places: Sequence[int]

    def rows(self) -> Iterator[tuple[Tensor, Tensor, dict[str, Any], int, int]]:
        """One parameter after the other."""
        return zip(self.params, self.grads, self.states, self.steps, self.places, strict=True)

    def pick(self, chosen: Iterable[int]) -> Batch:
        """Only the rows of those numbers."""
        rows = list(self.rows())
        return Batch.of(rows[i] for i in chosen)

    @classmethod
    def of(cls, rows: Iterable[tuple[Tensor, Tensor, dict[str, Any], int, int]]) -> Batch:
        """The batch of some rows, which may be none."""
        return cls(*(zip(*rows, strict=True))) if (rows := list(rows)) else cls((), (), (), (), ())


@dataclass(frozen=True, slots=True)
class Rule:
    """What a parameter group says for one step.

    Attributes:
        lr: Learning rate.
        betas: Decay of the mean and of the belief.
        eps: The constant inside the recurrence and beside the root.
        decay: Factor of the decoupled weight decay; 1 for none.
        pull: Coupled weight decay, added to the gradient times the parameter.
        scale: What the gradient is multiplied by: -1 to ascend, 1/s to undo a loss scale s.
        rectify: Whether the variance is rectified as in RAdam.
        degenerated_to_sgd: Whether steps too early to rectify go along the mean.
        amsgrad: Whether the largest belief so far stands in the denominator.
        stochastic_rounding: Whether bfloat16 parameters are rounded at random.
    """

    lr: float
    betas: tuple[float, float]
    eps: float
    decay: float
    pull: float
    scale: float
    rectify: bool
    degenerated_to_sgd: bool
    amsgrad: bool
    stochastic_rounding: bool

    @classmethod
    def of(cls, group: dict[str, Any], grad_scale: float = 1.0) -> Rule:
        """The rule of a parameter group whose gradients carry a loss scale."""
        lr, weight_decay = float(group["lr"]), float(group["weight_decay"])
        decay, pull = 1.0, weight_decay
        if group["weight_decouple"]:
            decay, pull = 1.0 - (weight_decay if group["fixed_decay"] else lr * weight_decay), 0.0
        return cls(
            lr=lr,
            betas=tuple(group["betas"]),
            eps=group["eps"],
            decay=decay,
            pull=pull,
            scale=(-1.0 if group["maximize"] else 1.0) / grad_scale,
            rectify=group["rectify"],
            degenerated_to_sgd=group["degenerated_to_sgd"],
            amsgrad=group["amsgrad"],
            stochastic_rounding=group["stochastic_rounding"],
        )

    def rates(self, step: int) -> tuple[float, float]:
        r"""The pair (rate, root) of a step, counted from 1.

        The parameter moves by $-\mathrm{rate} \cdot m / (\sqrt{s} \cdot \mathrm{root} + \epsilon)$;
        root 0 says that the denominator is 1 (a step along the mean, or none).
        """
        beta1, beta2 = self.betas
        rate = self.lr / (1 - beta1**step)
        power = beta2**step
        if not self.rectify:
            return rate, 1 / math.sqrt(1 - power)
        limit = 2 / (1 - beta2) - 1
        length = limit - 2 * step * power / (1 - power)
        if length < 5:
            return (rate if self.degenerated_to_sgd else 0.0), 0.0
        variance = (length - 4) / (limit - 4) * (length - 2) / length * limit / (limit - 2)
        return rate * math.sqrt((1 - power) * variance), 1.0


def check_denominator(batch: Batch, rule: Rule) -> None:
    """Refuse a step that would divide by 0; only ``eps=0`` can lead there.

    Raises:
        ZeroDivisionError: A belief would be 0. Nothing has been changed.
    """
    if rule.eps > 0:
        return
    beta1, beta2 = rule.betas
    for param, grad, state, step, place in batch.rows():
        if rule.rates(step)[1] == 0:
            continue
        belief = state["max_exp_avg_var"] if rule.amsgrad else state["exp_avg_var"]
        theta, direction = param.to(belief.dtype), grad.to(belief.dtype)
        residual = (direction * rule.scale + rule.pull * theta - state["exp_avg"]) * beta1
        zero = int(((belief * beta2 == 0) & ((1 - beta2) * residual * residual == 0)).sum())
        if zero:
            raise ZeroDivisionError(
                f"eps=0 and the belief in the gradient is 0 in {zero} elements of parameter "
                f"{place} (shape {tuple(param.shape)}): the step would divide by 0; use eps > 0"
            )


def single_tensor(batch: Batch, rule: Rule) -> None:
    """One parameter after the other, as the algorithm is written: the oracle of the others."""
    beta1, beta2 = rule.betas
    for param, grad, state, step, place in batch.rows():
        mean, belief = state["exp_avg"], state["exp_avg_var"]
        theta, direction = param.to(mean.dtype), grad.to(mean.dtype)
        if rule.scale != 1:
            direction = direction * rule.scale
        if rule.pull:
            direction = direction.add(theta, alpha=rule.pull)
        if rule.decay != 1:
            theta.mul_(rule.decay)
        mean.mul_(beta1).add_(direction, alpha=1 - beta1)
        residual = direction - mean
        belief.mul_(beta2).addcmul_(residual, residual, value=1 - beta2).add_(rule.eps)
        if rule.amsgrad:
            peak = state["max_exp_avg_var"]
            belief = peak.copy_(torch.maximum(peak, belief))
        rate, root = rule.rates(step)
        if root:
            theta.addcdiv_(mean, belief.sqrt().mul_(root).add_(rule.eps), value=-rate)
        elif rate:
            theta.add_(mean, alpha=-rate)
        if theta is not param:
            param.copy_(_narrow(theta, param, rule, step, place))


def foreach(batch: Batch, rule: Rule, *, compiled: bool = False) -> None:
    """All parameters of one kind and step count at once; ``compiled`` by torch.compile."""
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for index, (param, grad, state, step, _) in enumerate(batch.rows()):
        kind = (param.device, param.dtype, grad.dtype, state["exp_avg"].dtype, step)
        kinds.setdefault(kind, []).append(index)
    for (_, dtype, _, state_dtype, step), chosen in kinds.items():
        alike = batch.pick(chosen)
        wide = dtype != state_dtype
        thetas = [p.to(state_dtype) for p in alike.params] if wide else list(alike.params)
        directions = [g.to(state_dtype) for g in alike.grads]
        moments = [[state[name] for state in alike.states] for name in moment_names(rule.amsgrad)]
        if compiled:
            _update_compiled(thetas, directions, moments, rule, step)
        else:
            _update(thetas, directions, moments, rule, step)
        if wide:
            for param, theta, place in zip(alike.params, thetas, alike.places, strict=True):
                param.copy_(_narrow(theta, param, rule, step, place))


def moment_names(amsgrad: bool) -> tuple[str, ...]:
    """The tensors in the state of a parameter."""
    return ("exp_avg", "exp_avg_var", "max_exp_avg_var")[: 3 if amsgrad else 2]


def _update(
    thetas: list[Tensor],
    directions: list[Tensor],
    moments: list[list[Tensor]],
    rule: Rule,
    step: int,
) -> None:
    means, beliefs = moments[:2]
    beta1, beta2 = rule.betas
    if rule.scale != 1:
        directions = _torch._foreach_mul(directions, rule.scale)
    if rule.pull:
        directions = _torch._foreach_add(directions, thetas, alpha=rule.pull)
    if rule.decay != 1:
        _torch._foreach_mul_(thetas, rule.decay)
    _torch._foreach_mul_(means, beta1)
    _torch._foreach_add_(means, directions, alpha=1 - beta1)
    residuals = _torch._foreach_sub(directions, means)
    _torch._foreach_mul_(beliefs, beta2)
    _torch._foreach_addcmul_(beliefs, residuals, residuals, value=1 - beta2)
    _torch._foreach_add_(beliefs, rule.eps)
    if rule.amsgrad:
        _torch._foreach_maximum_(moments[2], beliefs)
    rate, root = rule.rates(step)
    if root:
        denominators = _torch._foreach_sqrt(moments[-1])
        _torch._foreach_mul_(denominators, root)
        _torch._foreach_add_(denominators, rule.eps)
        _torch._foreach_addcdiv_(thetas, means, denominators, value=-rate)
    elif rate:
        _torch._foreach_add_(thetas, means, alpha=-rate)


def _update_compiled(
    thetas: list[Tensor],
    directions: list[Tensor],
    moments: list[list[Tensor]],
    rule: Rule,
    step: int,
) -> None:
    """As `_update`. The numbers go as a tensor, or every change of them would compile anew."""
    (rate, root), (beta1, beta2) = rule.rates(step), rule.betas
    numbers = (rate, root, rule.decay, rule.scale, rule.pull)
    numbers += (beta1, 1 - beta1, beta2, 1 - beta2, rule.eps)
    scalars = torch.tensor(numbers, dtype=thetas[0].dtype, device=thetas[0].device)
    divided, pulled = root != 0, rule.pull != 0
    _compiled()(thetas, directions, moments, scalars, divided=divided, pulled=pulled)


@functools.cache
def _compiled() -> Callable[..., None]:
    return torch.compile(_update_by_tensors, dynamic=False)


def _update_by_tensors(
    thetas: list[Tensor],
    directions: list[Tensor],
    moments: list[list[Tensor]],
    scalars: Tensor,
    *,
    divided: bool,
    pulled: bool,
) -> None:
    rate, root, decay, scale, pull, beta1, rest1, beta2, rest2, eps = scalars.unbind()
    means, beliefs = moments[:2]
    ds = _torch._foreach_mul(directions, scale)
    if pulled:
        ds = _torch._foreach_add(ds, _torch._foreach_mul(thetas, pull))
    _torch._foreach_mul_(means, beta1)
    _torch._foreach_add_(means, _torch._foreach_mul(ds, rest1))
    residuals = _torch._foreach_sub(ds, means)
    squares = _torch._foreach_mul(residuals, residuals)
    _torch._foreach_mul_(beliefs, beta2)
    _torch._foreach_add_(beliefs, _torch._foreach_mul(squares, rest2))
    _torch._foreach_add_(beliefs, eps)
    if len(moments) == 3:
        _torch._foreach_maximum_(moments[2], beliefs)
    moves = means
    if divided:
        roots = _torch._foreach_mul(_torch._foreach_sqrt(moments[-1]), root)
        moves = _torch._foreach_div(means, _torch._foreach_add(roots, eps))
    _torch._foreach_mul_(thetas, decay)
    _torch._foreach_sub_(thetas, _torch._foreach_mul(moves, rate))


def noise_key(step: int, place: int) -> int:
    """32 bits that tell the noise of one step and parameter from that of another."""
    x = (step * 0x9E3779B1 + place * 0x85EBCA77) & 0xFFFFFFFF
    return _mix_int(x)


def _mix_int(x: int) -> int:
    x = (x ^ (x >> 16)) * 0x85EBCA6B & 0xFFFFFFFF
    x = (x ^ (x >> 13)) * 0xC2B2AE35 & 0xFFFFFFFF
    return x ^ (x >> 16)


def _narrow(theta: Tensor, param: Tensor, rule: Rule, step: int, place: int) -> Tensor:
    if rule.stochastic_rounding and param.dtype is torch.bfloat16:
        return round_at_random(theta, noise_key(step, place))
    return theta


def round_at_random(x: Tensor, key: int) -> Tensor:
    """float32 as bfloat16, up or down with the probability that keeps the mean.

    The noise is a hash of ``key`` and of the element's place: no generator is drawn from, so
    a resumed run and every rank of a distributed one round alike.

    Args:
        x: Of any shape, float32.
        key: 32 bits.

    Returns:
        bfloat16 of the same shape; what bfloat16 holds exactly, infinities and NaN stay.
    """
    low = 0xFFFFFFFF
    noise = torch.arange(x.numel(), device=x.device).mul_(0x9E3779B1).add_(key).bitwise_and_(low)
    noise = ((noise ^ (noise >> 16)) * 0x85EBCA6B).bitwise_and_(low)
    noise = ((noise ^ (noise >> 13)) * 0xC2B2AE35).bitwise_and_(low)
    noise = (noise ^ (noise >> 16)) & 0xFFFF
    bits = x.contiguous().view(torch.int32) + noise.to(torch.int32).view(x.shape)
    rounded = (bits & -0x10000).view(torch.float32)
    return torch.where(x.isfinite(), rounded, x).to(torch.bfloat16)
