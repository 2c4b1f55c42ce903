"""Masks: what they cover, combine to, leave in a network, and look like in a file."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mmxx.sparsity._common import Masks, prunable


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5)
    )


def random_masks(model, density=0.4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Masks(
        {n: torch.rand(p.shape, generator=generator) < density for n, p in prunable(model).items()}
    )


def test_weights_of_layers_are_prunable_and_nothing_else():
    assert list(prunable(network())) == ["0.weight", "4.weight"]


def test_shared_weights_count_once():
    first = nn.Linear(4, 4)
    second = nn.Linear(4, 4)
    second.weight = first.weight
    masks = Masks.ones_like(nn.Sequential(first, second))
    assert list(masks) == ["0.weight"]
    assert masks.total == 16


def test_ones_keep_every_bit():
    model = network()
    before = {name: p.clone() for name, p in model.named_parameters()}
    masks = Masks.ones_like(model)
    masks.apply(model)
    assert masks.density == 1.0
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_applied_masks_zero_what_they_drop_and_no_more():
    model = network()
    before = {name: p.clone() for name, p in model.named_parameters()}
    masks = random_masks(model)
    masks.apply(model)
    for name, parameter in model.named_parameters():
        mask = masks.get(name, torch.ones_like(parameter, dtype=torch.bool))
        assert torch.equal(parameter[mask], before[name][mask])
        assert not parameter[~mask].any()
    assert masks.kept == sum(int(m.sum()) for m in masks.values())
    assert masks.density == masks.kept / (27 + 60)
    assert masks.per_layer()["4.weight"] == int(masks["4.weight"].sum()) / 60


def test_masks_combine_element_by_element():
    one, other = random_masks(network(), seed=1), random_masks(network(), seed=2)
    for name in one:
        assert torch.equal((one & other)[name], one[name] & other[name])
        assert torch.equal((one | other)[name], one[name] | other[name])
    assert one & one == one
    assert one != other
    with pytest.raises(ValueError, match=r"other parameters: \['0.weight'\]"):
        one & Masks({"4.weight": one["4.weight"]})


@pytest.mark.parametrize("mode", ["layerwise", "global"])
def test_random_places_keep_the_density(mode):
    masks = random_masks(network())
    shuffled = masks.randomise(3, mode)
    assert shuffled.kept == masks.kept
    assert shuffled != masks
    assert shuffled == masks.randomise(3, mode)
    assert shuffled != masks.randomise(4, mode)
    if mode == "layerwise":
        assert shuffled.per_layer() == masks.per_layer()


def test_random_places_leave_the_global_generator_alone():
    before = torch.get_rng_state()
    random_masks(network()).randomise(0)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_file_holds_one_bit_a_weight(tmp_path):
    masks = Masks({"a": torch.rand(1000, 80, generator=torch.Generator().manual_seed(0)) < 0.3})
    masks.save(tmp_path / "m.safetensors")
    assert Masks.load(tmp_path / "m.safetensors") == masks
    assert (tmp_path / "m.safetensors").stat().st_size < 10_000 + 400


def test_odd_shapes_come_back_from_a_file(tmp_path):
    shapes = ((), (1,), (3, 5), (0, 4), (2, 3, 7))
    masks = Masks({str(i): torch.rand(s) < 0.5 for i, s in enumerate(shapes)})
    masks.save(tmp_path / "m.safetensors")
    assert Masks.load(tmp_path / "m.safetensors") == masks


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match="no safetensors file"):
        Masks.load(path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="holds no masks"):
        Masks.load(path)
    about = '{"format": "mmxx-masks-1", "shapes": {"a": [99]}}'
    save_file({"a": torch.ones(2)}, path, {"masks": about})
    with pytest.raises(ValueError, match=r"'a' has not the bits of shape \[99\]"):
        Masks.load(path)


def test_masks_of_another_network_are_refused_with_all_reasons():
    masks = Masks({"0.weight": torch.ones(1, dtype=torch.bool), "9.weight": torch.tensor([True])})
    with pytest.raises(ValueError, match=r"9.weight is missing; 0.weight has shape \(3, 1, 3, 3\)"):
        masks.apply(network())
    with pytest.raises(ValueError, match=r"no parameter 9\.weight"):
        Masks.ones_like(network(), ["9.weight"])


def test_only_bool_tensors_are_masks():
    with pytest.raises(TypeError, match=r"'a' must be a bool tensor, got torch\.float32"):
        Masks({"a": torch.ones(3)})
    with pytest.raises(ValueError, match="mode must be 'layerwise' or 'global', got 'rows'"):
        random_masks(network()).randomise(0, "rows")


def test_bytes_are_those_of_the_file(tmp_path):
    masks = random_masks(network())
    masks.save(tmp_path / "m.safetensors")
    assert masks.to_bytes() == (tmp_path / "m.safetensors").read_bytes()
    (tmp_path / "other.safetensors").write_bytes(masks.to_bytes())
    assert Masks.load(tmp_path / "other.safetensors") == masks
