"""LLaVA models built from tiny parts, loaded by transformers alone, against the parts."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from moslora.errors import CheckpointError, ConfigError, DriftError, OutputError
from moslora.runs.assembling import Assembled, AssemblyPlan, assemble
from moslora.runs.assembling_proof import fingerprints, prove
from moslora.runs.processors import load_processor

Assemble = Callable[..., Assembled]
FLOAT32 = AssemblyPlan(dtype="float32")


@pytest.fixture
def build(tmp_path: Path, model_folder: Path, tower_folder: Callable[[str], Path]) -> Assemble:
    """Assemble the tiny language model and a tiny tower in the folder `llava`."""

    def run(tower: str | Path = "clip", *, language: Path = model_folder, plan: AssemblyPlan = FLOAT32, **more: Any):
        vision = tower if isinstance(tower, Path) else tower_folder(tower)
        return assemble(str(language), str(vision), folder=tmp_path / "llava", plan=plan, **more)

    return run


@pytest.fixture
def projector() -> dict[str, torch.Tensor]:
    """A projector's tensors by transformers' names, for the tiny tower and language model."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"linear_1.weight": (64, 32), "linear_1.bias": (64,), "linear_2.weight": (64, 64), "linear_2.bias": (64,)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def renamed(tensors: dict[str, torch.Tensor], *, prefix: str) -> dict[str, torch.Tensor]:
    return {f"{prefix}{key.replace('linear_1', '0').replace('linear_2', '2')}": value for key, value in tensors.items()}


def loaded(folder: Path) -> tuple[Any, Any]:
    model: Any = AutoModelForImageTextToText.from_pretrained(folder).eval()
    return model, load_processor(str(folder), model.config)


@torch.no_grad()
def logits(model: Any, processor: Any, *, shade: int = 200) -> torch.Tensor:
    picture = Image.new("RGB", (30, 20), (shade, 10, 90))
    return model(**processor(text="<image>\nWhat is it?", images=picture, return_tensors="pt")).logits


@pytest.mark.parametrize(("tower", "strategy"), [("clip", "default"), ("siglip", "full"), ("dinov2", "default")])
def test_every_tower_is_joined_tensor_by_tensor(
    tmp_path: Path, build: Assemble, tower_folder: Callable[[str], Path], model_folder: Path, tower: str, strategy: str
):
    made = build(tower)
    assert (made.strategy, made.tokens_per_picture, made.image_size) == (strategy, 16, 28)
    model, processor = loaded(tmp_path / "llava")
    assert type(model) is LlavaForConditionalGeneration
    alone = AutoModel.from_pretrained(tower_folder(tower)).state_dict()
    inside = model.model.vision_tower.state_dict()
    assert inside.keys() == {name for name in alone if not name.startswith("head.")}
    assert all(torch.equal(inside[name], alone[name]) for name in inside)
    language = AutoModelForCausalLM.from_pretrained(model_folder)
    text = torch.arange(3, 40)[None]
    with torch.no_grad():
        same = model(input_ids=text).logits[..., :259], language(input_ids=text).logits[..., :259]
    torch.testing.assert_close(*same)
    assert not torch.allclose(logits(model, processor), logits(model, processor, shade=20), atol=1e-4)


def test_a_whole_clip_model_gives_its_vision_part(tmp_path: Path, build: Assemble):
    sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 4}
    vision = sizes | heads | {"image_size": 28, "patch_size": 7}
    whole = CLIPModel(CLIPConfig(text_config=sizes | heads | {"vocab_size": 50}, vision_config=vision))
    whole.save_pretrained(tmp_path / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        tmp_path / "clip"
    )
    build(tmp_path / "clip")
    model, _ = loaded(tmp_path / "llava")
    expected = whole.vision_model.state_dict()
    assert model.model.vision_tower.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.model.vision_tower.state_dict().items())


