"""How much of a machine's arithmetic a training uses."""

from __future__ import annotations

import time

import torch

from mmxx.nn.gpt import GPT
from mmxx.nn.linear import linear

# Dense arithmetic in 16 bits, from the makers' data sheets, in operations a second.
_PEAKS = {
    "V100": 125e12, "T4": 65e12, "A100": 312e12, "A10": 125e12, "L4": 121e12, "H100": 989e12,
    "H200": 989e12, "B200": 2250e12,
}  # fmt: skip


def peak_flops(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Operations a second that a device could do at most.

    Args:
        device: A GPU that is known by name has its data sheet's figure for 16 bits; of any other
            device, and other precisions, the product of two large matrices is timed.
        dtype: Precision of the arithmetic.
    """
    device = torch.device(device)
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        name = torch.cuda.get_device_name(device)
        for part in sorted(_PEAKS, key=len, reverse=True):
            if part in name:
                return _PEAKS[part]
    size = 1024 if device.type == "cpu" else 8192
    left = torch.ones(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        linear(left, left).sum().item()
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def mfu(model: GPT, tokens_per_second: float, peak: float) -> float:
    """Model flops utilisation: the part of the peak that goes into the model's own arithmetic.

    Args:
        model: The model.
        tokens_per_second: How fast it trains.
        peak: Operations a second, see `peak_flops`.

    Source: Chowdhery et al. (2022), appendix B.
    """
    return tokens_per_second * model.flops_per_token() / peak
