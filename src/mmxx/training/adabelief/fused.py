"""The AdaBelief rule in one compiled pass over the memory of many CPU tensors."""

from __future__ import annotations

from operator import attrgetter

import numpy as np
import torch
from torch import Tensor

from mmxx.training.adabelief.rule import Batch, Rule, moment_names, noise_key

PLAIN = {torch.Tensor, torch.nn.Parameter}
_KERNEL = {
    torch.float32: ("float32", torch.float32),
    torch.float64: ("float64", torch.float64),
    torch.bfloat16: ("bfloat16", torch.float32),
    torch.float16: ("float16", torch.float32),
}
# Mapped over columns of tensors, these cost half of what a loop does.
_data_ptr, _is_contiguous, _nbytes = Tensor.data_ptr, Tensor.is_contiguous, attrgetter("nbytes")


class Pass:
    """What the kernel will do to the parameters of a group. Making one changes nothing.

    The kernel takes plain dense CPU tensors of a floating type whose state is float32 (float64
    for float64), all laid out as the parameter; a gradient laid out otherwise is copied.

    Args:
        batch: The parameters that have a gradient.
        amsgrad: Whether their state holds the largest belief.

    Attributes:
        left: The numbers of the rows that the kernel cannot take, each with the reason.
        batch: The rows that it takes. A pass that is kept lets go of them.
    """

    def __init__(self, batch: Batch, amsgrad: bool) -> None:
        self.left: dict[int, str] = {}
        self._amsgrad = amsgrad
        self._copies: list[Tensor] = []  # they must live until the kernel has read them
        grads: list[Tensor] = []
        for row, (param, grad, state, _, _) in enumerate(batch.rows()):
            fitting, reason = _fit(param, grad, *(state[name] for name in moment_names(amsgrad)))
            if reason:
                self.left[row] = reason
                continue
            if fitting is not grad:
                self._copies.append(fitting)
            grads.append(fitting)
        if self.left:
            batch = batch.pick(row for row in range(len(batch.params)) if row not in self.left)
        self.batch: Batch | None = batch
        columns = self._columns(batch)
        # Held, so that no other tensor can come to lie at the same address.
        self._storages = [[tensor.untyped_storage() for tensor in column] for column in columns]
        self._at = params, means, beliefs, *_ = [list(map(_data_ptr, col)) for col in columns]
        peaks = self._at[-1]  # without amsgrad the beliefs, which are then not read as peaks
        self._table = np.array([params, params, means, beliefs, peaks], np.int64)
        self._table[1] = list(map(_data_ptr, grads))
        self._nbytes = list(map(_nbytes, grads))
        sizes = np.array([param.numel() for param in batch.params], np.int64)
        dtypes = [param.dtype for param in batch.params]
        self._parts = [
            (dtype, chosen, sizes[chosen])
            for dtype in dict.fromkeys(dtypes)
            for chosen in [np.flatnonzero([other is dtype for other in dtypes])]
        ]

    @property
    def reusable(self) -> bool:
        """Whether `again` may take a later batch."""
        return not (self.left or self._copies)

    def _columns(self, batch: Batch) -> list[list[Tensor]]:
        names = moment_names(self._amsgrad)
        return [list(batch.params), *([state[name] for state in batch.states] for name in names)]

    def again(self, batch: Batch, amsgrad: bool) -> bool:
        """Take the batch of a later step, if only gradients and step counts have changed.

        Raw memory forgives nothing: addresses, sizes and layout are checked, by whole columns,
        which costs a fraction of making a new pass.
        """
        if len(batch.params) != len(self._nbytes) or amsgrad != self._amsgrad:
            return False
        columns, grads = self._columns(batch), batch.grads
        same = all(
            list(map(_data_ptr, column)) == at for column, at in zip(columns, self._at, strict=True)
        )
        if not (
            same
            and set(map(type, grads)) <= {Tensor}
            and list(map(_nbytes, grads)) == self._nbytes
            and all(map(_is_contiguous, grads))
            and all(map(_is_contiguous, batch.params))
        ):
            return False
        self.batch = batch
        self._table[1] = list(map(_data_ptr, grads))
        return True

    def run(self, rule: Rule) -> None:
        """Update all parameters of the pass, once, and let go of them and their gradients."""
        batch, self.batch = self.batch, None
        if batch is None or not batch.params:
            return
        from mmxx.kernels.adabelief import adabelief_step

        rates = {step: rule.rates(step) for step in dict.fromkeys(batch.steps)}
        which = np.zeros(len(batch.steps), np.int64)
        if len(rates) > 1:
            order = {step: row for row, step in enumerate(rates)}
            which[:] = [order[step] for step in batch.steps]
        for dtype, chosen, sizes in self._parts:
            keys = None
            if rule.stochastic_rounding and dtype is torch.bfloat16:
                noise = [noise_key(batch.steps[i], batch.places[i]) for i in chosen.tolist()]
                keys = np.array(noise, np.uint32)
            adabelief_step(
                self._table[:, chosen],
                sizes,
                which[chosen],
                list(rates.values()),
                dtype=_KERNEL[dtype][0],
                betas=rule.betas,
                eps=rule.eps,
                scale=rule.scale,
                pull=rule.pull,
                decay=rule.decay,
                amsgrad=self._amsgrad,
                keys=keys,
                threads=torch.get_num_threads(),
            )
        torch.autograd.graph.increment_version(batch.params)


def _fit(param: Tensor, grad: Tensor, *moments: Tensor) -> tuple[Tensor, str]:
    """The gradient in the parameter's layout, and why the kernel cannot take them, or ""."""
    tensors = (param, grad, *moments)
    if any(type(t) not in PLAIN for t in tensors):
        return grad, f"the tensors are of type {type(param).__name__} and {type(grad).__name__}"
    if any(not t.is_cpu for t in tensors):
        return grad, "the parameter, its gradient or its state is not on the CPU"
    if any(t.dtype is not _KERNEL[param.dtype][1] for t in moments):
        return grad, f"the parameter is {param.dtype} and its state {moments[0].dtype}"
    if grad.dtype is not param.dtype:
        return grad, f"the parameter is {param.dtype} and its gradient {grad.dtype}"
    if any(t.shape != param.shape for t in tensors):
        return grad, "the gradient or the state has another shape than the parameter"
    if not _is_dense(param) or not all(_laid_alike(t, param) for t in moments):
        return grad, "the parameter's memory is not dense, or its state is laid out otherwise"
    if not _laid_alike(grad, param):
        return torch.empty_like(param).copy_(grad), ""
    return grad, ""


def _is_dense(tensor: Tensor) -> bool:
    forms = {4: torch.channels_last, 5: torch.channels_last_3d}
    form = forms.get(tensor.dim())
    return tensor.is_contiguous() or (form is not None and tensor.is_contiguous(memory_format=form))


def _laid_alike(a: Tensor, b: Tensor) -> bool:
    return (a.is_contiguous() and b.is_contiguous()) or a.stride() == b.stride()