@pytest.mark.parametrize("form", ["xtuner folder", "xtuner pth", "llava", "transformers", "no bias"])
def test_projectors_of_other_programs_become_the_two_layers(
    tmp_path: Path, build: Assemble, projector: dict[str, torch.Tensor], form: str
):
    path = tmp_path / "projector"
    path.mkdir()
    if form == "xtuner folder":
        save_file(renamed(projector, prefix="model."), path / "model.safetensors")
        (path / "config.json").write_text('{"hidden_act": "relu"}')
    elif form == "xtuner pth":
        path = path / "iter_1.pth"
        torch.save({"state_dict": renamed(projector, prefix="projector.model.")}, path)
    elif form == "llava":
        path = path / "mm_projector.bin"
        torch.save(renamed(projector, prefix="model.mm_projector."), path)
    else:
        path = path / "projector.safetensors"
        if form == "no bias":
            projector = {name: tensor for name, tensor in projector.items() if name.endswith("weight")}
        save_file({f"model.multi_modal_projector.{name}": tensor for name, tensor in projector.items()}, path)
    made = build(projector=path)
    assert made.projector == str(path)
    model, _ = loaded(tmp_path / "llava")
    found = model.model.multi_modal_projector.state_dict()
    assert found.keys() == projector.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in projector.items())
    assert model.config.projector_hidden_act == ("relu" if form == "xtuner folder" else "gelu")


def test_a_new_projector_gives_features_as_large_as_embeddings_the_same_for_a_seed(tmp_path: Path, build: Assemble):
    build(plan=AssemblyPlan(dtype="float32", seed=1))
    model, _ = loaded(tmp_path / "llava")
    noise = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        features = torch.cat(model.get_image_features(noise).pooler_output)
    ratio = features.std() / model.get_input_embeddings().weight.std()
    assert 0.7 < ratio < 1.4
    first = model.model.multi_modal_projector.linear_1.weight
    tmp_path.joinpath("llava").rename(tmp_path / "one")
    build(plan=AssemblyPlan(dtype="float32", seed=1))
    assert torch.equal(loaded(tmp_path / "llava")[0].model.multi_modal_projector.linear_1.weight, first)
    tmp_path.joinpath("llava").rename(tmp_path / "two")
    build(plan=AssemblyPlan(dtype="float32", seed=2))
    assert not torch.equal(loaded(tmp_path / "llava")[0].model.multi_modal_projector.linear_1.weight, first)


def test_an_embedding_without_a_row_left_grows_by_the_mean(
    tmp_path: Path, build: Assemble, tiny_llama: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
):
    tiny_llama.resize_token_embeddings(259, mean_resizing=False)
    tiny_llama.save_pretrained(tmp_path / "full")
    tiny_tokenizer.save_pretrained(tmp_path / "full")
    made = build(language=tmp_path / "full")
    assert (made.image_token_id, made.new_rows) == (259, 1)
    model, _ = loaded(tmp_path / "llava")
    rows = model.get_input_embeddings().weight
    assert len(rows) == model.config.text_config.vocab_size == 260
    torch.testing.assert_close(rows[259], rows[:259].mean(dim=0))
    torch.testing.assert_close(model.lm_head.weight[259], model.lm_head.weight[:259].mean(dim=0))


