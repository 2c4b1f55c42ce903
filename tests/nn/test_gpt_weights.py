"""GPT-2's folders: in and out, beside transformers."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmxx.nn.gpt import GPT, GPTConfig

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def peer():
    """A GPT-2 of transformers with weights that matter."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=61, n_positions=40, n_embd=24, n_layer=3, n_head=4, bos_token_id=60,
        eos_token_id=60,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for param in model.parameters():
            param.add_(0.2 * torch.randn(param.shape))
    return model


@pytest.fixture
def folder(peer, tmp_path):
    peer.save_pretrained(tmp_path)
    return tmp_path


TEXT = torch.arange(2 * 33).view(2, 33) * 7 % 61


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_logits_are_those_of_transformers(peer, folder, dtype, error):
    model = GPT.from_folder(folder).to(dtype).eval()
    with torch.no_grad():
        expected = peer.to(dtype)(TEXT).logits
        assert (model(TEXT)[0] - expected).abs().max() < error
        loss = peer(TEXT, labels=TEXT).loss
        ours = model(TEXT[:, :-1], TEXT[:, 1:])[1]
        assert abs(ours - loss) < 1e-5  # theirs is in single precision
    peer.float()
    assert all(param.requires_grad for param in model.parameters())


def test_shards_are_read(peer, tmp_path):
    peer.save_pretrained(tmp_path, max_shard_size="30KB")
    assert not (tmp_path / "model.safetensors").exists()
    assert torch.equal(GPT.from_folder(tmp_path).wte.weight, peer.transformer.wte.weight)


def test_transformers_reads_what_we_write(folder, tmp_path):
    model = GPT.from_folder(folder, dropout=0.1).eval()
    model.to_folder(tmp_path / "ours")
    again = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert (again(TEXT).logits - model(TEXT)[0]).abs().max() < 1e-5
    assert again.config.resid_pdrop == 0.1
    assert GPT.from_folder(tmp_path / "ours").config == GPT.from_folder(folder).config


def test_names_may_lack_their_prefix_and_hold_masks(peer, folder):
    state = load_file(folder / "model.safetensors")
    state = {name.removeprefix("transformer."): tensor for name, tensor in state.items()}
    state["h.0.attn.bias"] = torch.ones(1, 1, 40, 40)
    state["lm_head.weight"] = state["wte.weight"].clone()
    save_file(state, folder / "model.safetensors")
    assert torch.equal(GPT.from_folder(folder).wte.weight, peer.transformer.wte.weight)


def rewrite(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type must be 'gpt2', got 'llama'"),
        ({"activation_function": "relu"}, "activation_function must be 'gelu_new', got 'relu'"),
        ({"n_embd": None}, "does not give n_embd"),
        ({"scale_attn_by_inverse_layer_idx": True}, "must be False, got True"),
        ({"n_layer": 4}, r"h\.3\.ln_1\.weight is missing"),
        ({"n_layer": 2}, r"h\.2\.attn\.c_attn\.bias is unknown"),
        ({"vocab_size": 62}, r"wte\.weight has shape \[61, 24\], not \[62, 24\]"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(folder, changes, message):
    rewrite(folder, **changes)
    with pytest.raises(ValueError, match=message):
        GPT.from_folder(folder)


def test_files_that_are_missing_or_damaged_are_named(folder, tmp_path_factory):
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        GPT.from_folder(tmp_path_factory.mktemp("empty"))
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(ValueError, match="cannot be read as safetensors"):
        GPT.from_folder(folder)
    weights.rename(folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin holds pickled weights"):
        GPT.from_folder(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"wte.weight": "../away.safetensors"}}')
    with pytest.raises(FileNotFoundError, match=r"names '\.\./away\.safetensors'"):
        GPT.from_folder(folder)
    index.write_text("[]")
    with pytest.raises(ValueError, match="has no weight_map"):
        GPT.from_folder(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        GPT.from_folder(folder)


def test_an_untied_head_is_refused(folder):
    state = load_file(folder / "model.safetensors")
    state["lm_head.weight"] = state["transformer.wte.weight"] + 1
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"lm_head\.weight is not wte\.weight"):
        GPT.from_folder(folder)


def test_what_gpt2_cannot_say_is_not_written(tmp_path):
    sizes = {"n_layer": 2, "d_model": 8, "n_head": 2, "n_ctx": 16, "vocab_size": 5}
    with pytest.raises(ValueError, match="dense layers only, and attention is 'alternating'"):
        GPT(GPTConfig(**sizes, window=4)).to_folder(tmp_path)
    with pytest.raises(ValueError, match=r"needs n_head \* d_head = d_model"):
        GPT(GPTConfig(**sizes, d_head=3)).to_folder(tmp_path)
    assert not list(tmp_path.iterdir())
