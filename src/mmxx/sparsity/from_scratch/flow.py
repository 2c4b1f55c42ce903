"""Following channels through a network: which layer's channels become which layer's inputs.

Every channel of every layer gets a number. An operation that ties channels together, such as the
sum of a residual block, joins their numbers; what must stay whole is pinned, with the reason.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
WEIGHTED = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
NORMS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip
_MIXING = (nn.GroupNorm, nn.LayerNorm, nn.LocalResponseNorm, nn.Softmax, nn.Softmax2d)
_PASSING = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU,
    nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.Hardswish, nn.Hardsigmoid,
    nn.Hardtanh, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Upsample, nn.ZeroPad1d, nn.ZeroPad2d,
    nn.ZeroPad3d, nn.ReflectionPad1d, nn.ReflectionPad2d, nn.ReplicationPad1d,
    nn.ReplicationPad2d,
)  # fmt: skip
# Functions and methods by name; a trailing underscore (in place) is taken off.
_SAME = frozenset(
    "relu relu6 leaky_relu elu celu selu gelu silu mish tanh sigmoid softplus softsign hardswish "
    "hardsigmoid hardtanh clamp clip abs neg sqrt square exp dropout dropout1d dropout2d dropout3d "
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d "
    "adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d interpolate upsample pad contiguous clone detach float double half to "
    "identity pow".split()
)
_JOINING = frozenset(
    "add iadd radd sub isub rsub mul imul rmul div truediv itruediv maximum minimum".split()
)
_RESHAPING = frozenset("flatten reshape view squeeze unsqueeze".split())
_REDUCING = frozenset("mean sum amax amin".split())
_ORIGINS = frozenset(("torch", "_operator", "builtins", "math"))


def skeleton(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that holds shapes only, on torch's meta device.

    Raises:
        ValueError: A parameter has no shape yet (lazy modules).
    """
    memo: dict[int, Any] = {}
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, nn.UninitializedParameter | nn.parameter.UninitializedBuffer):
            raise ValueError(f"model: {name} has no shape yet; run the model once on its data")
        empty = torch.empty_like(tensor, device="meta")
        memo[id(tensor)] = nn.Parameter(empty, False) if isinstance(tensor, nn.Parameter) else empty
    small = copy.deepcopy(model, memo).eval()
    for module in small.modules():
        module._forward_hooks.clear()  # those of the user count, log or store
        if isinstance(module, NORMS):  # on the meta device they are decomposed, which takes long
            module.forward = _unchanged  # type: ignore[method-assign]
    return small


def _unchanged(inputs: Tensor) -> Tensor:
    return inputs


