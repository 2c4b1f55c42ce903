"""What a sparse network is good for once it is trained: fewer bytes, fewer neurons."""

from __future__ import annotations

import copy
import warnings
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmxx.sparsity.lottery.replicas import ELEMENTWISE


class SparseLinear(nn.Module):
    """A linear layer that stores and multiplies only the weights that are not 0, for inference.

    Args:
        layer: The layer to take over; it is not changed.

    Attributes:
        density: Share of the weights that are stored.

    Raises:
        TypeError: The layer is not linear.

    Example:
        >>> dense = nn.Linear(3, 2)
        >>> _ = dense.weight.data.masked_fill_(torch.eye(2, 3) == 0, 0.0)
        >>> sparse = SparseLinear(dense)
        >>> sparse.values.shape, sparse(torch.ones(5, 3)).shape
        (torch.Size([2]), torch.Size([5, 2]))
    """

    crow: Tensor
    columns: Tensor
    values: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        if not isinstance(layer, nn.Linear):
            raise TypeError(f"layer must be a linear layer, got {type(layer).__name__}")
        weight = layer.weight.detach()
        kept = weight != 0
        self.out_features, self.in_features = weight.shape
        narrow = torch.int32 if kept.numel() < 2**31 else torch.int64
        crow = torch.cat([kept.new_zeros(1, dtype=torch.int64), kept.sum(1).cumsum(0)])
        self.register_buffer("crow", crow.to(narrow))
        self.register_buffer("columns", kept.nonzero()[:, 1].to(narrow))
        self.register_buffer("values", weight[kept])
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    @property
    def density(self) -> float:
        """Share of the weights that are stored."""
        return self.values.numel() / max(self.in_features * self.out_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply.

        Args:
            x: [..., in_features].

        Returns:
            [..., out_features].
        """
        rows = x.reshape(-1, self.in_features)
        product = self._weight() @ rows.T
        if self.bias is not None:
            product = product + self.bias[:, None]
        return product.T.reshape(*x.shape[:-1], self.out_features)

    def _weight(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(
                self.crow, self.columns, self.values, (self.out_features, self.in_features),
                check_invariants=False,
            )  # fmt: skip

    def extra_repr(self) -> str:
        """Sizes and density, as ``print`` shows them."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"density={self.density:.3f}"
        )


def to_sparse(model: nn.Module, max_density: float = 0.1) -> nn.Module:
    """A copy of a network for inference whose sparse linear layers store only what is not 0.

    Args:
        model: A trained ticket; it is not changed. Convolutions stay as they are.
        max_density: Layers with a larger share of weights stay dense: they are faster so.

    Returns:
        The copy, with a `SparseLinear` in the place of each sparse ``nn.Linear``.

    Raises:
        ValueError: ``max_density`` is not above 0 and at most 1.
    """
    if not 0 < max_density <= 1:
        raise ValueError(f"max_density must be above 0 and at most 1, got {max_density}")
    twin = copy.deepcopy(model)
    if isinstance(twin, nn.Linear):
        return SparseLinear(twin) if _density(twin) <= max_density else twin
    for module in list(twin.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.Linear) and _density(child) <= max_density:
                setattr(module, name, SparseLinear(child))
    return twin


def _density(layer: nn.Linear) -> float:
    return float((layer.weight != 0).double().mean()) if layer.weight.numel() else 1.0


@torch.no_grad()
def compact(model: nn.Sequential) -> nn.Sequential:
    """A smaller dense network that computes the same: neurons that do nothing are left out.

    A neuron without weights to it puts out a constant, which goes into the next biases; one
    without weights from it is not needed. This is repeated until nothing changes.

    Args:
        model: Linear layers and element-wise functions in a row (``nn.Flatten`` may begin it); it
            is not changed.

    Returns:
        The smaller network.

    Raises:
        ValueError: The network holds another layer, or no linear one.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> _ = net[0].weight.data[3:].zero_()
        >>> compact(net)[0].out_features
        3
    """
    layers = list(model) if isinstance(model, nn.Sequential) else []
    odd = [
        type(part).__name__ for part in layers if not isinstance(part, (nn.Linear, *ELEMENTWISE))
    ]
    if isinstance(model, nn.Sequential) and odd and isinstance(layers[0], nn.Flatten):
        odd = odd[1:]
    if odd or not any(isinstance(part, nn.Linear) for part in layers):
        found = ", ".join(odd) if odd else "no linear layer"
        raise ValueError(
            "model must be nn.Sequential of linear layers and element-wise functions, got " + found
        )
    layers = copy.deepcopy(layers)
    places = [i for i, part in enumerate(layers) if isinstance(part, nn.Linear)]
    changed = True
    while changed:
        changed = False
        for here, there in pairwise(places):
            changed |= _shrink(layers, here, there)
    return nn.Sequential(*layers)


def _shrink(layers: list[nn.Module], here: int, there: int) -> bool:
    """Leave out the idle neurons between two linear layers; whether there were any."""
    first, second = layers[here], layers[there]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    constant = ~(first.weight != 0).any(1)
    idle = constant | ~(second.weight != 0).any(0)
    if idle.all():  # a layer of torch's has one neuron at least
        idle[0] = False
    if not idle.any():
        return False
    level = first.weight.new_zeros(first.out_features)
    if first.bias is not None:
        level += first.bias
    for part in layers[here + 1 : there]:
        level = part(level)
    moved = constant & idle
    bias = second.weight[:, moved] @ level[moved]
    bias = second.bias + bias if second.bias is not None else bias if bias.any() else None
    layers[here] = _linear(first.weight[~idle], None if first.bias is None else first.bias[~idle])
    layers[there] = _linear(second.weight[:, ~idle], bias)
    return True


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(1, 1, bias=bias is not None)
    layer.out_features, layer.in_features = weight.shape
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer
