"""A projector trained alone: what is frozen, what is written, and that only what fits is loaded."""

import re

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file, save_file

from moslora import MosloraConfig
from moslora.adapter.projector import FILE, load_projector, projector_of, save_projector, train_in_float32, train_only
from moslora.errors import CheckpointError, ConfigError, OutputError

PREFIX = "model.multi_modal_projector"
NAMES = [f"{PREFIX}.linear_{number}.{kind}" for number in (1, 2) for kind in ("weight", "bias")]


def test_only_the_projector_trains(make_llava, pictured):
    model, before = make_llava(), make_llava().state_dict()
    assert train_only(model, PREFIX) == NAMES
    batch = pictured()
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model(**batch, labels=batch["input_ids"]).loss.backward()
    optimiser.step()
    moved = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    assert sorted(moved) == sorted(NAMES)


def test_it_is_written_and_read_back(make_llava, tmp_path):
    model, other = make_llava(), make_llava()
    with torch.no_grad():
        for parameter in projector_of(model, PREFIX).parameters():
            parameter.add_(1)
    save_projector(model, PREFIX, tmp_path / FILE)
    assert sorted(load_file(tmp_path / FILE)) == sorted(NAMES)
    load_projector(other, PREFIX, tmp_path / FILE)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_beside_an_adapter_it_is_the_trained_one(make_llava, tmp_path):
    base = make_llava()
    config = MosloraConfig(r=4, target_modules=r".*language_model.*q_proj", modules_to_save=[PREFIX])
    model = get_peft_model(base, config)
    with torch.no_grad():
        projector_of(model, PREFIX).linear_1.weight.fill_(2)
    save_projector(model, PREFIX, tmp_path / FILE)
    assert (load_file(tmp_path / FILE)[f"{PREFIX}.linear_1.weight"] == 2).all()
    other = get_peft_model(make_llava(), config)
    load_projector(other, PREFIX, tmp_path / FILE)
    assert (projector_of(other, PREFIX).linear_1.weight == 2).all()
    assert (other.get_base_model().model.multi_modal_projector.original_module.linear_1.weight != 2).any()


def test_a_file_in_another_dtype_is_cast_to_the_models(make_llava, tmp_path):
    model = make_llava().to(torch.bfloat16)
    save_projector(model, PREFIX, tmp_path / FILE)
    wide = make_llava()
    load_projector(wide, PREFIX, tmp_path / FILE)
    assert projector_of(wide, PREFIX).linear_1.weight.dtype == torch.float32


def without(tensors):
    del tensors[NAMES[1]]


def extra(tensors):
    tensors["model.vision_tower.bias"] = torch.zeros(1)


def reshaped(tensors):
    tensors[NAMES[0]] = torch.zeros(3, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without, f"1 tensors are missing ({NAMES[1]})"),
        (extra, "1 tensors are unexpected (model.vision_tower.bias)"),
        (reshaped, f"1 tensors are of another shape ({NAMES[0]})"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(make_llava, tmp_path, change, message):
    model = make_llava()
    tensors = {name: torch.ones_like(model.state_dict()[name]) for name in NAMES}
    change(tensors)
    save_file(tensors, tmp_path / FILE)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_projector(model, PREFIX, tmp_path / FILE)
    assert all(torch.equal(tensor, make_llava().state_dict()[name]) for name, tensor in model.state_dict().items())


def test_what_cannot_be_read_or_written_is_said(make_llava, tmp_path):
    (tmp_path / FILE).write_bytes(b"no tensors")
    for path in (tmp_path / FILE, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="is not a readable file of tensors"):
            load_projector(make_llava(), PREFIX, path)
    with pytest.raises(OutputError, match="cannot write"):
        save_projector(make_llava(), PREFIX, tmp_path / "absent" / FILE)


def test_a_name_that_is_no_module_is_refused(make_llava):
    with pytest.raises(ConfigError, match=r"LlavaForConditionalGeneration has no module model\.projector"):
        train_only(make_llava(), "model.projector")


@pytest.mark.parametrize("is_adapted", [True, False])
def test_in_float32_it_keeps_steps_that_16_bits_would_lose(make_llava, pictured, is_adapted):
    model = make_llava().to(torch.bfloat16)
    if is_adapted:
        config = MosloraConfig(r=4, target_modules=r".*language_model.*q_proj", modules_to_save=[PREFIX])
        model = get_peft_model(model, config)
    else:
        train_only(model, PREFIX)
    batch = pictured()
    batch["pixel_values"] = batch["pixel_values"].bfloat16()
    before = model(**batch).logits
    train_in_float32(model, PREFIX)
    weight = projector_of(model, PREFIX).linear_1.weight
    assert (weight.dtype, weight.requires_grad) == (torch.float32, True)
    assert torch.allclose(model(**batch).logits, before, atol=0.02, rtol=0)
    start = weight.detach().clone()
    model(**batch, labels=batch["input_ids"]).loss.backward()
    torch.optim.Adam([weight], lr=2e-5).step()
    moved = weight.grad != 0
    assert torch.allclose((weight - start).abs()[moved], torch.tensor(2e-5), rtol=0.1)
    assert (weight.bfloat16() == start.bfloat16())[moved].float().mean() > 0.5  # what 16 bits would have lost


def test_a_projector_in_float32_is_left_as_it_is(make_llava):
    model = make_llava()
    train_in_float32(model, PREFIX)
    assert not projector_of(model, PREFIX)._forward_hooks