def test_a_token_that_the_tokenizer_has_is_kept(
    tmp_path: Path, build: Assemble, tiny_llama: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.add_tokens(["<other>", "<image>"], special_tokens=True)
    tiny_llama.save_pretrained(tmp_path / "known")
    tokenizer.save_pretrained(tmp_path / "known")
    made = build(language=tmp_path / "known")
    assert (made.image_token_id, made.new_rows) == (260, 0)
    model, _ = loaded(tmp_path / "llava")
    assert torch.equal(model.get_input_embeddings().weight, tiny_llama.get_input_embeddings().weight)


def test_tied_embeddings_stay_tied_and_the_dtype_is_as_asked(
    tmp_path: Path, build: Assemble, tiny_llama: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast
):
    config = copy.deepcopy(tiny_llama.config)
    config.tie_word_embeddings = True
    LlamaForCausalLM(config).save_pretrained(tmp_path / "tied")
    tiny_tokenizer.save_pretrained(tmp_path / "tied")
    build(language=tmp_path / "tied", plan=AssemblyPlan())
    model, _ = loaded(tmp_path / "llava")
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert {tensor.dtype for tensor in model.parameters()} == {torch.bfloat16}
    assert "lm_head.weight" not in load_file(tmp_path / "llava" / "model.safetensors")


def test_the_chat_template_and_the_generation_settings_are_kept(tmp_path: Path, build: Assemble, model_folder: Path):
    build()
    kept = AutoTokenizer.from_pretrained(tmp_path / "llava")
    assert kept.chat_template == AutoTokenizer.from_pretrained(model_folder).chat_template
    model, processor = loaded(tmp_path / "llava")
    assert isinstance(processor, LlavaProcessor)
    assert processor.tokenizer.chat_template == kept.chat_template
    assert (model.generation_config.eos_token_id, model.generation_config.pad_token_id) == (2, 0)
    assert str(model_folder) not in (tmp_path / "llava" / "config.json").read_text()


def test_the_settings_are_the_models(tmp_path: Path, build: Assemble):
    made = build(
        "dinov2", plan=AssemblyPlan(feature_layer=-1, strategy="full", image_size=42, pad="crop", dtype="float32")
    )
    assert (made.tokens_per_picture, made.feature_layer, made.padding) == (37, -1, "crop")
    model, processor = loaded(tmp_path / "llava")
    assert logits(model, processor).isfinite().all()
    assert (model.config.vision_feature_layer, model.config.image_seq_length) == (-1, 37)


@pytest.mark.parametrize(
    ("tower", "settings", "message"),
    [
        ("clip", {"image_size": 56}, "image size 56 does not fit: the vision tower has positions for 28 x 28 pixels"),
        ("dinov2", {"image_size": 40}, "image size 40 is not a multiple of the vision tower's patches of 7"),
        (
            "siglip",
            {"strategy": "default"},
            "type 'siglip_vision_model' has no class token there: set strategy to full",
        ),
        ("clip", {"feature_layer": -5}, r"feature layer -5 does not exist: the vision tower has 3 layers .*-4 to 3"),
        ("dinov2", {"image_size": 42, "pad": "own"}, "does not give pictures of 42 x 42 pixels: set pad to square"),
    ],
)
def test_settings_that_do_not_fit_the_tower_are_refused(
    tmp_path: Path, build: Assemble, tower: str, settings: dict[str, Any], message: str
):
    with pytest.raises(ConfigError, match=message):
        build(tower, plan=AssemblyPlan(dtype="float32", **settings))
    assert not (tmp_path / "llava").exists()


def test_unknown_names_and_folders_in_use_are_refused(tmp_path: Path, build: Assemble):
    with pytest.raises(ConfigError, match="unknown dtype 'bf16'; did you mean 'bfloat16'"):
        AssemblyPlan(dtype="bf16")
    with pytest.raises(ConfigError, match="unknown strategy 'all'"):
        AssemblyPlan(strategy="all")
    (tmp_path / "llava").mkdir()
    (tmp_path / "llava" / "mine.txt").write_text("kept")
    with pytest.raises(OutputError, match="exists and is not an empty folder"):
        build()


def test_parts_of_another_kind_are_refused_by_name(tmp_path: Path, build: Assemble, model_folder: Path):
    with pytest.raises(ConfigError, match=r"unknown vision tower 'llama' \(allowed: clip, clip_vision_model, dinov2"):
        build(model_folder)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match=r"the vision tower '.*nothing' cannot be loaded"):
        build(tmp_path / "nothing")
    with pytest.raises(ConfigError, match=r"the language model '.*nothing' cannot be loaded"):
        build(language=tmp_path / "nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model.0.weight": torch.zeros(64, 48)},
            r"linear_1.weight has shape \(64, 48\) and a vision tower of width 32",
        ),
        ({"model.2.weight": None}, "is not a projector of two linear layers: it lacks linear_2.weight"),
        ({"model.4.weight": torch.zeros(64, 64)}, "it also holds 4.weight"),
        ({"llm.layers.0.lora_A.weight": torch.zeros(2)}, "it also holds llm.layers.0.lora_A.weight"),
    ],
)
def test_a_projector_that_is_not_for_these_parts_is_refused(
    tmp_path: Path, build: Assemble, projector: dict[str, torch.Tensor], change: dict[str, Any], message: str
):
    tensors = renamed(projector, prefix="model.") | change
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, tmp_path / "p.safetensors")
    with pytest.raises(CheckpointError, match=message):
        build(projector=tmp_path / "p.safetensors")
    with pytest.raises(CheckpointError, match="there is no file"):
        build(projector=tmp_path / "nowhere.pth")


