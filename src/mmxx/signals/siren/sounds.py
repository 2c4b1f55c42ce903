"""A sound to fit, and a sound to listen to."""

from __future__ import annotations

import io
import wave

import numpy as np

from mmxx.signals.siren.siren import check_count


def plucked_strings(n: int, rate: int, *, random_state: int | None = None) -> np.ndarray:
    """A broken chord of plucked strings (Karplus and Strong, 1983).

    A string is a ring of noise, each turn of which is smoothed by averaging neighbours.

    Args:
        n: Number of samples.
        rate: Samples per second.
        random_state: Seed of the noise.

    Returns:
        float32 [n], the loudest sample 1 or -1.

    Example:
        >>> plucked_strings(4000, 16000, random_state=0).shape
        (4000,)
    """
    check_count("n", n)
    check_count("rate", rate)
    rng = np.random.default_rng(random_state)
    sound = np.zeros(n)
    for index, pitch in enumerate((130.8, 164.8, 196.0, 261.6)):
        start = index * n // 6
        ring = rng.uniform(-1, 1, max(2, round(rate / pitch)))
        turns = -(-(n - start) // len(ring))
        rings = np.empty((turns, len(ring)))
        for turn in range(turns):
            rings[turn] = ring
            ring = 0.5 * (ring + np.roll(ring, 1))
        sound[start:] += rings.reshape(-1)[: n - start]
    return (sound / np.abs(sound).max()).astype(np.float32)


def wav_bytes(samples: np.ndarray, rate: int) -> bytes:
    """A WAV file of 16 bits.

    Args:
        samples: [N] or [N, channels]; values beyond -1 and 1 are clipped.
        rate: Samples per second.

    Example:
        >>> wav_bytes(np.zeros(10), 8000)[:4]
        b'RIFF'
    """
    sound = np.clip(np.asarray(samples, float), -1, 1)
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if sound.ndim == 1 else sound.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(sound * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
