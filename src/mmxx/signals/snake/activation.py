r"""The Snake activation: $\mathrm{Snake}_a(x) = x + \sin^2(ax)/a$ (Ziyin, Hartwig and Ueda, 2020).

It is monotone (its slope $1 + \sin 2ax$ lies in [0, 2]) and it wiggles with period $\pi/a$, so a
network of it trains like one of ReLU and can go on with a cycle beyond its data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

# Below this |a| stands for 0. Its square still has a reciprocal in that precision, and
# x + |a| x^2 rounds to x, so neither the value nor the slopes need a branch.
_SMALLEST_A = {torch.float32: 1e-15, torch.float64: 1e-100}


def _sinc(u: Tensor) -> Tensor:
    return torch.sinc(u / math.pi)


class _SnakeFunction(torch.autograd.Function):
    """Forward and backward that keep no more than ``x`` and ``a``, and work in place."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, a: Tensor) -> Tensor:
        wide, a, reciprocal = _prepare(x, a)
        return (wide * a).sin_().pow_(2).mul_(reciprocal).add_(wide).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (grad,) = grad_outputs
        x, a = cast("tuple[Tensor, Tensor]", ctx.saved_tensors)
        if torch.is_grad_enabled():
            return _differentiable_backward(grad, x, a)
        wide, safe, reciprocal = _prepare(x, a)
        wide_grad = grad.to(wide.dtype)
        phase = wide * safe
        sine = phase.sin()
        # sin(2ax) = 2 sin(ax) cos(ax): the one sine and cosine serve both slopes.
        slope = wide_grad * sine
        grad_a = None
        if ctx.needs_input_grad[1]:
            each = (slope * sine).mul_(-reciprocal)
            slope.mul_(phase.cos_()).mul_(2)
            each.addcmul_(slope, wide)
            grad_a = each.sum_to_size(a.shape).mul(reciprocal).to(a.dtype)
        else:
            slope.mul_(phase.cos_()).mul_(2)
        grad_x = slope.add_(wide_grad).to(x.dtype) if ctx.needs_input_grad[0] else None
        return grad_x, grad_a


