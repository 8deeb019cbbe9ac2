import pytest
import torch
from peft import AdaLoraConfig, LoHaConfig, LoraConfig, get_peft_model

from moslora.adapter.pictures import mixers_of, picture_adapter
from moslora.records import AdapterPictures

TARGETS = ["q_proj", "v_proj", "down_proj"]


def test_each_layer_shows_its_mixer_and_the_singular_values_of_its_update(trained):
    model = trained()
    pictures = picture_adapter(model, method="moslora", start=None)
    assert len(pictures.layers) == 6
    for picture in pictures.layers:
        layer = model.get_base_model().get_submodule(picture.name)
        delta = layer.get_delta_weight("default").double()
        expected = torch.linalg.svdvals(delta)[: picture.rank]
        assert torch.tensor(picture.singular_values) == pytest.approx(expected.float(), rel=1e-4, abs=1e-6)
        assert picture.update_norm == pytest.approx(delta.norm().item(), rel=1e-4)
        assert torch.tensor(picture.mixer) == pytest.approx(layer.mixer_matrix("default").detach(), rel=1e-4)


def test_distances_are_shares_of_the_norm_of_where_they_start(make_base, config, train):
    model = get_peft_model(make_base(), config(mixer="identity"))
    start = mixers_of(model)
    before = picture_adapter(model, method="moslora", start=start)
    assert {picture.mixer_from_start for picture in before.layers} == {0.0}
    assert {picture.effective_rank for picture in before.layers} == {0.0}  # B is zero: no update yet
    train(model)
    for picture in picture_adapter(model, method="moslora", start=start).layers:
        mixer = torch.tensor(picture.mixer, dtype=torch.float64)
        identity = torch.eye(picture.rank, dtype=torch.float64)
        share = ((mixer - identity).norm() / identity.norm()).item()
        assert picture.mixer_from_start == pytest.approx(share, rel=1e-3)
        assert picture.mixer_from_start == picture.mixer_from_identity > 0


def test_the_copies_of_the_mixers_stay_as_they_were(make_base, config, train):
    model = get_peft_model(make_base(), config())
    start = mixers_of(model)
    kept = {name: mixer.clone() for name, mixer in start.items()}
    train(model)
    assert all(torch.equal(start[name], kept[name]) for name in kept)
    assert not any(torch.equal(mixer, start[name]) for name, mixer in mixers_of(model).items())


def test_plain_lora_is_pictured_without_a_mixer(make_base, train):
    model = train(get_peft_model(make_base(), LoraConfig(r=4, target_modules=[*TARGETS, "embed_tokens"])))
    assert mixers_of(model) == {}
    pictures = picture_adapter(model, method="lora", start={})
    assert len(pictures.layers) == 7
    for picture in pictures.layers:
        delta = model.get_base_model().get_submodule(picture.name).get_delta_weight("default")
        assert picture.update_norm == pytest.approx(delta.norm().item(), rel=1e-4)
        assert picture.mixer is picture.mixer_from_start is picture.mixer_from_identity is None
        assert 1 <= picture.effective_rank <= 4


@pytest.mark.parametrize(
    "other", [LoHaConfig(r=4, target_modules=TARGETS), AdaLoraConfig(target_modules=TARGETS, total_step=10)]
)
def test_other_methods_have_no_layers_to_picture(make_base, other):
    model = get_peft_model(make_base(), other)
    assert picture_adapter(model, method="other", start=mixers_of(model)).layers == []


def test_a_mixer_that_starts_at_zero_has_no_share_to_move_by(make_base, config, train):
    model = get_peft_model(make_base(), config(mixer="zero", init_lora_weights=False))
    start = mixers_of(model)
    train(model)
    pictures = picture_adapter(model, method="flora", start=start)
    assert {picture.mixer_from_start for picture in pictures.layers} == {None}


def test_a_large_mixer_is_measured_but_not_kept(make_base, config):
    pictures = picture_adapter(get_peft_model(make_base(), config(r=65)), method="moslora", start=None)
    assert {picture.mixer is None for picture in pictures.layers} == {True}
    assert all(picture.mixer_from_identity for picture in pictures.layers)


def test_the_record_survives_the_disk(trained, tmp_path):
    pictures = picture_adapter(trained(), method="moslora", start=None)
    pictures.save(tmp_path / "adapter.json")
    assert AdapterPictures.load(tmp_path / "adapter.json") == pictures
