"""Training counted in tokens: schedules, batches that grow, accumulation, clipping, precision."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

Precision = Literal["fp32", "bf16", "fp16"]


class Sequences(Protocol):
    """What a model is trained on: rows of tokens that are a function of their numbers."""

    n_ctx: int

    def rows(self, start: int, count: int) -> Tensor:
        """The rows start … start + count - 1 of the training, int64 [count, n_ctx + 1]."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How many tokens a step reads, and its learning rate, both by the tokens read so far.

    Attributes:
        tokens: Tokens of the whole training.
        batch_tokens: Tokens of a batch at its full size.
        n_ctx: Tokens of a row.
        lr: The highest learning rate.
        warmup_tokens: Tokens over which it rises from 0, in a line.
        decay_tokens: The token at which its cosine ends; all of them by default.
        min_lr: Part of ``lr`` that is left from there on.
        ramp: The first batch's tokens, and the tokens over which it grows to ``batch_tokens`` in
            a line; None for batches of full size from the start.
        rows_multiple: Rows by which each batch must be divisible: ranks times rows of a
            micro-batch.

    Raises:
        ValueError: Counts that do not fit one another.

    Source: Brown et al. (2020), appendix B.

    Example:
        >>> plan = Schedule(tokens=4096, batch_tokens=512, n_ctx=64, lr=1.0, warmup_tokens=1024)
        >>> plan.steps, plan.lr_at(512), plan.lr_at(4096)
        (8, 0.5, 0.1)
    """

    tokens: int
    batch_tokens: int
    n_ctx: int
    lr: float
    warmup_tokens: int = 0
    decay_tokens: int | None = None
    min_lr: float = 0.1
    ramp: tuple[int, int] | None = None
    rows_multiple: int = 1

    def __post_init__(self) -> None:
        unit = self.n_ctx * self.rows_multiple
        first = self.batch_tokens if self.ramp is None else self.ramp[0]
        for name, value in (("batch_tokens", self.batch_tokens), ("ramp[0]", first)):
            if value < 1 or value % unit:
                raise ValueError(
                    f"{name} must be a multiple of n_ctx={self.n_ctx} times {self.rows_multiple} "
                    f"(ranks times rows of a micro-batch), got {value}"
                )
        if first > self.batch_tokens:
            raise ValueError(
                f"ramp[0] must be batch_tokens={self.batch_tokens} or less, got {first}"
            )
        if self.ramp is not None and self.ramp[1] < 1:
            raise ValueError(f"ramp[1] must be 1 or more, got {self.ramp[1]}")
        if self.tokens < first or self.tokens % unit:
            raise ValueError(
                f"tokens must be a multiple of {unit} (n_ctx times ranks times rows of a "
                f"micro-batch) and at least one batch of {first}, got {self.tokens}"
            )
        if not 0 <= self.warmup_tokens <= self.tokens:
            raise ValueError(
                f"warmup_tokens must lie in 0 … tokens={self.tokens}, got {self.warmup_tokens}"
            )
        if not self.warmup_tokens <= self._decay <= self.tokens:
            raise ValueError(
                f"decay_tokens must lie in warmup_tokens={self.warmup_tokens} … "
                f"tokens={self.tokens}, got {self.decay_tokens}"
            )
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if not 0 <= self.min_lr <= 1:
            raise ValueError(f"min_lr must lie in [0, 1], got {self.min_lr}")

    @property
    def _decay(self) -> int:
        return self.tokens if self.decay_tokens is None else self.decay_tokens

    @property
    def steps(self) -> int:
        """Steps of the whole training."""
        return len(self._starts) - 1

    def batch(self, step: int) -> tuple[int, int]:
        """Rows that were read before a step, and rows that it reads."""
        start, end = self._starts[step], self._starts[step + 1]
        return start, end - start

    @cached_property
    def _starts(self) -> list[int]:
        starts, rows = [0], self.tokens // self.n_ctx
        while starts[-1] < rows:
            starts.append(min(rows, starts[-1] + self._rows_at(starts[-1] * self.n_ctx)))
        return starts

    def _rows_at(self, tokens: int) -> int:
        """Rows of the batch that begins after so many tokens."""
        size = self.batch_tokens
        if self.ramp is not None and tokens < self.ramp[1]:
            first, over = self.ramp
            size = first + (self.batch_tokens - first) * tokens // over
        unit = self.n_ctx * self.rows_multiple
        return size // unit * self.rows_multiple

    def lr_at(self, tokens: int) -> float:
        """The learning rate of a step that ends at that many tokens."""
        if tokens < self.warmup_tokens:
            return self.lr * tokens / self.warmup_tokens
        span = self._decay - self.warmup_tokens
        done = min(1.0, (tokens - self.warmup_tokens) / span) if span else 1.0
        return self.lr * (self.min_lr + (1 - self.min_lr) * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class Step:
    """What a step did.

    Attributes:
        step: Its number, from 0.
        tokens: Tokens read so far, this step's among them.
        loss: Mean loss of the batch in nats; on several ranks that of this rank's part.
        lr: Learning rate.
        grad_norm: Norm of the gradient before clipping.
        seconds: Wall time.
    """

    step: int
    tokens: int
    loss: float
    lr: float
    grad_norm: float
    seconds: float


class Training:
    """A model with its optimizer, a step at a time; what `train` runs and a loop can resume.

    Args:
        model: The model, perhaps wrapped by DDP or sharded by `shard`.
        data: Rows of tokens.
        schedule: Batches and learning rates.
        betas: Of Adam.
        eps: Of Adam.
        weight_decay: Decoupled; on matrices and embeddings, not on biases and normalisations.
        clip: The largest norm of the gradient.
        micro_batch: Rows of a forward pass; by default the whole part of this rank.
        precision: "fp32"; or a forward pass in "bf16" or "fp16", the latter on a GPU only and
            with its loss scaled.
        compile: Whether to compile the model: worth its minute for runs of several.
        part: This rank's part of a batch's rows; by default all.

    Attributes:
        model: The model that is called.
        optimizer: AdamW.

    Raises:
        ValueError: fp16 without a GPU, rows longer than the model's, or numbers out of range.

    Source: Brown et al. (2020), appendix B.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Sequences,
        schedule: Schedule,
        *,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
        clip: float = 1.0,
        micro_batch: int | None = None,
        precision: Precision = "fp32",
        compile: bool = False,
        part: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.device = next(model.parameters()).device
        if precision not in ("fp32", "bf16", "fp16"):
            raise ValueError(f"precision must be 'fp32', 'bf16' or 'fp16', got {precision!r}")
        if precision == "fp16" and self.device.type != "cuda":
            raise ValueError(f"precision 'fp16' needs a GPU, and the model is on {self.device}")
        if not clip > 0:
            raise ValueError(f"clip must be above 0, got {clip}")
        if micro_batch is not None and micro_batch < 1:
            raise ValueError(f"micro_batch must be 1 or more, got {micro_batch}")
        if data.n_ctx != schedule.n_ctx:
            raise ValueError(f"rows have {data.n_ctx} tokens, and the schedule {schedule.n_ctx}")
        self.data, self.schedule = data, schedule
        self.clip, self.micro_batch = clip, micro_batch
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(
            decay_groups(model, weight_decay), lr=schedule.lr, betas=betas, eps=eps, fused=True
        )
        self.model: Any = torch.compile(model) if compile else model
        self._part = part or (lambda rows: rows)
        self._scaler = torch.amp.GradScaler("cuda") if precision == "fp16" else None
        self._dtype = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    def step(self, number: int) -> Step:
        """One step: its batch, forward and backward in micro-batches, clipping, AdamW.

        Where the loss is not finite, the weights stay as they were.
        """
        began = time.perf_counter()
        start, count = self.schedule.batch(number)
        tokens = (start + count) * self.schedule.n_ctx
        lr = self.schedule.lr_at(tokens)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        rows = self._part(self.data.rows(start, count)).to(self.device)
        self.optimizer.zero_grad()
        pieces = rows.split(self.micro_batch or len(rows))
        loss = torch.zeros((), device=self.device, dtype=torch.float64)
        for i, piece in enumerate(pieces):
            with self._without_sync(i + 1 < len(pieces)):
                with self._cast():
                    part = self.model(piece[:, :-1], piece[:, 1:])[1] * (len(piece) / len(rows))
                (part if self._scaler is None else self._scaler.scale(part)).backward()
            loss += part.detach()
        if self._scaler is not None:
            self._scaler.unscale_(self.optimizer)
        norm: Any = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        lost = loss.item()
        if self._scaler is not None:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        elif math.isfinite(lost) and math.isfinite(norm):
            self.optimizer.step()
        return Step(number, tokens, lost, lr, norm, time.perf_counter() - began)

    def _without_sync(self, inner: bool) -> AbstractContextManager[Any]:
        """Ranks exchange gradients after the last micro-batch only."""
        if hasattr(self.model, "set_requires_gradient_sync"):  # fully_shard
            self.model.set_requires_gradient_sync(not inner)
        elif inner and hasattr(self.model, "no_sync"):  # DDP
            return self.model.no_sync()
        return nullcontext()

    def _cast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.device.type, self._dtype, enabled=self._dtype is not None)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's state, and that of the scale of the loss."""
        scaler = {} if self._scaler is None else self._scaler.state_dict()
        return {"optimizer": self.optimizer.state_dict(), "scaler": scaler}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self._scaler is not None:
            self._scaler.load_state_dict(state["scaler"])


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters in two groups: matrices and embeddings decay, biases and normalisations do not.

    Args:
        model: The model; a tied parameter counts once.
        weight_decay: Of the first group.
    """
    params = [param for param in model.parameters() if param.requires_grad]
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


def train(
    model: nn.Module,
    mixture: Sequences,
    *,
    tokens: int,
    batch_tokens: int,
    lr: float,
    ramp: tuple[int, int] | None = None,
    warmup_tokens: int = 0,
    decay_tokens: int | None = None,
    min_lr: float = 0.1,
    rows_multiple: int | None = None,
    state: dict[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Step]:
    """Train a model, a step at each turn of the caller's loop.

    Args:
        model: The model; it is trained in place.
        mixture: Rows of tokens: a `Mixture`, or anything with ``n_ctx`` and ``rows``.
        tokens: Tokens of the whole training.
        batch_tokens: Tokens of a batch.
        lr: The highest learning rate.
        ramp: As in `Schedule`.
        warmup_tokens: As in `Schedule`.
        decay_tokens: As in `Schedule`.
        min_lr: As in `Schedule`.
        rows_multiple: As in `Schedule`; by default the rows of a micro-batch.
        state: A dictionary that is brought up to date after each step. Handed in again, with
            the model's weights of that moment, training goes on from there.
        settings: Those of `Training`: betas, eps, weight_decay, clip, micro_batch, precision,
            compile, part.

    Yields:
        A `Step` for each step.

    Raises:
        FloatingPointError: The loss or its gradient is not finite; the weights are those before
            the step.
        ValueError: As `Schedule` and `Training`.

    Example:
        >>> from mmxx.language.gpt3 import GPT, Documents, GPTConfig
        >>> model = GPT(GPTConfig(n_layer=1, d_model=8, n_head=1, vocab_size=345, n_ctx=34))
        >>> steps = train(model, Documents(), tokens=340, batch_tokens=170, lr=1e-3)
        >>> [step.tokens for step in steps]
        [170, 340]
    """
    plan = Schedule(
        tokens, batch_tokens, mixture.n_ctx, lr, warmup_tokens, decay_tokens, min_lr, ramp,
        rows_multiple or settings.get("micro_batch") or 1,
    )  # fmt: skip
    training = Training(model, mixture, plan, **settings)
    state = {} if state is None else state
    if state:
        training.load_state_dict(state["training"])
    for number in range(state.get("step", 0), plan.steps):
        step = training.step(number)
        if not math.isfinite(step.loss):
            raise FloatingPointError(
                f"the loss became {step.loss} at step {number}; the weights are those before it"
            )
        state.update(step=number + 1, training=training.state_dict())
        yield step


@torch.no_grad()
def validation_loss(model: nn.Module, data: Sequences, rows: int, *, batch: int = 32) -> float:
    """Mean loss on the first rows of some data: the same windows every time.

    Args:
        model: The model.
        data: Rows of tokens.
        rows: How many.
        batch: Rows of a forward pass.

    Returns:
        Nats a token.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total = 0.0
    for start in range(0, rows, batch):
        piece = data.rows(start, min(batch, rows - start)).to(device)
        total += model(piece[:, :-1], piece[:, 1:])[1].item() * len(piece)
    model.train(was_training)
    return total / rows
