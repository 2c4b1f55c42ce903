"""A program as a Python module that needs numpy alone."""

from __future__ import annotations

import re

from mmxx.discovery.automl_zero.ops import OPS, RANDOM
from mmxx.discovery.automl_zero.program import Instruction, Program

_HEAD = '''"""A learning algorithm that was found by evolution. Runs with numpy alone."""

import math

import numpy as np
from numpy import arccos, arcsin, arctan, cos, exp, log, maximum, minimum, outer, sin, tan

M = 2**64 - 1


def heaviside(x, at_zero):
    return np.float64(x >= 0) if np.ndim(x) == 0 else (x > 0).astype(float)


def dot(a, b):
    return (a * b).sum(-1)


def norm(x, axis=None):
    return np.sqrt((x * x).sum(axis))


def mean(x, axis=None):
    return x.mean(axis)


def std(x, axis=None):
    return np.sqrt((x * x).mean(axis) - x.mean(axis) ** 2)


def transpose(x):
    return x.T.copy()


def matmul(a, b):
    return (a[:, :, None] * b[None]).sum(1)


def bcast(x, axis=None):
    if axis is None:
        return np.full(n_features, x)
    return np.repeat(x[:, None] if axis == 0 else x[None], n_features, axis=1 - axis)


def index(fraction):
    return min(int(np.float32(n_features) * np.float32(fraction)), n_features - 1)


def mix(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & M
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & M
    return z ^ (z >> 31)


def step(z, number):
    return mix(z + 0x9E3779B97F4A7C15 * (number + 1) & M)


def unit(key, place):
    return (step(key, place) >> 11) * 2.0**-53


def draws(shape, stream, draw):
    key = step(step(step(seed, task), stream), times[stream // 256] - 1)
    flat = [draw(key, k) for k in range(int(np.prod(shape)))]
    return np.array(flat).reshape(shape) if shape != () else np.float64(flat[0])


def uniform(low, high, shape=(), stream=0):
    return low + (high - low) * draws(shape, stream, unit)


def gaussian(mu, sigma, shape=(), stream=0):
    def normal(key, k):
        radius = math.sqrt(-2.0 * math.log(1.0 - unit(key, 2 * k)))
        return radius * math.cos(2.0 * math.pi * unit(key, 2 * k + 1))

    return mu + sigma * draws(shape, stream, normal)


'''
_TAIL = '''

def fit(X, y, epochs=1, classify=False, seed=0, task=0):
    """Set up, and learn from rows X [n, F] and labels y [n] (0 and 1 with classify)."""
    state = globals()
    state.update(n_features=X.shape[1], seed=seed, task=task, times=[0, 0, 0])
    state.update({name: np.float64(0) for name in SCALARS})
    state.update({name: np.zeros(n_features) for name in VECTORS})
    state.update({name: np.zeros((n_features, n_features)) for name in MATRICES})
    times[0] += 1
    Setup()
    for _ in range(epochs):
        for x, label in zip(X, y):
            forward(x)
            if classify:
                state["s1"] = 1.0 / (1.0 + exp(-s1))
            state["s0"] = np.float64(label)
            times[2] += 1
            Learn()


def forward(x):
    """Predict for one row; the prediction is s1."""
    globals().update(v0=np.asarray(x, float), s0=np.float64(0))
    times[1] += 1
    Predict()
    return float(s1)


def predict(X):
    """Predictions for rows X [m, F], one after the other."""
    return np.array([forward(x) for x in X])


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1100, 4))
    y = X @ rng.normal(size=4)
    fit(X[:1000], y[:1000])
    loss = np.mean((predict(X[1000:]) - y[1000:]) ** 2)
    print("root mean square error on a linear teacher:", np.sqrt(loss))
'''


def source(program: Program) -> str:
    """The module; see `Program.to_python`."""
    program = program.with_streams()
    lines = [_HEAD.rstrip("\n") + "\n"]
    for name, part in zip(("Setup", "Predict", "Learn"), program.parts, strict=True):
        written = {f"{OPS[int(i.op)].out}{i.out}" for i in part if OPS[int(i.op)].out}
        lines += ["", "", f"def {name}():"]
        lines += [f"    global {', '.join(sorted(written))}"] if written else []
        lines += [f"    {_line(i)}" for i in part if i.kind.kernel != "none"] or ["    pass"]
    counts = dict(zip("svm", program.addresses(), strict=True))
    lines += ["", ""]
    for name, letter in (("SCALARS", "s"), ("VECTORS", "v"), ("MATRICES", "m")):
        addresses = [f"{letter}{n}" for n in range(counts[letter])]
        lines.append(f"{name} = {addresses!r}")
    return "\n".join(lines) + "\n" + _TAIL


def _line(instruction: Instruction) -> str:
    text = str(instruction)
    if instruction.kind.data in ("element", "cell"):
        inside = re.compile(r"\[(.*?)\]")
        return inside.sub(
            lambda found: "[" + ", ".join(f"index({x})" for x in found[1].split(", ")) + "]", text
        )
    if instruction.kind.data == "const":
        left, value = text.split(" = ")
        return f"{left} = np.float64({value})"
    if instruction.op in RANDOM:
        return text.replace(", n_features, stream", ", (n_features,), stream")
    return text
