r"""What a tangent kernel says of training, and how much it changes while that goes on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmxx.training.tangent.kernel import ntk


def kernel_drift(
    model: nn.Module, x: Tensor, trajectory: Iterable[Mapping[str, Tensor]], *, trace: bool = True
) -> Tensor:
    r"""The relative change of the tangent kernel, $\|K_t - K_0\|_F / \|K_0\|_F$.

    Args:
        model: Returns [N] or [N, C] for N samples.
        x: Samples [N, ...].
        trajectory: Parameters by name at each moment, the first being $K_0$'s: state
            dictionaries, of which entries that are not trained parameters are left out.
        trace: Compare the means over outputs, or all pairs of outputs.

    Returns:
        [T], of which the first is 0.

    Raises:
        ValueError: The trajectory is empty, or a parameter is missing.

    Source: the paper's figures.

    Example:
        >>> net = nn.Linear(2, 1)
        >>> kernel_drift(net, torch.eye(2), [net.state_dict(), net.state_dict()])
        tensor([0., 0.])
    """
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    first, found = None, []
    for moment, state in enumerate(trajectory):
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(f"trajectory[{moment}] lacks {', '.join(missing)}")
        kernel = ntk(model, x, params={name: state[name] for name in names}, trace=trace)
        first = kernel if first is None else first
        found.append((kernel - first).norm() / first.norm())
    if not found:
        raise ValueError("trajectory is empty")
    return torch.stack(found)


def training_outputs(
    kernel: Tensor,
    outputs: Tensor,
    targets: Tensor,
    steps: Sequence[float],
    *,
    lr: float,
    flow: bool = False,
    cross: Tensor | None = None,
    cross_outputs: Tensor | None = None,
) -> Tensor:
    r"""The outputs of a network with a constant tangent kernel during training, in closed form.

    The loss is $\frac{1}{2N} \sum_n |f(x_n) - y_n|^2$. Gradient descent gives
    $f_t = y + (1 - \eta K / N)^t (f_0 - y)$, gradient flow $y + e^{-\eta K t / N} (f_0 - y)$.

    Args:
        kernel: Of the training samples with themselves, [N, N] or [N, N, C, C].
        outputs: $f_0$ at the training samples, [N] or [N, C].
        targets: y, of the same shape.
        steps: Moments t.
        lr: Learning rate η.
        flow: Gradient flow in place of gradient descent; steps may then be fractions.
        cross: Kernel of other samples with the training samples, [M, N] or [M, N, C, C]: the
            outputs there are returned.
        cross_outputs: $f_0$ at the other samples, [M] or [M, C].

    Returns:
        [T, N] or [T, N, C]; with ``cross`` [T, M] or [T, M, C].

    Raises:
        ValueError: Shapes do not fit, or lr is not above 0.

    Source: Jacot, Gabriel and Hongler (2018).

    Example:
        >>> training_outputs(torch.eye(2), torch.zeros(2), torch.ones(2), [0, 1], lr=1.0)
        tensor([[0.0000, 0.0000],
                [0.5000, 0.5000]])
    """
    if not lr > 0:
        raise ValueError(f"lr must be above 0, got {lr}")
    if outputs.shape != targets.shape or kernel.shape[:2] != (len(outputs),) * 2:
        raise ValueError(
            "outputs and targets must have one shape [N] or [N, C], and the kernel [N, N, ...], "
            f"got {tuple(outputs.shape)}, {tuple(targets.shape)} and {tuple(kernel.shape)}"
        )
    if (cross is None) != (cross_outputs is None):
        raise ValueError("cross and cross_outputs go together")
    eigenvalues, vectors = torch.linalg.eigh(_square(kernel, outputs))
    eigenvalues = eigenvalues.clamp_min(0)  # rounding can make a zero negative
    residues = vectors.T @ _column(outputs - targets, kernel)
    rate = eigenvalues[:, None] * lr / len(outputs)
    found = []
    for t in steps:
        kept = torch.exp(-rate * t) if flow else (1 - rate) ** t
        if cross is None or cross_outputs is None:
            change = vectors @ ((kept - 1) * residues)
            found.append(outputs + change.view_as(outputs))
        else:
            # (1 - kept) / eigenvalue, whose limit at 0 is the first term of the sum
            small = eigenvalues[:, None] <= torch.finfo(kernel.dtype).eps * eigenvalues.max()
            gain = torch.where(small, lr * t / len(outputs), (1 - kept) / eigenvalues[:, None])
            change = _square(cross, outputs) @ (vectors @ (gain * residues))
            found.append(cross_outputs - change.view_as(cross_outputs))
    return torch.stack(found)


def _square(kernel: Tensor, outputs: Tensor) -> Tensor:
    """[N, M, C, C] as [N · C, M · C]; a kernel that is the same for all outputs stays."""
    if kernel.ndim == 2:
        return kernel
    if kernel.ndim != 4 or outputs.ndim != 2 or kernel.shape[2:] != (outputs.shape[1],) * 2:
        raise ValueError(
            f"a kernel of shape {tuple(kernel.shape)} does not go with outputs of shape "
            f"{tuple(outputs.shape)}; [N, M] or [N, M, C, C] does"
        )
    n, m, c, _ = kernel.shape
    return kernel.transpose(1, 2).reshape(n * c, m * c)


def _column(values: Tensor, kernel: Tensor) -> Tensor:
    return values.reshape(-1, 1) if kernel.ndim == 4 or values.ndim == 1 else values


class PLStar(NamedTuple):
    r"""Whether gradient descent must find a solution: $\frac12 |\nabla L|^2 \ge \mu L$.

    Attributes:
        constant: μ, the smallest eigenvalue of the kernel, for $L = \frac12 |f - y|^2$.
        largest: The largest eigenvalue; learning rates below 2 / largest converge.
        singular: Whether μ is 0 but for rounding.
    """

    constant: float
    largest: float
    singular: bool


def pl_star(kernel: Tensor) -> PLStar:
    r"""The constant of the PL* condition at the parameters of a tangent kernel.

    Args:
        kernel: Of samples with themselves, [N, N] or [N, N, C, C].

    Warns:
        UserWarning: The kernel is singular: a sample occurs twice, or there are fewer
            parameters than outputs at all samples.

    Source: the paper's part on optimisation without a constant kernel.

    Example:
        >>> pl_star(torch.diag(torch.tensor([2.0, 3.0]))).constant
        2.0
    """
    if kernel.ndim not in (2, 4) or kernel.shape[0] != kernel.shape[1]:
        raise ValueError(f"kernel must be [N, N] or [N, N, C, C], got {tuple(kernel.shape)}")
    matrix = kernel if kernel.ndim == 2 else _square(kernel, kernel[0, :, 0])
    eigenvalues = torch.linalg.eigvalsh(matrix)
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    singular = smallest <= len(matrix) * torch.finfo(matrix.dtype).eps * largest
    if singular:
        warnings.warn(
            f"the kernel is singular: its smallest eigenvalue is {smallest:.3g}, the largest "
            f"{largest:.3g}. Does a sample occur twice?",
            stacklevel=2,
        )
    return PLStar(smallest, largest, singular)