def _prepare(x: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` and ``a`` in at least single precision (a phase of 100 has no digits left in bf16)."""
    dtype = torch.promote_types(torch.promote_types(x.dtype, a.dtype), torch.float32)
    wide, a = x.to(dtype), a.to(dtype)
    smallest = _SMALLEST_A[dtype]
    a = torch.where(a.abs() < smallest, smallest, a)
    return wide, a, a.reciprocal()


def _differentiable_backward(grad: Tensor, x: Tensor, a: Tensor) -> tuple[Tensor, Tensor]:
    """The same slopes in operations that autograd can differentiate, at a = 0 too.

    With S(u) = sin(u)/u, the slope along a is x^2 (2 S(2ax) - S(ax)^2).
    """
    dtype = torch.promote_types(torch.promote_types(x.dtype, a.dtype), torch.float32)
    wide_grad, wide, wide_a = grad.to(dtype), x.to(dtype), a.to(dtype)
    phase = wide * wide_a
    grad_x = wide_grad * (1 + torch.sin(2 * phase))
    grad_a = wide_grad * wide.square() * (2 * _sinc(2 * phase) - _sinc(phase).square())
    return grad_x.to(x.dtype), grad_a.sum_to_size(a.shape).to(a.dtype)


def snake(x: Tensor, a: Tensor | float = 1.0) -> Tensor:
    r"""Apply $x + \sin^2(ax)/a$ elementwise; $a = 0$ gives the limit $x$, whose slope in a is x².

    Fused forward and backward; can be differentiated twice. Half-precision input is worked on
    in single precision and handed back in its own precision.

    Args:
        x: Floating-point tensor of any shape.
        a: Number, or tensor that broadcasts to the shape of ``x``. Any sign; the period of
            the wiggle is $\pi/|a|$.

    Returns:
        Tensor of the shape and dtype of ``x``.

    Raises:
        TypeError: ``x`` or ``a`` is not real floating point.
        ValueError: ``a`` is a NaN or infinite number, or its shape does not broadcast to x's.

    Example:
        >>> snake(torch.tensor([0.0, 1.0, 2.0]), 2.0)
        tensor([0.0000, 1.4134, 2.2864])
    """
    if not x.is_floating_point():
        raise TypeError(f"snake: x must be a floating-point tensor, got {x.dtype}")
    if not isinstance(a, Tensor):
        if not math.isfinite(a):
            raise ValueError(f"snake: a must be finite, got {a}")
        a = torch.tensor(a, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    elif not a.is_floating_point():
        raise TypeError(f"snake: a must be a floating-point tensor or a number, got {a.dtype}")
    if a.ndim and not _broadcasts(a.shape, x.shape):
        raise ValueError(
            f"snake: a of shape {tuple(a.shape)} does not broadcast to x of shape {tuple(x.shape)}"
        )
    return cast("Tensor", _SnakeFunction.apply(x, a))


def _broadcasts(small: Sequence[int], large: Sequence[int]) -> bool:
    if len(small) > len(large):
        return False
    return all(s in (1, n) for s, n in zip(reversed(small), reversed(large), strict=False))


def _initial(
    owner: str,
    name: str,
    shape: tuple[int, ...],
    value: float | str | Tensor,
    logscale: bool,
    generator: torch.Generator | None,
) -> Tensor:
    """The first value of a per-feature parameter, checked, in the scale it is stored in."""
    if isinstance(value, str):
        if value != "exponential":
            raise ValueError(
                f"{owner}: {name} must be a number, a tensor or 'exponential', got {value!r}"
            )
        tensor = torch.empty(shape).exponential_(generator=generator)
    elif isinstance(value, Tensor):
        if not _broadcasts(value.shape, shape):
            raise ValueError(
                f"{owner}: {name} of shape {tuple(value.shape)} does not fit in_features {shape}"
            )
        dtype = value.dtype if value.is_floating_point() else torch.float32
        tensor = value.detach().to(dtype).expand(shape).clone()
    else:
        tensor = torch.full(shape, float(value))
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{owner}: {name} must be finite, got {value}")
    if logscale:
        if not (tensor > 0).all():
            raise ValueError(f"{owner}: {name} must be positive with logscale=True, got {value}")
        tensor = tensor.log()
    return tensor


class _PerFeature(nn.Module):
    """What Snake and SnakeBeta share: the shape of the parameters and where they broadcast."""

    def __init__(
        self, in_features: int | Sequence[int], trainable: bool, dim: int, logscale: bool
    ) -> None:
        super().__init__()
        shape = (in_features,) if isinstance(in_features, int) else tuple(in_features)
        if not shape or any(size < 1 for size in shape):
            raise ValueError(
                f"{type(self).__name__}: in_features must be one or more positive integers, "
                f"got {in_features}"
            )
        self.in_features = in_features
        self.trainable = trainable
        self.dim = dim
        self.logscale = logscale
        self._shape = shape

    def _store(self, name: str, value: Tensor) -> None:
        if self.trainable:
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def _placed(self, parameter: Tensor, x: Tensor) -> Tensor:
        """The parameter with its last axis at ``dim`` of ``x``, out of its logarithm if so kept."""
        after = -1 - self.dim if self.dim < 0 else x.ndim - 1 - self.dim
        shape = (*parameter.shape, *(1,) * max(after, 0))
        if after < 0 or not _broadcasts(shape, x.shape):
            wanted = ", ".join(map(str, self._shape))
            raise ValueError(
                f"{type(self).__name__}: expected ({wanted}) features ending at axis {self.dim}, "
                f"got an input of shape {tuple(x.shape)}"
            )
        placed = parameter.reshape(shape)
        return placed.exp() if self.logscale else placed

    def extra_repr(self) -> str:
        return (
            f"{self.in_features}, trainable={self.trainable}, dim={self.dim}, "
            f"logscale={self.logscale}"
        )


class Snake(_PerFeature):
    r"""Snake with one frequency ``a`` per feature, $x + \sin^2(ax)/a$.

    Takes the place of ``snake.activations.Snake`` of torch-snake: the same positional
    arguments, the same key ``a`` in the state dict, the same values and gradients. It differs
    in that the output keeps the input's dtype.

    Args:
        in_features: Number of features, or the shape of several feature axes; 1 shares one
            ``a`` among all.
        a: First value: a number, a tensor that broadcasts to the features, or
            ``"exponential"``, drawn from Exponential(1). The wiggle has period $\pi/a$: take 5
            to 50 for data known to be periodic on [-1, 1], 0.2 for other data.
        trainable: Whether ``a`` is a parameter, else a buffer.
        dim: The axis of the input that holds the (last) feature axis: -1 for [..., C], 1 for
            [B, C, T] and [B, C, H, W].
        logscale: Store log a, so that ``a`` stays positive and steps are relative.
        generator: Draws ``a`` where it is ``"exponential"``; torch's default one without it.

    Attributes:
        a: Tensor of shape [in_features]: ``a``, or its logarithm with ``logscale``.

    Raises:
        ValueError: At construction: a size below 1, ``a`` not finite, not positive with
            ``logscale``, or of a shape that does not fit. At a call: the input's axis ``dim``
            does not have ``in_features`` entries.

    Example:
        >>> layer = Snake(3, a=2.0, dim=1)
        >>> layer(torch.zeros(8, 3, 100)).shape  # [B, C, T]
        torch.Size([8, 3, 100])
    """

    a: Tensor

    def __init__(
        self,
        in_features: int | Sequence[int],
        a: float | Literal["exponential"] | Tensor = 1.0,
        trainable: bool = True,
        *,
        dim: int = -1,
        logscale: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, trainable, dim, logscale)
        self._store("a", _initial("Snake", "a", self._shape, a, logscale, generator))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation. ``x``: floating point, its axis ``dim`` of size in_features."""
        return snake(x, self._placed(self.a, x))


class SnakeBeta(_PerFeature):
    r"""Snake with a magnitude of its own: $x + \sin^2(ax)/b$ (BigVGAN, arXiv 2206.04658).

    Args:
        in_features: As in :class:`Snake`.
        a: First value of the frequency; a number, a tensor or ``"exponential"``.
        b: First value of the inverse magnitude, alike. Not 0.
        trainable: Whether ``a`` and ``b`` are parameters, else buffers.
        dim: As in :class:`Snake`.
        logscale: Store log a and log b.
        generator: Draws ``"exponential"`` values.

    Raises:
        ValueError: As :class:`Snake`; and ``b`` holds a 0, where the magnitude has no limit.

    Example:
        >>> SnakeBeta(3, a=2.0, b=4.0)(torch.tensor([[0.0, 1.0, 2.0]])).detach()
        tensor([[0.0000, 1.2067, 2.1432]])
    """

    a: Tensor
    b: Tensor

    def __init__(
        self,
        in_features: int | Sequence[int],
        a: float | Literal["exponential"] | Tensor = 1.0,
        b: float | Literal["exponential"] | Tensor = 1.0,
        trainable: bool = True,
        *,
        dim: int = -1,
        logscale: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(in_features, trainable, dim, logscale)
        self._store("a", _initial("SnakeBeta", "a", self._shape, a, logscale, generator))
        first_b = _initial("SnakeBeta", "b", self._shape, b, logscale, generator)
        if not logscale and (first_b == 0).any():
            raise ValueError(f"SnakeBeta: b must not be 0, got {b}")
        self._store("b", first_b)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the activation. ``x``: floating point, its axis ``dim`` of size in_features."""
        a, b = self._placed(self.a, x), self._placed(self.b, x)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide + torch.sin(wide * a).square() / b).to(x.dtype)


def convert(
    model: nn.Module,
    from_: type[nn.Module] | tuple[type[nn.Module], ...] = nn.ReLU,
    *,
    a: float = 1.0,
    trainable: bool = True,
) -> nn.Module:
    """Replace every activation of a kind by Snake, in place.

    Each replaced module gets one ``a`` that its features share: a module like ``nn.ReLU`` does
    not know how many features it is handed. A module used in two places stays one.

    Args:
        model: The network. Its other modules and weights are left as they are.
        from_: The class, or classes, to replace.
        a: First value of each ``a``.
        trainable: Whether each ``a`` is a parameter. Build the optimizer after converting.

    Returns:
        ``model``; or the new Snake where ``model`` is itself of the kind.

    Raises:
        ValueError: The model holds no such module (a call of ``F.relu`` is no module).

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> convert(net)[1]
        Snake(1, trainable=True, dim=-1, logscale=False)
    """
    if isinstance(model, from_):
        return Snake(1, a, trainable)
    like = next(model.parameters(), None)
    made: dict[int, Snake] = {}
    for parent in list(model.modules()):
        # Not named_children: it names a module that is used twice only once.
        for name, child in parent._modules.items():
            if not isinstance(child, from_):
                continue
            if id(child) not in made:
                new = Snake(1, a, trainable).train(child.training)
                made[id(child)] = new if like is None else new.to(like.device)
            parent._modules[name] = made[id(child)]
    if not made:
        raise ValueError(f"convert: the model holds no module of {from_}")
    return model


def snake_variance(a: float) -> float:
    r"""Variance of $\mathrm{Snake}_a(x)$ for $x \sim N(0, 1)$ (section 5).

    $\sigma_a^2 = 1 + (1 + e^{-8a^2} - 2e^{-4a^2})/(8a^2)$; at least 1, largest (1.20) at
    $a = 0.56$, and 1 at $a = 0$ and for large ``a``.

    Raises:
        ValueError: ``a`` is not finite.

    Example:
        >>> round(snake_variance(1.0), 4)
        1.1205
    """
    if not math.isfinite(a):
        raise ValueError(f"snake_variance: a must be finite, got {a}")
    if a == 0:
        return 1.0
    return 1.0 + (math.expm1(-4 * a * a) / a) ** 2 / 8


@torch.no_grad()
def snake_init_(
    layer: nn.Module, a: float | None, *, generator: torch.Generator | None = None
) -> nn.Module:
    r"""Initialise, in place, a layer that reads the output of Snake (section 5).

    Weights are drawn from $U(\pm\sqrt{3/d})$, d the fan-in, and divided by $\sigma_a$, so that
    units of variance 1 over the data before the activation give units of variance 1 after the
    layer; biases become 0.

    Args:
        layer: ``nn.Linear`` or a convolution.
        a: The ``a`` of the Snake before the layer; None for a first layer, whose input is
            taken to have variance 1.
        generator: Draws the weights; torch's default one without it.

    Returns:
        ``layer``.

    Raises:
        TypeError: The layer has no weight of two or more axes.
        ValueError: ``a`` is not finite.

    Example:
        >>> layer = snake_init_(nn.Linear(300, 5), 1.0)
        >>> float(layer.weight.abs().max()) <= (3 / 300 / snake_variance(1.0)) ** 0.5
        True
    """
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        raise TypeError(
            f"snake_init_: layer must be linear or a convolution, got {type(layer).__name__}"
        )
    deviation = 1.0 if a is None else math.sqrt(snake_variance(a))
    bound = math.sqrt(3 / weight[0].numel()) / deviation
    weight.uniform_(-bound, bound, generator=generator)
    bias = getattr(layer, "bias", None)
    if isinstance(bias, Tensor):
        bias.zero_()
    return layer
