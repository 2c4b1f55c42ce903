"""What SIREN and its baselines are compared on, as data that can be sent to a worker."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.signals.siren.baselines import CoordinateMLP, nyquist_octaves
from mmxx.signals.siren.fitting import Draw, fit, fit_step
from mmxx.signals.siren.losses import Loss, SDFLoss, gradient_loss, laplacian_loss, mse_loss
from mmxx.signals.siren.operators import value_gradient_laplacian
from mmxx.signals.siren.sampling import grid, surface_batch
from mmxx.signals.siren.scaling import BEND_RMS, SLOPE_RMS
from mmxx.signals.siren.siren import Siren

Kind = Literal["values", "gradient", "laplacian", "surface"]
_LOSSES: dict[str, Loss] = {
    "values": mse_loss,
    "gradient": gradient_loss,
    "laplacian": laplacian_loss,
    "surface": SDFLoss(),
}


@dataclass(frozen=True)
class Problem:
    """A signal to fit.

    Attributes:
        kind: What the targets are.
        shape: Sides of the grid, or the shape of the cloud for "surface".
        targets: [N, c] values or Laplacians, [N, c, d] gradients in the order of the axes, or
            [N, 2 d] points and normals.
        batch: Points drawn for a step; 0 for all (not for "surface": so many on the surface and
            as many off it).
    """

    kind: Kind
    shape: tuple[int, ...]
    targets: np.ndarray
    batch: int = 0

    @property
    def dims(self) -> int:
        """Number of coordinates."""
        return self.targets.shape[1] // 2 if self.kind == "surface" else len(self.shape)

    @property
    def channels(self) -> int:
        """Number of values at a point."""
        return 1 if self.kind == "surface" else self.targets.shape[1]

    @property
    def loss(self) -> Loss:
        """The loss that belongs to the kind."""
        return _LOSSES[self.kind]

    def draw(self, generator: torch.Generator) -> Draw:
        """The batches: a function of the step's number, drawing from ``generator``."""
        targets = torch.from_numpy(self.targets).float()
        if self.kind == "surface":
            points, normals = targets.split(self.dims, dim=1)
            return lambda step: surface_batch(points, normals, self.batch, generator=generator)
        coords = grid(self.shape)
        if not self.batch or self.batch >= len(coords):
            return lambda step: (coords, targets)

        def some(step: int) -> tuple[Tensor, Tensor]:
            chosen = torch.randint(len(coords), (self.batch,), generator=generator)
            return coords[chosen], targets[chosen]

        return some


def moved(tree: Any, device: torch.device) -> Any:
    """A tensor, or a tuple of tensors and tuples, on a device."""
    if isinstance(tree, tuple):
        return tuple(moved(part, device) for part in tree)
    return tree.to(device)


def baseline(
    arm: str, problem: Problem, hidden: int, layers: int, generator: torch.Generator | None = None
) -> CoordinateMLP:
    """The network of a baseline, "relu", "tanh" or "relu+encoding", of a SIREN's size.

    The encoding has the octaves that the problem's grid can hold.
    """
    return CoordinateMLP(
        problem.dims,
        problem.channels,
        hidden_features=hidden,
        hidden_layers=layers,
        activation="tanh" if arm == "tanh" else "relu",
        octaves=nyquist_octaves(max(problem.shape)) if arm == "relu+encoding" else 0,
        generator=generator,
    )


def fit_baseline(item: dict[str, Any]) -> dict[str, Any]:
    """Fit a baseline; a task for a worker.

    Args:
        item: ``arm``, ``problem``, ``hidden``, ``layers``, ``steps``, ``rate`` and ``seed``.

    Returns:
        The losses and the weights of the best step; of a fit that diverged no losses.
    """
    generator = torch.Generator().manual_seed(item["seed"])
    problem: Problem = item["problem"]
    net = baseline(item["arm"], problem, item["hidden"], item["layers"], generator)
    try:
        losses = fit(
            net,
            problem.draw(generator),
            problem.loss,
            steps=item["steps"],
            lr=item["rate"],
            keep_best=not problem.batch,
        )
    except FloatingPointError:
        losses = []
    return {"losses": losses, "weights": dict(net.state_dict())}


def decibels(error: float) -> float:
    """PSNR of a mean squared error of values in [-1, 1]; that of float32 is the highest."""
    return 10 * math.log10(4 / max(error, 1e-14))


def look(net: nn.Module, shape: tuple[int, ...], chunk: int = 16384) -> np.ndarray:
    """A network's values on a grid, [side, ..., c]."""
    with torch.no_grad():
        parts = [net(part).numpy() for part in grid(shape).split(chunk)]
    return np.concatenate(parts).reshape(*shape, -1)