def meta_input(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """A batch of one input, without memory, of the precision of the model's parameters.

    Raises:
        ValueError: A size is below 1, or there is none.
    """
    shape = tuple(input_shape)
    if not shape or any(isinstance(n, bool) or n != int(n) or n < 1 for n in shape):
        raise ValueError(
            f"input_shape must be the shape of one input without the batch, such as (3, 32, 32), "
            f"got {input_shape!r}"
        )
    kinds = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return torch.empty(1, *map(int, shape), device="meta", dtype=kinds[0] if kinds else None)


class _Recorder(fx.Interpreter):
    """Runs a traced network and keeps what every node gave."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.values[n] = value
        return value


class Flow:
    """The channels of a network, numbered, joined and pinned.

    Args:
        model: A `skeleton`.
        input_shape: Shape of one input, without the batch.

    Attributes:
        axes: For (module, "in" or "out") the numbers of the channels along that axis.
        calls: For each call of a weighted layer (module, multiply-adds for each pair of channels).
        depthwise: Modules whose output channels are their input channels.
        site: For a layer the module behind which its channels are gated: its normalisation, where
            one follows at once, else itself.
        reasons: Why a channel (by number) is pinned.

    Raises:
        ValueError: The network cannot be traced or run on ``input_shape``, or a node does what
            channels cannot be followed through; the message names it.
    """

    def __init__(self, model: nn.Module, input_shape: Sequence[int]) -> None:
        self.axes: dict[tuple[str, str], np.ndarray] = {}
        self.calls: list[tuple[str, float]] = []
        self.depthwise: set[str] = set()
        self.site: dict[str, str] = {}
        self.reasons: dict[int, str] = {}
        self._parent: list[int] = []
        self._channels: dict[fx.Node, np.ndarray] = {}  # of nodes that give a tensor
        refuse_shared_weights(model)
        inputs = meta_input(model, input_shape)
        try:
            traced = fx.symbolic_trace(model)
        except Exception as error:
            raise ValueError(
                f"model: torch.fx cannot trace it, so that channels cannot be followed: {error}"
            ) from error
        recorder = _Recorder(traced)
        try:
            recorder.run(inputs)
        except Exception as error:
            raise ValueError(
                f"input_shape: the model does not run on inputs of {tuple(input_shape)}: {error}"
            ) from error
        self._modules = dict(traced.named_modules())
        self._values = recorder.values
        for node in traced.graph.nodes:
            ids = self._follow(node)
            if ids is not None:
                self._channels[node] = ids
        self._find_sites(traced.graph.nodes)

    def roots(self, ids: np.ndarray) -> np.ndarray:
        """For each channel the number that stands for all that it is joined with."""
        return np.array([self._root(i) for i in ids.tolist()], np.int64)

    # -- numbers -------------------------------------------------------------------------------

    def _new(self, count: int) -> np.ndarray:
        start = len(self._parent)
        self._parent.extend(range(start, start + count))
        return np.arange(start, start + count)

    def _root(self, i: int) -> int:
        while self._parent[i] != i:
            self._parent[i] = self._parent[self._parent[i]]
            i = self._parent[i]
        return i

    def _join(self, one: np.ndarray, other: np.ndarray) -> None:
        for a, b in zip(one.tolist(), other.tolist(), strict=True):
            a, b = self._root(a), self._root(b)
            if a != b:
                self._parent[max(a, b)] = min(a, b)

    def _pin(self, ids: np.ndarray, reason: str) -> np.ndarray:
        for i in ids.tolist():
            self.reasons.setdefault(i, reason)
        return ids

    # -- nodes ---------------------------------------------------------------------------------

    def _follow(self, node: fx.Node) -> np.ndarray | None:
        """The channels of what a node gives; None where that is no tensor of channels."""
        value = self._values[node]
        if node.op == "output":
            for source in self._sources(node):
                self._pin(self._channels[source], "it is the network's output")
            return None
        if not isinstance(value, Tensor):
            if isinstance(value, (tuple, list)) and any(isinstance(v, Tensor) for v in value):
                self._refuse(node, "it gives several tensors")
            return None
        if node.op == "placeholder":
            count = value.shape[1] if value.ndim > 1 else 1
            return self._pin(self._new(count), "it is the network's input")
        if node.op == "call_module":
            return self._module(node, value)
        if node.op in ("call_function", "call_method"):
            return self._function(node, value)
        return self._refuse(node, "a parameter is used outside of a layer")

    def _refuse(self, node: fx.Node, why: str) -> Any:
        what = node.target if isinstance(node.target, str) else _name(node)
        raise ValueError(
            f"model: channels cannot be followed through the node {node.name!r} "
            f"({node.op.removeprefix('call_')} {what}): {why}"
        )

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        return [n for n in node.all_input_nodes if n in self._channels]

    def _source(self, node: fx.Node) -> np.ndarray:
        """The channels of the one tensor that a node works on."""
        found = self._sources(node)
        if len(found) != 1:
            return self._refuse(node, f"it works on {len(found)} tensors")
        return self._channels[found[0]]

    def _same(self, node: fx.Node, value: Tensor) -> np.ndarray:
        ids = self._source(node)
        if value.ndim < 2 or value.shape[1] != len(ids):
            return self._refuse(node, f"it changes {len(ids)} channels to {tuple(value.shape)}")
        return ids

    def _module(self, node: fx.Node, value: Tensor) -> np.ndarray:
        name, module = str(node.target), self._modules[str(node.target)]
        if isinstance(module, WEIGHTED):
            return self._weighted(node, name, module, value)
        if isinstance(module, (*NORMS, nn.PReLU)):
            ids = self._same(node, value)
            single = isinstance(module, nn.PReLU) and module.num_parameters == 1
            return ids if single else self._axis(name, "out", ids)
        if isinstance(module, nn.Flatten):
            return self._reshaped(node, value, fixed=False)
        if isinstance(module, _MIXING):
            kind = type(module).__name__
            return self._pin(self._same(node, value), f"{name} ({kind}) mixes its channels")
        if isinstance(module, _PASSING):
            return self._same(node, value)
        return self._refuse(node, f"a {type(module).__name__} is not among the layers known")

    def _axis(self, name: str, axis: str, ids: np.ndarray) -> np.ndarray:
        """Record the channels along an axis of a module; every further call joins them."""
        known = self.axes.setdefault((name, axis), ids)
        if known is not ids:
            self._join(known, ids)
        return known

    def _weighted(self, node: fx.Node, name: str, module: Any, value: Tensor) -> np.ndarray:
        ids, inputs = self._source(node), self._values[node.all_input_nodes[0]]
        if isinstance(module, nn.Linear):
            if inputs.ndim != 2:
                return self._refuse(
                    node, f"a linear layer takes [N, features] here, not {tuple(inputs.shape)}"
                )
            self.calls.append((name, 1.0))
            self._axis(name, "in", ids)
            return self._out(name, module.out_features)
        places = math.prod((inputs if isinstance(module, TRANSPOSED) else value).shape[2:])
        each = float(places * math.prod(module.kernel_size))
        if module.groups == 1:
            self.calls.append((name, each))
            self._axis(name, "in", ids)
            return self._out(name, module.out_channels)
        if module.groups == module.in_channels:
            self.depthwise.add(name)
            self.calls.append((name, each))
            return self._axis(name, "out", np.repeat(ids, module.out_channels // module.groups))
        self.calls.append((name, each / module.groups))
        reason = f"{name} is a convolution of {module.groups} groups"
        self._pin(self._axis(name, "in", ids), reason)
        return self._pin(self._out(name, module.out_channels), reason)

    def _out(self, name: str, count: int) -> np.ndarray:
        known = self.axes.get((name, "out"))
        return self._axis(name, "out", self._new(count)) if known is None else known

    def _function(self, node: fx.Node, value: Tensor) -> np.ndarray:
        name = _name(node)
        if name in _SAME:
            return self._same(node, value)
        if name in _JOINING:
            return self._joined(node, value)
        if name in ("cat", "concat"):
            return self._concatenated(node, value)
        if name in _RESHAPING:
            return self._reshaped(node, value, fixed=_fixes_channels(node))
        if name in _REDUCING:
            return self._reduced(node, value)
        if name == "getitem":
            index = node.args[1]
            if isinstance(index, tuple) and len(index) > 1 and index[:2] == (slice(None),) * 2:
                return self._same(node, value)
        if name in ("softmax", "log_softmax", "layer_norm", "group_norm"):
            return self._pin(self._same(node, value), f"{node.name} mixes its channels")
        return self._refuse(node, "it is not among the operations known")

    def _joined(self, node: fx.Node, value: Tensor) -> np.ndarray:
        found = self._sources(node)
        sizes = [self._values[n] for n in found]
        if any(v.ndim != value.ndim for v in sizes):
            return self._refuse(node, f"its tensors have {[tuple(v.shape) for v in sizes]}")
        wide = [self._channels[n] for n in found if len(self._channels[n]) == value.shape[1]]
        for other in wide[1:]:
            self._join(wide[0], other)
        for thin in (self._channels[n] for n in found):
            if len(thin) != value.shape[1]:
                self._pin(thin, f"{node.name} spreads it over all channels")
        return wide[0]

    def _concatenated(self, node: fx.Node, value: Tensor) -> np.ndarray:
        dim = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else 0)
        given = node.kwargs.get("tensors", node.args[0] if node.args else ())
        nodes = [n for n in given if isinstance(n, fx.Node)] if isinstance(given, Sequence) else []
        parts = [self._channels[n] for n in nodes if n in self._channels]
        if not parts or len(parts) != len(nodes):
            return self._refuse(node, "it concatenates what is no tensor of channels")
        if dim in (1, 1 - value.ndim):
            return np.concatenate(parts)
        for other in parts[1:]:
            self._join(parts[0], other)
        return parts[0]

    def _reshaped(self, node: fx.Node, value: Tensor, *, fixed: bool) -> np.ndarray:
        source = self._sources(node)[0]
        ids, before = self._channels[source], self._values[source].shape
        if value.ndim < 2 or value.shape[0] != before[0]:
            return self._refuse(node, f"it makes {tuple(value.shape)} of {tuple(before)}")
        if value.shape[1] == len(ids):
            kept = ids
        elif value.ndim == 2 and value.shape[1] == math.prod(before[1:]):
            kept = np.repeat(ids, math.prod(before[2:]))
        else:
            return self._refuse(node, f"it makes {tuple(value.shape)} of {tuple(before)}")
        return self._pin(kept, f"{node.name} fixes their number") if fixed else kept

    def _reduced(self, node: fx.Node, value: Tensor) -> np.ndarray:
        ids, before = self._source(node), self._values[node.all_input_nodes[0]].ndim
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        over = {d % before for d in (dims if isinstance(dims, (tuple, list)) else (dims,))} \
            if dims is not None else {0}  # fmt: skip
        if 0 in over:
            return self._refuse(node, "it reduces over the batch")
        if 1 in over:
            self._pin(ids, f"{node.name} mixes its channels")
            return self._pin(self._new(value.shape[1] if value.ndim > 1 else 1), node.name)
        return ids

    # -- where gates go ------------------------------------------------------------------------

    def _find_sites(self, nodes: Iterable[fx.Node]) -> None:
        called: dict[str, list[fx.Node]] = {}
        for node in nodes:
            if node.op == "call_module":
                called.setdefault(str(node.target), []).append(node)
        for name in dict.fromkeys(layer for layer, _ in self.calls):
            behind = {user for node in called[name] for user in node.users}
            targets = {str(user.target) for user in behind if user.op == "call_module"}
            after = next(iter(targets)) if len(targets) == 1 else ""
            alone = after and behind == set(called[after])
            norm = alone and isinstance(self._modules[after], NORMS)
            self.site[name] = after if norm else name


def refuse_shared_weights(model: nn.Module) -> None:
    """Raise ValueError where two layers share one tensor, or compute theirs from others."""
    owner: dict[int, str] = {}
    for name, module in model.named_modules():
        if not isinstance(module, (*WEIGHTED, *NORMS, nn.PReLU)):
            continue
        own = dict(module.named_parameters(recurse=False))
        weight = getattr(module, "weight", None)
        if weight is not None and "weight" not in own:
            raise ValueError(
                f"model: the weight of {name or 'the model'} is computed from other tensors (a "
                "parametrization or a mask); remove that first"
            )
        for key, parameter in own.items():
            first = owner.setdefault(id(parameter), f"{name}.{key}")
            if first != f"{name}.{key}":
                raise ValueError(
                    f"model: {first} and {name}.{key} are one tensor; untie them first"
                )


def _name(node: fx.Node) -> str:
    """The plain name of a function or method of torch, "" for a stranger's."""
    if node.op == "call_method":
        return str(node.target).rstrip("_")
    target: Any = node.target
    origin = (getattr(target, "__module__", None) or "torch").partition(".")[0]
    return getattr(target, "__name__", "").rstrip("_") if origin in _ORIGINS else ""


def _fixes_channels(node: fx.Node) -> bool:
    """Whether a reshape names the number of channels as a plain number."""
    if _name(node) not in ("reshape", "view"):
        return False
    sizes = node.args[1] if len(node.args) == 2 else node.args[1:]
    sizes = node.kwargs.get("shape", node.kwargs.get("size", sizes))
    named = sizes[1] if isinstance(sizes, Sequence) and len(sizes) > 1 else -1
    return isinstance(named, int) and named != -1
