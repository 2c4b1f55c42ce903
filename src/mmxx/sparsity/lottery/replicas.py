"""Many small networks trained as one: replicates, seeds and arms side by side."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmxx.sparsity._common import Masks

# what treats every number alone, so that one more axis in front changes nothing
ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.LeakyReLU, nn.ELU, nn.Identity)


class Replicas(nn.Module):
    """E networks of one architecture as one network, whose parameters are stacked.

    Nothing passes between them: trained on the sum of their losses, by an optimizer that works
    element by element (not one that takes norms over a parameter, nor with clipped norms), each
    moves as it would alone. A chain of linear layers becomes one batched product a layer; any
    other network goes through ``torch.vmap``. Names of parameters are those of one network below
    ``net.``; their first axis counts the networks. Buffers are not stacked and must not change.

    Args:
        make: Builds one network; it draws from torch's default generator.
        seeds: One for each network; torch's default generator is given back.

    Attributes:
        count: E, the number of networks.
        net: One network's modules, with stacked parameters.

    Raises:
        ValueError: There is no seed, the networks differ in their parameters, share some within
            themselves, or have running statistics (batch normalisation), which would mix.

    Example:
        >>> nets = Replicas(lambda: nn.Linear(3, 2), seeds=range(4))
        >>> nets(torch.zeros(4, 5, 3)).shape  # [networks, samples, outputs]
        torch.Size([4, 5, 2])
    """

    def __init__(self, make: Callable[[], nn.Module], seeds: Sequence[int]) -> None:
        super().__init__()
        self.count = len(seeds)
        if not self.count:
            raise ValueError("seeds must hold one seed or more")
        networks = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(seed))
                networks.append(make())
        parts = [dict(network.named_parameters()) for network in networks]
        if len(parts[0]) != len(list(networks[0].named_parameters(remove_duplicate=False))):
            raise ValueError("make must give networks without shared parameters")
        shapes = [{name: p.shape for name, p in part.items()} for part in parts]
        if any(other != shapes[0] for other in shapes):
            raise ValueError("make must give networks with the same parameters each time")
        if running := [n for n, _ in networks[0].named_buffers() if "running" in n]:
            raise ValueError(
                f"make must give networks without running statistics, got {', '.join(running)}"
            )
        self.net = networks[0]
        for name in shapes[0]:
            stacked = torch.stack([part[name].detach() for part in parts])
            _put(self.net, name, nn.Parameter(stacked))

    def forward(self, x: Tensor) -> Tensor:
        """Every network at its own samples.

        Args:
            x: [E, N, ...]; for the same samples in all, ``x.expand(E, *x.shape)``.

        Returns:
            [E, N, ...].

        Raises:
            ValueError: The first axis does not count the networks.
        """
        if x.ndim < 2 or len(x) != self.count:
            raise ValueError(
                f"x must be [{self.count}, N, ...], a batch for each network, got {tuple(x.shape)}"
            )
        if not _is_chain(self.net):
            return torch.vmap(self._call, randomness="different")(
                dict(self.net.named_parameters()), x
            )
        turned = False  # to [E, features, N], where a weight's gradient needs no copy
        for layer in self.net if isinstance(self.net, nn.Sequential) else (self.net,):
            if isinstance(layer, nn.Flatten):
                x = x.flatten(2)
            elif isinstance(layer, nn.Linear):
                x, turned = x if turned else x.transpose(1, 2), True
                weight, bias = layer.weight, layer.bias
                x = (
                    torch.bmm(weight, x)
                    if bias is None
                    else torch.baddbmm(bias[:, :, None], weight, x)
                )
            else:
                x = layer(x)
        return x.transpose(1, 2) if turned else x

    def _call(self, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(self.net, parameters, (x,))

    def alone(self, index: int) -> nn.Module:
        """A copy of one of the networks, on its own."""
        if not 0 <= index < self.count:
            raise ValueError(f"index must be 0 to {self.count - 1}, got {index}")
        twin = copy.deepcopy(self.net)
        for name, parameter in self.net.named_parameters():
            _put(twin, name, nn.Parameter(parameter.detach()[index].clone()))
        return twin

    def masks_alone(self, masks: Masks, index: int) -> Masks:
        """The masks of one of the networks, by the names that its parameters have alone."""
        return Masks({name.removeprefix("net."): mask[index] for name, mask in masks.items()})

    @torch.no_grad()
    def for_each(self, change: Callable[[nn.Module], object]) -> None:
        """Call a function on each network alone, one after the other, and take its parameters."""
        for index in range(self.count):
            one = self.alone(index)
            change(one)
            changed = dict(one.named_parameters())
            for name, parameter in self.net.named_parameters():
                parameter[index] = changed[name]


def _put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Put a parameter of any shape in the place of that name."""
    path, _, last = name.rpartition(".")
    module.get_submodule(path).register_parameter(last, parameter)


def _is_chain(net: nn.Module) -> bool:
    """Whether a network is linear layers and what works element by element, in a row."""
    layers = list(net) if isinstance(net, nn.Sequential) else [net]
    return all(
        (isinstance(layer, nn.Linear) and type(layer).forward is nn.Linear.forward)
        or type(layer) in ELEMENTWISE
        or (type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1))
        for layer in layers
    )
