"""WAV files, against the standard library's writer and scipy's reader."""

from __future__ import annotations

import io
import struct
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from mmxx.data import DataError, load, read_audio
from mmxx.data.audio import _parse

QUICK = settings(max_examples=60, deadline=None, database=None, derandomize=True)


def pcm(samples, width, channels=1, rate=8000):
    """Bytes of a WAV file of integers, by the standard library."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        signed = width > 1
        file.writeframes(b"".join(int(s).to_bytes(width, "little", signed=signed) for s in samples))
    return buffer.getvalue()


def riff(*chunks, size=None):
    body = b"WAVE" + b"".join(
        name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def fmt(code=1, channels=1, rate=8000, bits=16, block=None):
    block = channels * bits // 8 if block is None else block
    return b"fmt ", struct.pack("<HHIIHH", code, channels, rate, rate * block, block, bits)


@QUICK
@given(st.data(), st.sampled_from([1, 2, 3, 4]), st.integers(1, 3))
def test_integers_come_back_as_fractions_of_full_scale(data, width, channels):
    low, high = (0, 255) if width == 1 else (-(2 ** (8 * width - 1)), 2 ** (8 * width - 1) - 1)
    frames = data.draw(st.integers(1, 20))
    values = data.draw(
        st.lists(st.integers(low, high), min_size=frames * channels, max_size=frames * channels)
    )
    samples, rate = _parse(pcm(values, width, channels, 11025), "x")
    offset, scale = (128, 128) if width == 1 else (0, 2 ** (8 * width - 1))
    expected = (np.array(values, dtype=np.float64) - offset) / scale
    assert rate == 11025
    assert samples.dtype == np.float32
    assert samples.shape == (frames, channels)
    np.testing.assert_array_equal(samples.ravel(), expected.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 2])
def test_equals_scipy(tmp_path, dtype, channels):
    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, (50, channels))
    if np.dtype(dtype).kind != "f":
        info = np.iinfo(dtype)
        values = rng.integers(info.min, info.max, (50, channels))
    path = tmp_path / "a.wav"
    wavfile.write(path, 22050, values.astype(dtype))
    theirs = wavfile.read(path)[1].reshape(50, channels).astype(np.float64)
    scale = {"u": 128, "i": 2.0 ** (8 * np.dtype(dtype).itemsize - 1), "f": 1}[np.dtype(dtype).kind]
    theirs = (theirs - (128 if dtype is np.uint8 else 0)) / scale
    audio = read_audio(path)
    assert audio.rate == 22050
    np.testing.assert_allclose(audio.samples, theirs, atol=1e-7)
    np.testing.assert_allclose(audio.mono(), theirs.mean(1), atol=1e-6)
    assert load(path, ("audio",)).source == audio.source


def test_extensible_header_and_chunks_around_the_data():
    code, plain = fmt(0xFFFE, 2, 8000, 24)
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    extended = plain + struct.pack("<HHI", 22, 24, 3) + guid
    data = b"\x00\x00\x40\x00\x00\xc0"
    content = riff((b"LIST", b"odd"), (code, extended), (b"data", data), (b"id3 ", b"x"))
    samples, _ = _parse(content, "x")
    np.testing.assert_array_equal(samples, [[0.5, -0.5]])
    foreign = extended[:24] + bytes(16)
    with pytest.raises(DataError, match="format code"):
        _parse(riff((code, foreign), (b"data", data)), "x")


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_truncated_at_every_length(tmp_path, width, channels):
    content = pcm([1] * 6, width, channels)
    path = tmp_path / "a.wav"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DataError):
            read_audio(path)


@QUICK
@given(st.data())
def test_any_damage_is_an_error_or_audio(data):
    content = bytearray(pcm(range(40), 2, 2))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        from mmxx.data.source import Decoding

        with Decoding("x", "wav"):
            samples, _ = _parse(bytes(content), "x")
    except DataError:
        return
    assert np.isfinite(samples).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (riff(fmt(), (b"data", b"")), "no samples"),
        (riff(fmt(2, bits=4, block=1), (b"data", b"xx")), "format code 2 with 4 bits"),
        (riff(fmt(bits=12), (b"data", b"xx")), "format code 1 with 12 bits"),
        (riff(fmt(channels=0), (b"data", b"xx")), "0 channels"),
        (riff(fmt(rate=0), (b"data", b"xx")), "0 samples per second"),
        (riff(fmt(block=3), (b"data", b"xxx")), "blocks of 3"),
        (riff(fmt(channels=2), (b"data", b"xxx")), "in blocks of 4"),
        (riff((b"data", b"xx")), "no 'fmt' chunk"),
        (riff(fmt()), "no 'data' chunk"),
        (riff(fmt(), (b"data", b"xx"), size=2**32 - 1), "truncated"),
        (riff((b"fmt ", b"short"), (b"data", b"xx")), "cannot be read"),
        (b"RIFX" + riff(fmt(), (b"data", b"xx"))[4:], "no RIFF WAVE file"),
        (b"OggS" + bytes(100), "no RIFF WAVE file"),
        (riff(fmt(3, bits=32), (b"data", struct.pack("<f", np.nan))), "1 samples that are not"),
        (riff(fmt(3, bits=64), (b"data", struct.pack("<d", 1e300))), "not finite"),
    ],
)  # fmt: skip
def test_unusable_files(tmp_path, content, message):
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_audio(path)