def test_a_language_model_that_scales_its_logits_is_refused_and_leaves_nothing(
    tmp_path: Path, build: Assemble, tiny_tokenizer: PreTrainedTokenizerFast
):
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=320,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        logits_scaling=4.0,
    )
    GraniteForCausalLM(config).save_pretrained(tmp_path / "granite")
    tiny_tokenizer.save_pretrained(tmp_path / "granite")
    with pytest.raises(DriftError, match=r"logits for text differ .* 'granite' does more than LLaVA models repeat"):
        build(language=tmp_path / "granite")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["granite"]


def test_a_picture_larger_than_the_language_models_positions_is_refused(
    tmp_path: Path, build: Assemble, model_folder: Path
):
    short = tmp_path / "short"
    short.mkdir()
    for file in model_folder.iterdir():
        (short / file.name).write_bytes(file.read_bytes())
    fields = json.loads((short / "config.json").read_text()) | {"max_position_embeddings": 16}
    (short / "config.json").write_text(json.dumps(fields))
    with pytest.raises(ConfigError, match="a picture becomes 16 tokens and the language model has 16 positions"):
        build(language=short)


def test_a_damaged_part_is_found_by_its_pictures(tmp_path: Path, build: Assemble, projector: dict[str, torch.Tensor]):
    projector["linear_2.weight"][3, 3] = float("inf")
    save_file(projector, tmp_path / "p.safetensors")
    with pytest.raises(DriftError, match="a picture gives logits that are not finite"):
        build(projector=tmp_path / "p.safetensors")
    assert not (tmp_path / "llava").exists()


def test_one_number_that_changed_on_the_way_is_found(tmp_path: Path, build: Assemble):
    build()
    model, _ = loaded(tmp_path / "llava")
    right = fingerprints(model)
    probe = torch.arange(3, 20)[None]
    with torch.no_grad():
        answer = model(input_ids=probe).logits
    prove(tmp_path / "llava", right, probe=(probe, answer), config=model.config)
    with pytest.raises(DriftError, match=r"logits for text differ from the language model's by 0.001 of the largest"):
        prove(tmp_path / "llava", right, probe=(probe, answer * 0.999), config=model.config)
    with torch.no_grad():
        model.model.vision_tower.post_layernorm.bias[0] += 1e-6  # which LLaVA does not even read
    model.save_pretrained(tmp_path / "llava")
    with pytest.raises(DriftError, match=r"has 1 other tensors than its parts: model.vision_tower.post_layernorm.bias"):
        prove(tmp_path / "llava", right, probe=(probe, answer), config=model.config)


def test_features_beside_their_place_are_found(tmp_path: Path, build: Assemble, monkeypatch: pytest.MonkeyPatch):
    def shifted(self: Any, input_ids: Any, inputs_embeds: Any, image_features: Any) -> torch.Tensor:
        return (input_ids == self.config.image_token_id).roll(1, dims=-1).unsqueeze(-1)

    monkeypatch.setattr(LlavaModel, "get_placeholder_mask", shifted)
    with pytest.raises(DriftError, match="a picture's features are not where its tokens were"):
        build()
