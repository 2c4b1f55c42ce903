"""What can be done with a fitted field: look at it anywhere, take its surface, keep it."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Sequence
from os import PathLike
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from mmxx.signals.siren.losses import Loss
from mmxx.signals.siren.sampling import check_shape, grid_rows
from mmxx.signals.siren.scaling import Scale
from mmxx.signals.siren.siren import Siren, check_count
from mmxx.signals.siren.surfaces import Frame, extract_mesh, pieces_near

_FORMAT = "mmxx.siren.field.1"
_STORED = (
    "hidden_features",
    "hidden_layers",
    "omega_0",
    "first_omega_0",
    "steps",
    "lr",
    "batch",
    "precision",
    "random_state",
)


class FittedField:
    """Parameters and learned state of a `SirenField`, and all that needs no fitting."""

    net_: Siren
    losses_: list[float]
    first_omega_0_: float
    psnr_: float | None
    task_: str
    shape_: tuple[int, ...] | None
    rate_: int
    _scale: Scale
    _frame: Frame
    _cloud: np.ndarray

    def __init__(
        self,
        *,
        hidden_features: int = 256,
        hidden_layers: int = 3,
        omega_0: float = 30.0,
        first_omega_0: float | Literal["auto"] = "auto",
        steps: int = 500,
        lr: float = 1e-4,
        batch: int | Literal["full"] = "full",
        loss: Literal["mse", "gradient", "laplacian"] | Loss = "mse",
        precision: Literal["float32", "bfloat16"] = "float32",
        device: str | torch.device | None = None,
        random_state: int | None = None,
    ) -> None:
        self.hidden_features = hidden_features
        self.hidden_layers = hidden_layers
        self.omega_0 = omega_0
        self.first_omega_0: float | Literal["auto"] = first_omega_0
        self.steps = steps
        self.lr = lr
        self.batch: int | Literal["full"] = batch
        self.loss = loss
        self.precision = precision
        self.device = device
        self.random_state = random_state

    def _network(self, dims: int, channels: int, generator: torch.Generator | None) -> Siren:
        return Siren(
            dims,
            channels,
            hidden_features=self.hidden_features,
            hidden_layers=self.hidden_layers,
            omega_0=self.omega_0,
            first_omega_0=self.first_omega_0_,
            generator=generator,
        ).to(self._device())

    def _device(self) -> torch.device:
        return torch.device("cpu" if self.device is None else self.device)

    def predict(self, coords: Any, *, chunk: int = 32768) -> np.ndarray:
        """The signal at any coordinates.

        Args:
            coords: [N, d] in [-1, 1], in the order of the array's axes; for a cloud of points in
                its units. Outside of what was fitted the field extrapolates, with a warning.
            chunk: Points at a time: memory grows with it, not with N.

        Returns:
            [N, c] in the signal's units, float32.

        Raises:
            ValueError: If the shape does not fit or a coordinate is not finite.
        """
        self._check_fitted()
        check_count("chunk", chunk)
        places = np.asarray(coords, dtype=float)
        if places.ndim != 2 or places.shape[1] != self.net_.in_features:
            raise ValueError(
                f"coords must be [N, {self.net_.in_features}], got shape {places.shape}"
            )
        if not np.isfinite(places).all():
            raise ValueError("coords must be finite, got NaN or infinite values")
        places = (places - self._frame.centre) / self._frame.scale
        if len(places) and np.abs(places).max() > 1 + 1e-6:
            warnings.warn(
                "coordinates lie outside of the fitted cube [-1, 1] (farthest: "
                f"{np.abs(places).max():.3g}); the field extrapolates there",
                stacklevel=2,
            )
        out = np.empty((len(places), self.net_.out_features), np.float32)
        for start in range(0, len(places), chunk):
            part = torch.from_numpy(places[start : start + chunk]).float()
            out[start : start + chunk] = self._values(part)
        return out

    def render(self, shape: Sequence[int] | None = None, *, chunk: int = 32768) -> np.ndarray:
        """The signal on a grid over [-1, 1], of any size: also finer than it was fitted.

        Args:
            shape: Sides; those of the fitted signal if None.
            chunk: Points at a time: memory beyond the result grows with it, not with the grid.

        Returns:
            [side, ...], or [side, ..., c] for several channels, float32, in the signal's units.

        Raises:
            ValueError: If the number of sides does not fit or one is below 2, or there is no
                fitted grid whose shape could be taken.
        """
        self._check_fitted()
        check_count("chunk", chunk)
        sides = self.shape_ if shape is None else tuple(shape)
        if sides is None or len(sides) != self.net_.in_features:
            raise ValueError(
                f"shape must have {self.net_.in_features} sides, got {sides} (task {self.task_})"
            )
        check_shape(sides)
        out = self._render(sides, chunk).reshape(*sides, -1)
        return out[..., 0] if out.shape[-1] == 1 else out

    def _render(self, shape: Sequence[int], chunk: int = 32768) -> np.ndarray:
        total = math.prod(shape)
        out = np.empty((total, self.net_.out_features), np.float32)
        for start in range(0, total, chunk):
            stop = min(start + chunk, total)
            out[start:stop] = self._values(grid_rows(shape, start, stop))
        return out.reshape(*shape, -1)

    def _values(self, coords: Tensor) -> np.ndarray:
        with torch.no_grad():
            output = self.net_(coords.to(self._device())).cpu().numpy()
        return self._scale.offset + self._scale.gain * output

    def mesh(
        self, resolution: int = 128, *, chunk: int = 32768, sheets: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """The surface of a fitted signed distance, by marching cubes.

        Args:
            resolution: Points along a side of the cube.
            chunk: Points at a time.
            sheets: Keep also connected pieces that no point of the cloud lies on: zeros that the
                field has elsewhere.

        Returns:
            Vertices [V, 3] in the cloud's units and faces [F, 3]; normals point outwards.

        Raises:
            ValueError: If the field is no signed distance in space, or has no surface.
        """
        self._check_fitted()
        if self.task_ != "sdf" or self.net_.in_features != 3:
            raise ValueError(
                f"mesh needs a field fitted by fit_sdf to points in space, not {self.task_} in "
                f"{self.net_.in_features} dimensions"
            )

        def values(slab: np.ndarray) -> np.ndarray:
            parts = [
                self._values(torch.from_numpy(slab[start : start + chunk]).float())
                for start in range(0, len(slab), chunk)
            ]
            return np.concatenate(parts)[:, 0]

        vertices, faces = extract_mesh(values, resolution)
        if not sheets:
            vertices, faces = pieces_near(vertices, faces, self._cloud, 4 / (resolution - 1))
            if not len(faces):
                raise ValueError("there is no surface near the cloud: fit longer")
        return self._frame.centre + self._frame.scale * vertices, faces

    def save(self, path: str | PathLike[str]) -> None:
        """Write the field to one file: the weights as safetensors, the rest as JSON in its head.

        Args:
            path: The file. A loss that is a function is not kept; it is not needed to look.

        Raises:
            ValueError: If the field is not fitted.
        """
        from safetensors.torch import save_file

        self._check_fitted()
        parameters = {name: getattr(self, name) for name in _STORED}
        parameters["loss"] = self.loss if isinstance(self.loss, str) else "mse"
        learned = {
            "first_omega_0": self.first_omega_0_,
            "psnr": None if self.psnr_ is None else repr(self.psnr_),
            "task": self.task_,
            "shape": self.shape_,
            "rate": getattr(self, "rate_", None),
            "gain": self._scale.gain,
            "offset": self._scale.offset,
            "centre": self._frame.centre.tolist(),
            "scale": self._frame.scale,
            "losses": self.losses_,
            "sizes": [self.net_.in_features, self.net_.out_features],
        }
        tensors = {f"net_.{k}": v.detach().cpu() for k, v in self.net_.state_dict().items()}
        tensors["cloud"] = torch.from_numpy(self._cloud)
        learned["sha256"] = _digest(tensors)
        # One entry only: safetensors writes several in no fixed order, and equal fields should
        # give equal files. A parameter may be a number of numpy.
        head = {"field": json.dumps([parameters, learned, _FORMAT], default=lambda v: v.item())}
        save_file(tensors, path, metadata=head)

    @classmethod
    def load(cls, path: str | PathLike[str], *, device: str | torch.device | None = None) -> Self:
        """Read a field that `save` wrote.

        Args:
            path: The file.
            device: Where to put it, ``"cpu"`` if None.

        Raises:
            ValueError: If the file is no such field.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                head = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            parameters, learned, written_as = json.loads(head["field"])
            if written_as != _FORMAT:
                raise ValueError(f"its format is {written_as!r}, not {_FORMAT!r}")
            if learned["sha256"] != _digest(tensors):
                raise ValueError("its weights are damaged")
            field = cls(**parameters, device=device)
            field.first_omega_0_ = float(learned["first_omega_0"])
            dims, channels = learned["sizes"]
            field.net_ = field._network(dims, channels, None)
            field._cloud = tensors.pop("cloud").numpy()
            field.net_.load_state_dict({k.removeprefix("net_."): v for k, v in tensors.items()})
            field.psnr_ = None if learned["psnr"] is None else float(learned["psnr"])
            field.task_ = str(learned["task"])
            field.shape_ = None if learned["shape"] is None else tuple(learned["shape"])
            if learned["rate"] is not None:
                field.rate_ = int(learned["rate"])
            field.losses_ = [float(loss) for loss in learned["losses"]]
            field._scale = Scale(float(learned["gain"]), float(learned["offset"]))
            field._frame = Frame(np.array(learned["centre"], float), float(learned["scale"]))
        except FileNotFoundError:
            raise
        except (SafetensorError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ValueError(f"{path} is no file of SirenField.save: {error}") from error
        return field

    def _check_fitted(self) -> None:
        if not hasattr(self, "net_"):
            raise ValueError("the field is not fitted yet: call one of its fit methods first")


def _digest(tensors: dict[str, Tensor]) -> str:
    """sha256 of the tensors' names and bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()
