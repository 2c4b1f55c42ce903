"""What the authors set for each task."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "cifar": {
        "lr": 1e-3,
        "eps": 1e-8,
        "weight_decay": 5e-4,
        "weight_decouple": False,
        "rectify": False,
    },
    "imagenet": {"lr": 1e-3, "eps": 1e-8, "weight_decay": 1e-2, "rectify": False},
    "detection": {
        "lr": 1e-4,
        "eps": 1e-8,
        "weight_decay": 1e-4,
        "weight_decouple": False,
        "rectify": False,
    },
    "lstm-1": {
        "lr": 1e-3,
        "eps": 1e-16,
        "weight_decay": 1.2e-6,
        "weight_decouple": False,
        "rectify": False,
    },
    "lstm-2": {
        "lr": 1e-2,
        "eps": 1e-12,
        "weight_decay": 1.2e-6,
        "weight_decouple": False,
        "rectify": False,
    },
    "gan": {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-12, "rectify": False},
    "sngan": {"lr": 2e-4, "betas": (0.5, 0.999), "eps": 1e-16, "rectify": True},
    "transformer": {"lr": 5e-4, "eps": 1e-16, "weight_decay": 1e-4, "rectify": True},
    "rainbow": {"lr": 1e-4, "eps": 1e-10, "rectify": True},
    "halfcheetah": {"lr": 1e-3, "eps": 1e-12, "rectify": True},
}
"""The authors' settings per task (table of hyper-parameters in their repository).

``lstm-1`` is for one layer, ``lstm-2`` for two or three; ``gan`` for small networks, ``sngan``
for large ones; ``rainbow`` and ``halfcheetah`` are reinforcement learning.
"""
