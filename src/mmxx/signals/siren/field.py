"""A signal as a network: pictures, sound, volumes, video, gradients, distances, waves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from mmxx.signals.siren.fitted import FittedField
from mmxx.signals.siren.fitting import Draw, fit
from mmxx.signals.siren.frequency import probe_first_omega
from mmxx.signals.siren.losses import (
    HelmholtzLoss,
    Loss,
    SDFLoss,
    gradient_loss,
    laplacian_loss,
    mse_loss,
)
from mmxx.signals.siren.metrics import match_affine, psnr
from mmxx.signals.siren.sampling import grid, surface_batch
from mmxx.signals.siren.scaling import (
    BEND_RMS,
    SLOPE_RMS,
    Scale,
    check_signal,
    range_of,
    warn_if_constant,
    without_alpha,
)
from mmxx.signals.siren.siren import check_count, check_omega
from mmxx.signals.siren.surfaces import Frame, check_cloud, frame_of

_DEFAULT_OMEGA = 30.0
_KEPT_POINTS = 10_000  # of a cloud, to tell its surface from sheets elsewhere


class SirenField(FittedField):
    """A SIREN fitted to a signal, with everything that belongs to it: ranges, frames, files.

    Args:
        hidden_features: Width of the hidden layers.
        hidden_layers: Number of sine layers after the first.
        omega_0: Frequency of the layers after the first.
        first_omega_0: Frequency of the first layer, or "auto": for values on a grid the best in
            a short trial (`probe_first_omega`), else 30.
        steps: Steps of Adam.
        lr: Its learning rate. The paper's 1e-4 is safe; 1e-3 fits values faster and may become
            unstable, above all with losses of derivatives.
        batch: Points drawn for a step, or "full" for all of them (for a cloud: as many as it
            has points on the surface, and as many off it). With all samples of a grid in each
            step the weights of the lowest loss are kept, else the last.
        loss: What `fit_image`, `fit_audio`, `fit_volume` and `fit_video` ask for: "mse" for the
            values; "gradient" or "laplacian" for a picture's derivatives only, so that it is
            recovered from them (the Poisson problem); or a function of
            ``(net, coords, targets)`` with values [N, c] as targets.
        precision: "float32", or "bfloat16" for the products between hidden layers, which is
            faster only where the hardware has such products.
        device: Where to fit, ``"cpu"`` if None.
        random_state: Seed of weights and batches; drawn from torch's default generator if None.

    Attributes:
        net_: The fitted `Siren`.
        losses_: The loss before each step.
        first_omega_0_: The frequency of the first layer.
        psnr_: In dB by the peak to peak of the signal's range; None where there is no signal to
            compare with. A picture recovered from derivatives is compared after the best scale
            and offset, since its level is not determined.
        task_: What was fitted.
        shape_: Sides of the fitted grid, or None.

    Example:
        >>> wave = np.sin(np.linspace(0, 9, 256))
        >>> field = SirenField(hidden_features=32, steps=100, lr=1e-3, random_state=0)
        >>> field.fit_audio(wave, rate=256).psnr_ > 30
        True
        >>> field.render((1024,)).shape
        (1024,)
    """

    def fit_image(self, image: Any, *, mask: Any = None) -> Self:
        """Fit a picture.

        Args:
            image: [H, W] or [H, W, C]: bytes, 16-bit numbers, floats. Two or four channels are
                taken as grey or colour with opacity, and laid on white, with a warning.
            mask: [H, W], True where the picture is known; the rest is left to the field.

        Returns:
            The field itself.

        Raises:
            ValueError: If a pixel is not finite, a side is 1 or a parameter out of range.
            FloatingPointError: If the fit diverges; the best weights seen are in place.
        """
        pixels = without_alpha(check_signal(image, 2, "image"))
        scale = range_of(pixels)
        if self.loss in ("gradient", "laplacian"):
            if mask is not None:
                raise ValueError(f"mask cannot be given with loss={self.loss!r}")
            return self._fit_derivatives_of(pixels, scale)
        known = None
        if mask is not None:
            known = np.asarray(mask)
            if known.dtype != bool or known.shape != pixels.shape[:2] or not known.any():
                raise ValueError(
                    f"mask must be bool [H, W] = {pixels.shape[:2]} with some True, got "
                    f"{known.dtype} {known.shape}"
                )
        return self._fit_values("image", pixels, scale, known)

    def fit_audio(self, samples: Any, rate: int) -> Self:
        """Fit sound.

        Args:
            samples: [N] or [N, channels], floats or integers; the loudest sample becomes 1.
            rate: Samples per second, kept as ``rate_``.

        Returns:
            The field itself.

        Raises:
            ValueError: If there are fewer than two samples, one is not finite, ``rate`` is not
                positive or a parameter out of range.
            FloatingPointError: If the fit diverges; the best weights seen are in place.
        """
        sound = check_signal(samples, 1, "samples")
        check_count("rate", rate)
        self.rate_ = int(rate)
        loudest = float(np.abs(sound.astype(float)).max())
        return self._fit_values("audio", sound, Scale(loudest or 1.0, 0.0))

    def fit_volume(self, volume: Any) -> Self:
        """Fit a volume [D, H, W] or [D, H, W, C]; see `fit_image` for types and errors.

        Args:
            volume: The samples.
        """
        cells = check_signal(volume, 3, "volume")
        return self._fit_values("volume", cells, range_of(cells))

    def fit_video(self, video: Any) -> Self:
        """Fit a video [T, H, W] or [T, H, W, C]; see `fit_image` for types and errors.

        Args:
            video: The frames.
        """
        frames = check_signal(video, 3, "video")
        return self._fit_values("video", frames, range_of(frames))

    def fit_gradient(self, gx: Any, gy: Any) -> Self:
        """Recover a picture from its gradients, up to a constant (the Poisson problem, eq. 5).

        Args:
            gx: Change for a pixel to the right, [H, W] or [H, W, C].
            gy: Change for a pixel downwards, the same shape.

        Returns:
            The field itself; `render` gives the picture in the units of the gradients, with mean
            zero.

        Raises:
            ValueError: If the shapes differ, a value is not finite or a parameter out of range.
            FloatingPointError: If the fit diverges; the best weights seen are in place.
        """
        right, down = check_signal(gx, 2, "gx"), check_signal(gy, 2, "gy")
        if right.shape != down.shape:
            raise ValueError(f"gx and gy must be of one shape, got {right.shape} and {down.shape}")
        slopes = np.stack([down, right], axis=-1).astype(float)  # the first coordinate goes down
        slopes *= (np.array(slopes.shape[:2]) - 1) / 2  # a pixel is 2 / (side - 1) wide
        size = math.sqrt(float((slopes**2).sum(-1).mean())) / SLOPE_RMS
        return self._fit_derivatives("gradient", slopes, size, gradient_loss)

    def fit_laplacian(self, laplacian: Any) -> Self:
        """Recover a picture from its Laplacian, up to what is harmonic (eq. 5).

        Args:
            laplacian: Sum of the second differences for a pixel, [H, W] or [H, W, C]. The sides
                should be equal: a pixel is taken as wide as it is high.

        Returns:
            The field itself; `render` gives the picture in the units of the Laplacian.

        Raises:
            ValueError: If a value is not finite, the sides differ or a parameter is out of range.
            FloatingPointError: If the fit diverges; the best weights seen are in place.
        """
        bends = check_signal(laplacian, 2, "laplacian").astype(float)
        if bends.shape[0] != bends.shape[1]:
            raise ValueError(f"laplacian must be square, got shape {bends.shape}")
        bends = bends * ((bends.shape[0] - 1) / 2) ** 2
        size = math.sqrt(float((bends**2).mean())) / BEND_RMS
        return self._fit_derivatives("laplacian", bends, size, laplacian_loss)

    def fit_sdf(self, points: Any, normals: Any) -> Self:
        """Fit the signed distance to a surface given by oriented points (section 4.2).

        Args:
            points: [N, 3] (or [N, 2] for a curve), in any units: the cloud is centred and scaled
                into the cube, its aspect kept.
            normals: Outward normals, [N, 3]; brought to length 1, with a warning where they were
                not.

        Returns:
            The field itself: `predict` takes points and gives distances in the cloud's units,
            negative inside; `mesh` gives the surface.

        Raises:
            ValueError: If the cloud is empty or a single point, a value is not finite, a normal
                is zero, the shapes differ or a parameter is out of range.
            FloatingPointError: If the fit diverges; the best weights seen are in place.
        """
        cloud, arrows = check_cloud(points, normals)
        frame = frame_of(cloud)
        generator = self._begin("sdf", None, Scale(frame.scale, 0.0), cloud.shape[1], 1)
        self._frame = frame
        inside = ((cloud - frame.centre) / frame.scale).astype(np.float32)
        self._cloud = inside[:: -(-len(inside) // _KEPT_POINTS)].copy()
        places = torch.from_numpy(inside)
        arrows = torch.from_numpy(arrows).float()
        half = len(cloud) if self.batch == "full" else max(1, self.batch // 2)

        def draw(step: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
            coords, (mask, targets) = surface_batch(places, arrows, half, generator=generator)
            device = self._device()
            return coords.to(device), (mask.to(device), targets.to(device))

        return self._fit(draw, self.loss if callable(self.loss) else SDFLoss())

    def solve_helmholtz(
        self,
        wavenumber: float = 20.0,
        *,
        source: tuple[float, float] = (0.0, 0.0),
        source_width: float = 0.05,
        slowness: Callable[[Tensor], Tensor] | None = None,
        rim: float = 0.5,
    ) -> Self:
        """Solve the Helmholtz equation on [-1, 1]² with an absorbing rim (section 4.3, eq. 7).

        Args:
            wavenumber: k, in radian for a unit of length.
            source: Place of the source.
            source_width: Standard deviation of the source, a Gaussian of unit mass.
            slowness: Squared slowness, [N, 1] of coordinates [N, 2]; 1 everywhere if None.
            rim: Width of the absorbing layer inside the square.

        Returns:
            The field itself; `predict` gives real and imaginary part. ``batch`` points are drawn
            for each step ("full": 4,096), a quarter of them around the source.

        Raises:
            ValueError: If a parameter is out of range.
            FloatingPointError: If the fit diverges; the best weights seen are in place.
        """
        loss = HelmholtzLoss(wavenumber, source, source_width, slowness, rim=rim)
        generator = self._begin("helmholtz", None, Scale(1.0, 0.0), 2, 2)
        count = 4096 if self.batch == "full" else self.batch
        middle = torch.tensor(source)

        def draw(step: int) -> tuple[Tensor, None]:
            coords = torch.empty(count, 2).uniform_(-1, 1, generator=generator)
            near = torch.randn(count // 4, 2, generator=generator) * 3 * source_width + middle
            coords[: count // 4] = near.clamp(-1, 1)
            return coords.to(self._device()), None

        return self._fit(draw, loss)

    def _fit_values(
        self, task: str, signal: np.ndarray, scale: Scale, known: np.ndarray | None = None
    ) -> Self:
        if isinstance(self.loss, str) and self.loss != "mse":
            raise ValueError(f"loss={self.loss!r} is for pictures only, not for {task}")
        constant = warn_if_constant(signal, f"the {task}")
        shape = signal.shape[:-1]
        values = (signal.astype(float) - scale.offset) / scale.gain
        looked_at = values
        if known is not None:  # what is not known must not choose the frequency
            looked_at = np.where(known[..., None], values, values[known].mean(axis=0))
        generator = self._begin(task, shape, scale, len(shape), signal.shape[-1], looked_at)
        coords, targets = grid(shape), torch.from_numpy(values.reshape(-1, values.shape[-1]))
        chosen = slice(None) if known is None else torch.from_numpy(known.reshape(-1))
        draw = self._batches(coords[chosen], targets[chosen].float(), generator)
        self._fit(draw, self.loss if callable(self.loss) else mse_loss)
        rendered = self._render(shape).reshape(signal.shape)
        self.psnr_ = math.inf if constant else psnr(rendered, signal, peak=scale.peak)
        return self

    def _fit_derivatives_of(self, pixels: np.ndarray, scale: Scale) -> Self:
        """Fit a picture by its derivatives only, then compare with the picture."""
        from scipy import ndimage

        constant = warn_if_constant(pixels, "the image")
        picture = pixels.astype(float)
        if self.loss == "gradient":
            gy, gx = np.gradient(picture, axis=(0, 1))
            self.fit_gradient(gx, gy)
        else:
            self.fit_laplacian(ndimage.laplace(picture, mode="nearest", axes=(0, 1)))
        rendered = match_affine(self._render(pixels.shape[:2]), picture)
        self.psnr_ = math.inf if constant else psnr(rendered, picture, peak=scale.peak)
        return self

    def _fit_derivatives(self, task: str, derivatives: np.ndarray, size: float, loss: Loss) -> Self:
        shape = derivatives.shape[:2]
        size = size or 1.0
        generator = self._begin(task, shape, Scale(size, 0.0), 2, derivatives.shape[2])
        targets = torch.from_numpy(derivatives / size).float().flatten(0, 1)
        self._fit(self._batches(grid(shape), targets, generator), loss)
        level = self._render(shape).mean()
        self._scale = Scale(size, -float(level))
        return self

    def _begin(
        self,
        task: str,
        shape: tuple[int, ...] | None,
        scale: Scale,
        dims: int,
        channels: int,
        values: np.ndarray | None = None,
    ) -> torch.Generator:
        """Check the parameters and make the network; returns the stream of the batches."""
        if self.batch != "full":
            check_count("batch", self.batch)
        check_count("steps", self.steps)
        check_omega("omega_0", self.omega_0)
        if self.first_omega_0 != "auto":
            check_omega("first_omega_0", self.first_omega_0)
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision must be 'float32' or 'bfloat16', got {self.precision!r}")
        if isinstance(self.loss, str) and self.loss not in ("mse", "gradient", "laplacian"):
            raise ValueError(
                f"loss must be 'mse', 'gradient', 'laplacian' or a function, got {self.loss!r}"
            )
        generator = torch.Generator()
        seed = self.random_state
        generator.manual_seed(int(torch.randint(2**62, ()) if seed is None else seed))
        omega = self.first_omega_0
        if omega == "auto":
            omega = _DEFAULT_OMEGA
            if values is not None and self.loss == "mse":
                omega = probe_first_omega(
                    values,
                    hidden_features=self.hidden_features,
                    hidden_layers=self.hidden_layers,
                    omega_0=self.omega_0,
                    lr=self.lr,
                    random_state=generator.initial_seed(),
                )
        self.first_omega_0_ = omega
        self.net_ = self._network(dims, channels, generator)
        self.task_, self.shape_, self.psnr_ = task, shape, None
        if task != "audio" and hasattr(self, "rate_"):
            del self.rate_  # of a sound that was fitted before
        self._scale = scale
        self._frame, self._cloud = Frame(np.zeros(dims), 1.0), np.empty((0, dims), np.float32)
        return generator

    def _batches(self, coords: Tensor, targets: Tensor, generator: torch.Generator) -> Draw:
        coords, targets = coords.to(self._device()), targets.to(self._device())
        if self.batch == "full" or self.batch >= len(coords):
            return lambda step: (coords, targets)
        count = self.batch

        def draw(step: int) -> tuple[Tensor, Tensor]:
            chosen = torch.randint(len(coords), (count,), generator=generator).to(coords.device)
            return coords[chosen], targets[chosen]

        return draw

    def _fit(self, draw: Draw, loss: Loss) -> Self:
        def mixed(net: nn.Module, coords: Tensor, targets: Any) -> Tensor:
            with torch.autocast(coords.device.type, torch.bfloat16):
                return loss(net, coords, targets)

        chosen = mixed if self.precision == "bfloat16" else loss
        same = self.batch == "full" and self.shape_ is not None  # the same points at each step
        self.losses_ = fit(self.net_, draw, chosen, steps=self.steps, lr=self.lr, keep_best=same)
        return self
