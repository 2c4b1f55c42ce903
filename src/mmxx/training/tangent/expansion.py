"""The model that a network becomes when it is wide: its Taylor expansion in the parameters."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call, jvp

from mmxx.training.tangent.functional import (
    Params,
    check_model,
    chosen,
    load_forward_mode,
    plain_attention,
)


class Taylor(nn.Module):
    r"""A network's Taylor expansion in its parameters, $\sum_k \frac{1}{k!} D^k f(\theta_0)[\theta - \theta_0]^k$.

    It is trained like any module: its parameters are θ and begin at θ₀.

    Args:
        model: The network, in evaluation mode. It is copied.
        order: Of the last term; 1 makes it linear in θ.
        params0: θ₀ by name, as in `ntk`; by default the model's own. Parameters that are not
            named, and buffers, are constants.

    Attributes:
        base: The network at θ₀.
        theta: θ, in the order of `names`.
        names: Their names in the network.

    Raises:
        ValueError: The order is below 0, or the model in training mode.

    Source: the paper's linear model (order 1).

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> torch.equal(Taylor(net, 2)(torch.ones(1, 2)), net(torch.ones(1, 2)))
        True
    """  # noqa: E501

    def __init__(
        self, model: nn.Module, order: int = 1, params0: Mapping[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        if order < 0:
            raise ValueError(f"order must be 0 or more, got {order}")
        check_model(model)
        values = chosen(model, params0)
        self.order = order
        self.names = tuple(values)
        self.base = copy.deepcopy(model).eval()
        own = dict(self.base.named_parameters())
        for name, parameter in own.items():
            parameter.requires_grad_(False)
            if name in values:
                parameter.copy_(values[name])
        self.theta = nn.ParameterList([value.clone() for value in values.values()])

    def train(self, mode: bool = True) -> Taylor:
        """Set the mode; the network itself stays in evaluation mode, where it was expanded."""
        super().train(mode)
        self.base.eval()
        return self

    def forward(self, *inputs: Tensor) -> Tensor:
        """What the network takes, to what it returns."""
        load_forward_mode()
        own = dict(self.base.named_parameters())
        start: Params = {name: own[name] for name in self.names}
        step = {name: value - own[name] for name, value in zip(self.names, self.theta, strict=True)}

        def derivative(k: int, at: Params) -> Tensor:
            if k == 0:
                return functional_call(self.base, at, inputs)
            return jvp(lambda p: derivative(k - 1, p), (at,), (step,))[1]

        with plain_attention():
            terms = [derivative(k, start) / math.factorial(k) for k in range(self.order + 1)]
        return sum(terms[1:], terms[0])


def linearize(model: nn.Module, params0: Mapping[str, Tensor] | None = None) -> Taylor:
    r"""The network linear in its parameters, $f(\theta_0) + \nabla f(\theta_0)(\theta - \theta_0)$.

    Its tangent kernel is that of the network at θ₀, wherever θ goes.

    Args:
        model: The network, in evaluation mode. It is copied.
        params0: θ₀ by name, as in `ntk`; by default the model's own.

    Example:
        >>> import torch
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> optimizer = torch.optim.SGD(linearize(net).parameters(), lr=0.1)
    """
    return Taylor(model, 1, params0)


def taylor(model: nn.Module, order: int) -> Taylor:
    """The network's Taylor expansion at its present parameters; see `Taylor`.

    Args:
        model: The network, in evaluation mode. It is copied.
        order: Of the last term.

    Example:
        >>> import torch
        >>> taylor(nn.Linear(2, 1), 3)(torch.ones(1, 2)).shape
        torch.Size([1, 1])
    """
    return Taylor(model, order)
