"""Weights of GPT-2 in the folder layout of transformers: config.json and safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

# Ours and theirs, within a block; theirs keeps linear layers as [in, out].
_BLOCK = {
    "norm1": "ln_1", "attn.qkv": "attn.c_attn", "attn.proj": "attn.c_proj", "norm2": "ln_2",
    "mlp.fc": "mlp.c_fc", "mlp.proj": "mlp.c_proj",
}  # fmt: skip
_REQUIRED = {"n_layer": "n_layer", "d_model": "n_embd", "n_head": "n_head", "n_ctx": "n_positions",
             "vocab_size": "vocab_size"}  # fmt: skip
_MASKS = (".attn.bias", ".attn.masked_bias")  # constants that old files hold
_EXPECTED = {  # what a GPT-2 may be configured to, and this one is not
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
}


def read_config(folder: Path) -> dict[str, Any]:
    """The fields of a GPTConfig that ``config.json`` gives.

    Raises:
        FileNotFoundError: There is no ``config.json``.
        ValueError: It is not that of a GPT-2, or of one that differs from this GPT.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no config.json; a folder of GPT-2 weights has one")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(found, dict) or found.get("model_type", "gpt2") != "gpt2":
        kind = found.get("model_type") if isinstance(found, dict) else type(found).__name__
        raise ValueError(f"{path}: model_type must be 'gpt2', got {kind!r}")
    for name, accepted in _EXPECTED.items():
        if found.get(name, accepted[0]) not in accepted:
            raise ValueError(f"{path}: {name} must be {accepted[0]!r}, got {found[name]!r}")
    missing = [theirs for theirs in _REQUIRED.values() if type(found.get(theirs)) is not int]
    if missing:
        raise ValueError(f"{path} does not give {', '.join(missing)} as an integer")
    return {
        **{ours: found[theirs] for ours, theirs in _REQUIRED.items()},
        "d_ff": found.get("n_inner"),
        "eps": found.get("layer_norm_epsilon", 1e-5),
        "init_std": found.get("initializer_range", 0.02),
        "attention": "dense",
    }


def read_weights(folder: Path, expected: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The tensors of a folder under our names, in their own precision.

    Args:
        folder: Holds ``model.safetensors``, or an index of several such files.
        expected: Our names and shapes.

    Raises:
        FileNotFoundError: There are no safetensors.
        ValueError: A file is damaged, or tensors are missing, unknown or of another shape.
    """
    found: dict[str, Tensor] = {}
    for path in _files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    found[name.removeprefix("transformer.")] = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} cannot be read as safetensors: {error}") from None
    found = {name: x for name, x in found.items() if not name.endswith(_MASKS)}
    head = found.pop("lm_head.weight", None)
    state, wrong = {}, []
    for ours, shape in expected.items():
        theirs, turned = _theirs(ours)
        tensor = found.pop(theirs, None)
        if tensor is None:
            wrong.append(f"{theirs} is missing")
            continue
        if turned and tensor.ndim == 2:
            tensor = tensor.T
        if tensor.shape != shape:
            wrong.append(f"{theirs} has shape {[*tensor.shape]}, not {[*shape]}")
        state[ours] = tensor.contiguous()
    wrong += [f"{name} is unknown" for name in found]
    if head is not None and "wte.weight" in state and not torch.equal(head, state["wte.weight"]):
        wrong.append("lm_head.weight is not wte.weight, and the head here is tied")
    if wrong:
        raise ValueError(f"{folder} does not fit its config.json: {'; '.join(wrong)}")
    return state


def write(folder: Path, config: dict[str, Any], state: dict[str, Tensor]) -> None:
    """Write ``config.json`` and ``model.safetensors`` as transformers does."""
    folder.mkdir(parents=True, exist_ok=True)
    theirs = {}
    for ours, tensor in state.items():
        name, turned = _theirs(ours)
        theirs[f"transformer.{name}"] = (tensor.T if turned else tensor).detach().cpu().contiguous()
    save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})
    text = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
        **{name: config[ours] for ours, name in _REQUIRED.items()},
        "n_inner": config["d_ff"],
        "layer_norm_epsilon": config["eps"],
        "initializer_range": config["init_std"],
        **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), config["dropout"]),
        "bos_token_id": config["vocab_size"] - 1,
        "eos_token_id": config["vocab_size"] - 1,
    }
    (folder / "config.json").write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


def _files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if not index.is_file():
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = (
            f"; {pickled[0]} holds pickled weights, which are not read: save the model with "
            "safe_serialization=True in transformers"
            if pickled
            else ""
        )
        raise FileNotFoundError(f"{folder} has no model.safetensors{hint}")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{index} has no weight_map of tensors to files: {error!r}") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not (folder / name).is_file():
            raise FileNotFoundError(f"{index} names {name!r}, which is no file of the folder")
    return [folder / name for name in names]


def _theirs(ours: str) -> tuple[str, bool]:
    """The name in their files, and whether the tensor lies the other way round."""
    stem, _, kind = ours.rpartition(".")
    if not stem.startswith("blocks."):
        return ("ln_f" if stem == "norm" else stem) + f".{kind}", False
    _, layer, part = stem.split(".", 2)
    return f"h.{layer}.{_BLOCK[part]}.{kind}", kind == "weight" and not part.startswith("norm")