def look_derivatives(net: nn.Module, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Gradients [side, ..., c, d] and Laplacians [side, ..., c] of a network on a grid."""
    slopes, bends = [], []
    for part in grid(shape).split(4096):
        _, slope, bend = value_gradient_laplacian(net, part)
        slopes.append(slope.detach().numpy())
        bends.append(bend.detach().numpy())
    return (
        np.concatenate(slopes).reshape(*shape, *slopes[0].shape[1:]),
        np.concatenate(bends).reshape(*shape, -1),
    )


def pixel_derivatives(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradients [H, W, c, 2] and Laplacians [H, W, c] of a picture [H, W, c] by its coordinates.

    Central and second differences; a side is 2 long.
    """
    from scipy import ndimage

    steps = [2 / (side - 1) for side in pixels.shape[:2]]
    along = [np.gradient(pixels, step, axis=axis) for axis, step in enumerate(steps)]
    slopes = np.stack(along, axis=-1)
    weights = np.array([1.0, -2.0, 1.0])
    bends = sum(
        ndimage.correlate1d(pixels, weights / step**2, axis=axis, mode="nearest")
        for axis, step in enumerate(steps)
    )
    return slopes, np.asarray(bends)


def poisson_problem(pixels: np.ndarray, *, laplacian: bool = False) -> Problem:
    """To recover a picture [H, W, c] in [-1, 1] from its gradients, or from its Laplacian."""
    slopes, bends = pixel_derivatives(pixels)
    derivatives = bends if laplacian else slopes
    targets = derivatives.reshape(-1, *derivatives.shape[2:])
    size = float(np.sqrt((targets**2).reshape(len(targets), -1).sum(1).mean()))
    rms = BEND_RMS if laplacian else SLOPE_RMS
    return Problem(
        "laplacian" if laplacian else "gradient",
        pixels.shape[:2],
        targets * (rms / size if size else 1.0),
    )


def fit_held_out(item: dict[str, Any]) -> dict[str, Any]:
    """Fit a SIREN to seven eighths of a picture's pixels, the rest for validation; a task.

    Args:
        item: ``coarse`` [h, w, c] and ``fine`` [2h - 1, 2w - 1, c] in [-1, 1], the former every
            second pixel of the latter, ``omega``, ``hidden``, ``layers``, ``steps``, ``rate``
            and ``seed``.

    Returns:
        In decibels, at the step of the lowest validation error: that error, and the error on the
        pixels of ``fine`` that are not in ``coarse``; and the latter at the last step.
    """
    generator = torch.Generator().manual_seed(item["seed"])
    coarse, fine = item["coarse"], item["fine"]
    shape = coarse.shape[:2]
    net = Siren(
        2,
        coarse.shape[2],
        hidden_features=item["hidden"],
        hidden_layers=item["layers"],
        first_omega_0=item["omega"],
        generator=generator,
    )
    order = torch.randperm(shape[0] * shape[1], generator=generator)
    some, rest = order[len(order) // 8 :], order[: len(order) // 8]
    coords, targets = grid(shape), torch.from_numpy(coarse.reshape(len(order), -1)).float()
    optimizer = torch.optim.Adam(net.parameters(), lr=item["rate"])
    row = {"first frequency": item["omega"], "step": 0, "validation [dB]": -math.inf}
    for step in range(1, item["steps"] + 1):
        fit_step(net, optimizer, coords[some], targets[some], mse_loss)
        if step % 25 == 0 or step == item["steps"]:
            with torch.no_grad():
                validation = decibels(float(mse_loss(net, coords[rest], targets[rest])))
            between = ((look(net, fine.shape[:2]) - fine) ** 2)[between_pixels(fine)]
            row["at the last step [dB]"] = decibels(float(between.mean()))
            if validation > row["validation [dB]"]:
                row |= {"step": step, "validation [dB]": validation}
                row["between the pixels [dB]"] = row["at the last step [dB]"]
    return row


def between_pixels(fine: np.ndarray) -> np.ndarray:
    """A mask [H, W] of the pixels that are not every second one along both axes."""
    mask = np.ones(fine.shape[:2], bool)
    mask[::2, ::2] = False
    return mask


def spectrum_of_activations(
    net: Any, points: int = 2048
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """What is in the activations of each layer along a line through the cube.

    Args:
        net: A `Siren` or `CoordinateMLP`.
        points: Points on the line, which goes along the first axis.

    Returns:
        For each layer frequencies in cycles for a unit of length, root mean square amplitudes
        over the units, and the standard deviation along the line of what the activation is taken
        of, root mean square over the units.
    """
    line = torch.zeros(points, net.in_features)
    line[:, 0] = torch.linspace(-1, 1, points)
    window = np.hanning(points)[:, None]  # else the line's ends look like high frequencies
    found = []
    with torch.no_grad():
        for phases, values in net.activations(line):
            amplitude = np.abs(np.fft.rfft(window * values.numpy(), axis=0)) / points
            size = np.sqrt((amplitude**2).mean(axis=1))
            spread = float(phases.var(dim=0).mean().sqrt())
            found.append((np.fft.rfftfreq(points, 2 / points)[1:], size[1:], spread))
    return found
