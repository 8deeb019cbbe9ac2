"""XTuner's three folders as one adapter, against the parts with their updates added by hand."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, CLIPVisionModel

from moslora.adapter.importing_parts import join, read_parts
from moslora.adapter.importing_proof import prove_joined
from moslora.errors import CheckpointError, ConfigError, DriftError, MosloraError
from moslora.runs.adapters import open_adapter
from moslora.runs.assembling import AssemblyPlan, assemble
from moslora.runs.assembling_proof import picture_probe
from moslora.runs.exporting import fold_adapter
from moslora.runs.importing_llava import import_llava
from moslora.runs.processors import load_processor

LLM, VIT = "llm_adapter", "visual_encoder_adapter"
LLM_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
VIT_TARGETS = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]


@dataclass
class Theirs:
    """What XTuner's training leaves: a folder, and the parts with the updates added to their weights by hand."""

    folder: Path
    llm: Any
    tower: Any
    projector: dict[str, torch.Tensor]

    def file(self, part: str) -> Path:
        return self.folder / part / "adapter_model.safetensors"

    def edit(self, part: str, **fields: Any) -> None:
        path = self.folder / part / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))

    def edit_tensors(self, part: str, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
        save_file(change(load_file(self.file(part))), self.file(part))


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory, model_folder: Path, tower_folder: Callable[[str], Path]) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "llava"
    assemble(str(model_folder), str(tower_folder("clip")), folder=folder, plan=AssemblyPlan(dtype="float32"))
    return folder


def write_adapter(model: Any, folder: Path, *, targets: list[str], r: int, alpha: int, mixers: bool, seed: int) -> None:
    """Save an adapter of random tensors for one part; then add its update to the model's own weights."""
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(r=r, lora_alpha=alpha, target_modules=targets))
    adapted.save_pretrained(str(folder))
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors = {name: torch.randn(tensor.shape, generator=generator) * 0.1 for name, tensor in tensors.items()}
    for key in sorted(name for name in tensors if name.endswith("lora_A.weight")):
        layer = key.removesuffix(".lora_A.weight")
        mixer = torch.randn(r, r, generator=generator) if mixers else torch.eye(r)
        if mixers:
            tensors[f"{layer}.lora_AB.weight"] = mixer
        weight = model.get_submodule(layer.removeprefix("base_model.model.")).weight
        with torch.no_grad():
            weight += alpha / r * tensors[f"{layer}.lora_B.weight"] @ mixer @ tensors[key]
    save_file(tensors, folder / "adapter_model.safetensors")


@pytest.fixture
def write(tmp_path: Path, model_folder: Path, tower_folder: Callable[[str], Path]) -> Callable[..., Theirs]:
    def make(*, llm_mixers: bool = False, vit_mixers: bool = False) -> Theirs:
        folder = tmp_path / "xtuner"
        llm = AutoModelForCausalLM.from_pretrained(model_folder)
        tower = CLIPVisionModel.from_pretrained(tower_folder("clip"))
        write_adapter(llm, folder / LLM, targets=LLM_TARGETS, r=4, alpha=8, mixers=llm_mixers, seed=1)
        write_adapter(tower, folder / VIT, targets=VIT_TARGETS, r=2, alpha=6, mixers=vit_mixers, seed=2)
        generator = torch.Generator().manual_seed(3)
        shapes = {"0.weight": (64, 32), "0.bias": (64,), "2.weight": (64, 64), "2.bias": (64,)}
        given = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
        (folder / "projector").mkdir()
        save_file({f"model.{name}": tensor for name, tensor in given.items()}, folder / "projector/model.safetensors")
        projector = {name.replace("0", "linear_1").replace("2", "linear_2"): tensor for name, tensor in given.items()}
        return Theirs(folder, llm, tower, projector)

    return make


def loaded(base: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(base).eval()


@torch.no_grad()
def logits(model: Any, base: Path) -> torch.Tensor:
    processor = load_processor(str(base), loaded(base).config)
    return model(**picture_probe(processor)).logits


def by_hand(base: Path, theirs: Theirs) -> torch.Tensor:
    """The base's logits with the weights of the changed parts in place of its own."""
    model = loaded(base)
    embeddings = model.get_input_embeddings().weight.clone(), model.lm_head.weight.clone()
    model.model.language_model.load_state_dict(theirs.llm.model.state_dict())
    model.model.vision_tower.load_state_dict(theirs.tower.state_dict())
    model.model.multi_modal_projector.load_state_dict(theirs.projector)
    with torch.no_grad():  # which have the image token's row
        model.get_input_embeddings().weight.copy_(embeddings[0])
        model.lm_head.weight.copy_(embeddings[1])
    return logits(model, base)


@pytest.mark.parametrize(
    ("llm_mixers", "vit_mixers", "mixers"),
    [
        (True, True, ("kaiming", "kaiming")),
        (True, False, ("kaiming", "none")),
        (False, True, ("none", "kaiming")),
        (False, False, ("identity", "identity")),
    ],
)
def test_the_joined_adapter_computes_what_the_three_folders_do(
    tmp_path: Path, base: Path, write: Callable[..., Theirs], llm_mixers: bool, vit_mixers: bool, mixers: Any
):
    theirs = write(llm_mixers=llm_mixers, vit_mixers=vit_mixers)
    made = import_llava(theirs.folder, tmp_path / "ours", base=str(base))
    assert made.parts["language"] == {"layers": 14, "r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "mixer": mixers[0]}
    assert made.parts["vision"] == {"layers": 18, "r": 2, "lora_alpha": 6, "lora_dropout": 0.0, "mixer": mixers[1]}
    adapted = PeftModel.from_pretrained(loaded(base), str(tmp_path / "ours")).eval()
    expected = by_hand(base, theirs)
    torch.testing.assert_close(logits(adapted, base), expected, rtol=1e-4, atol=1e-4)
    assert (expected - logits(loaded(base), base)).abs().max() > 0.1
    held = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    assert any(".lora_mixer." in name for name in held if "vision_tower" in name) is (mixers[1] != "none")
    assert any(".lora_mixer." in name for name in held if "language_model" in name) is (mixers[0] != "none")


def test_its_configuration_says_how_the_parts_differ_and_where_the_base_is(
    tmp_path: Path, base: Path, write: Callable[..., Theirs]
):
    theirs = write(llm_mixers=True)
    theirs.edit(VIT, lora_dropout=0.05)
    import_llava(theirs.folder, tmp_path / "ours", base=str(base))
    fields = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    vision = r"^model\.vision_tower\..*"
    assert (fields["r"], fields["rank_pattern"]) == (4, {vision: 2})
    assert (fields["lora_alpha"], fields["alpha_pattern"]) == (8, {vision: 6})
    assert (fields["lora_dropout"], fields["dropout_pattern"]) == (0.0, {vision: 0.05})
    assert (fields["mixer"], fields["mixer_pattern"]) == ("kaiming", {vision: "none"})
    assert fields["modules_to_save"] == ["model.multi_modal_projector"]
    assert fields["base_model_name_or_path"] == str(base)
    assert fields["auto_mapping"]["base_model_class"] == "LlavaForConditionalGeneration"
    assert fields["target_modules"] == (
        r"model\.vision_tower\.encoder\.layers\.\d+\.(?:self_attn\.k_proj|self_attn\.v_proj|self_attn\.q_proj"
        r"|self_attn\.out_proj|mlp\.fc1|mlp\.fc2)|model\.language_model\.layers\.\d+\.(?:self_attn\.q_proj"
        r"|self_attn\.k_proj|self_attn\.v_proj|self_attn\.o_proj|mlp\.gate_proj|mlp\.up_proj|mlp\.down_proj)"
    )
    assert (tmp_path / "ours" / "processor_config.json").is_file()


def test_the_commands_open_and_fold_it(tmp_path: Path, base: Path, write: Callable[..., Theirs]):
    import_llava(write(llm_mixers=True).folder, tmp_path / "ours", base=str(base))
    opened = open_adapter(tmp_path / "ours")
    assert (opened.model.kind, opened.asked_with) == ("vision_language", "chat")
    assert fold_adapter(opened, tmp_path / "folded").drift.is_within


def test_the_names_of_older_transformers_are_known(tmp_path: Path, base: Path, write: Callable[..., Theirs]):
    theirs = write()
    root = "base_model.model."
    theirs.edit_tensors(
        VIT,
        lambda tensors: {
            f"{root}vision_model.{name.removeprefix(root).removeprefix('vision_model.')}": tensor
            for name, tensor in tensors.items()
        },
    )
    import_llava(theirs.folder, tmp_path / "ours", base=str(base))
    adapted = PeftModel.from_pretrained(loaded(base), str(tmp_path / "ours")).eval()
    torch.testing.assert_close(logits(adapted, base), by_hand(base, theirs), rtol=1e-4, atol=1e-4)


def test_a_projector_file_and_a_missing_part_are_fine(tmp_path: Path, base: Path, write: Callable[..., Theirs]):
    theirs = write(llm_mixers=True)
    (theirs.folder / VIT).rename(tmp_path / "left out")
    (theirs.folder / "projector").rename(tmp_path / "projector")
    torch.save(
        {
            f"projector.model.{'0' if '1' in name else '2'}.{name.split('.')[1]}": t
            for name, t in theirs.projector.items()
        },
        theirs.folder / "projector.pth",
    )
    made = import_llava(theirs.folder, tmp_path / "ours", base=str(base))
    assert made.parts.keys() == {"language"}
    assert made.has_projector
    held = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    place = "base_model.model.model.multi_modal_projector"
    assert all(torch.equal(held[f"{place}.{name}"], tensor) for name, tensor in theirs.projector.items())
    assert not any("vision_tower" in name for name in held)


INTERN: dict[str, Any] = {
    "model_type": "internlm2",
    "vocab_size": 259,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "bias": False,
}
FUSED_SHAPES = {
    "attention.wqkv": (80, 48),
    "attention.wo": (48, 48),
    "feed_forward.w1": (40, 48),
    "feed_forward.w3": (40, 48),
    "feed_forward.w2": (48, 40),
}


def test_adapters_of_fused_matrices_are_taken_apart_exactly(
    tmp_path: Path, model_folder: Path, tower_folder: Callable[[str], Path]
):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.2

    weights = {
        "model.tok_embeddings.weight": drawn(259, 48),
        "model.norm.weight": drawn(48),
    }
    changed, adapter = {}, {}
    shapes = {"output": (259, 48)}  # which the base has a row more of, for the image token
    for number in range(2):
        place = f"model.layers.{number}"
        weights |= {f"{place}.attention_norm.weight": drawn(48), f"{place}.ffn_norm.weight": drawn(48)}
        shapes |= {f"{place}.{name}": shape for name, shape in FUSED_SHAPES.items()}
    for name, (outputs, inputs) in shapes.items():
        weight, a, mixer, b = drawn(outputs, inputs), drawn(4, inputs), drawn(4, 4), drawn(outputs, 4)
        weights[f"{name}.weight"] = weight
        changed[f"{name}.weight"] = weight + 16 / 4 * b @ mixer @ a
        layer = f"base_model.model.{name}"
        adapter |= {f"{layer}.lora_A.weight": a, f"{layer}.lora_AB.weight": mixer, f"{layer}.lora_B.weight": b}
    folders = {}
    for name, tensors in {"plain": weights, "changed": weights | changed}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(INTERN))
        save_file(tensors, tmp_path / name / "model.safetensors")
        folders[name] = tmp_path / f"llava {name}"
        assemble(
            str(tmp_path / name),
            str(tower_folder("clip")),
            folder=folders[name],
            tokenizer=str(model_folder),
            plan=AssemblyPlan(dtype="float32"),
        )
    theirs = tmp_path / "xtuner" / LLM
    theirs.mkdir(parents=True)
    save_file(adapter, theirs / "adapter_model.safetensors")
    (theirs / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 16}))
    made = import_llava(tmp_path / "xtuner", tmp_path / "ours", base=str(folders["plain"]))
    assert made.parts["language"]["layers"] == 2 * 7 + 1
    adapted = PeftModel.from_pretrained(loaded(folders["plain"]), str(tmp_path / "ours")).eval()
    ids = torch.arange(3, 60)[None]
    with torch.no_grad():
        found, expected = (model(input_ids=ids).logits[..., :259] for model in (adapted, loaded(folders["changed"])))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_base_in_half_precision_rounds_the_projector_alone(
    tmp_path: Path, model_folder: Path, tower_folder: Callable[[str], Path], write: Callable[..., Theirs]
):
    assemble(str(model_folder), str(tower_folder("clip")), folder=tmp_path / "llava")
    theirs = write(llm_mixers=True)
    made = import_llava(theirs.folder, tmp_path / "ours", base=str(tmp_path / "llava"))
    assert made.tensors.compared == 4 * (14 + 18) + 4
    held = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in held.values()} == {torch.float32}


def remove(name: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if name not in key}


def test_what_does_not_fit_the_base_is_refused(tmp_path: Path, base: Path, write: Callable[..., Theirs]):
    theirs = write()
    rows = {"base_model.model.model.layers.0.mlp.up_proj.lora_B.weight": torch.zeros(80, 4)}
    theirs.edit_tensors(LLM, lambda tensors: tensors | rows)
    with pytest.raises(CheckpointError, match=r"layers.0.mlp.up_proj has shape \(80, 4\), and the base's .* 64 to 96"):
        import_llava(theirs.folder, tmp_path / "ours", base=str(base))
    layer = "base_model.model.model.layers.7.mlp.up_proj"
    deep = {f"{layer}.lora_A.weight": torch.zeros(4, 64), f"{layer}.lora_B.weight": torch.zeros(96, 4)}
    theirs.edit_tensors(LLM, lambda tensors: remove("layers.0.mlp.up_proj")(tensors) | deep)
    with pytest.raises(
        CheckpointError, match=r"model.language_model.layers.7.mlp.up_proj, and the base has no such mod"
    ):
        import_llava(theirs.folder, tmp_path / "ours", base=str(base))
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank_pattern": {"q_proj": 2}}, r"has rank_pattern=\{'q_proj': 2\}, which cannot be joined"),
        ({"modules_to_save": ["lm_head"]}, r"has modules_to_save=\['lm_head'\], which cannot be joined"),
        ({"use_rslora": True}, r"different use_rslora \(True for language, False for vision\)"),
        ({"peft_type": "LOHA"}, "says peft_type LOHA"),
    ],
)
def test_options_that_one_adapter_cannot_have_are_refused(
    tmp_path: Path, base: Path, write: Callable[..., Theirs], fields: dict[str, Any], message: str
):
    theirs = write()
    theirs.edit(LLM, **fields)
    with pytest.raises(CheckpointError, match=message):
        import_llava(theirs.folder, tmp_path / "ours", base=str(base))


def test_tensors_of_other_kinds_are_refused(tmp_path: Path, base: Path, write: Callable[..., Theirs]):
    theirs = write()
    theirs.edit_tensors(LLM, lambda tensors: tensors | {"base_model.model.model.norm.weight": torch.ones(64)})
    with pytest.raises(
        CheckpointError,
        match=(
            r"also holds base_model.model.model.norm.weight, which belongs to no"
            r" adapter"
        ),
    ):
        import_llava(theirs.folder, tmp_path / "ours", base=str(base))


def test_a_base_of_another_kind_and_an_untrained_adapter_are_refused(
    tmp_path: Path,
    base: Path,
    write: Callable[..., Theirs],
    model_folder: Path,
    vision_folder: Callable[[str], Path],
):
    theirs = write()
    with pytest.raises(ConfigError, match="models of type 'llama' are not trained on pictures here"):
        import_llava(theirs.folder, tmp_path / "ours", base=str(model_folder))
    with pytest.raises(ConfigError, match="is of type 'gemma3', and XTuner's folders are for LLaVA: give that model's"):
        import_llava(theirs.folder, tmp_path / "ours", base=str(vision_folder("gemma3")))
    (theirs.folder / "projector").rename(tmp_path / "projector")
    for part in (LLM, VIT):
        theirs.edit_tensors(part, lambda tensors: {k: torch.zeros_like(t) for k, t in tensors.items()})
    with pytest.raises(DriftError, match="the adapter changes a picture's logits by 0 of the largest"):
        import_llava(theirs.folder, tmp_path / "ours", base=str(base))
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    "mutant", ["a row", "the scale", "the mixer", "the projector", "a layer too many", "a layer too few"]
)
def test_the_proof_sees_what_joining_got_wrong(tmp_path: Path, base: Path, write: Callable[..., Theirs], mutant: str):
    theirs = write(llm_mixers=True)
    whole = load_file(theirs.file(LLM))
    if mutant == "a layer too few":
        theirs.edit_tensors(LLM, remove("layers.0.mlp.up_proj"))
    parts, projector = read_parts(theirs.folder)
    model = loaded(base)
    joined = join(parts, projector, model, base=str(base))
    root = "base_model.model.model.language_model.layers.1.self_attn.k_proj"
    if mutant == "a row":
        joined.tensors[f"{root}.lora_B.weight"] = joined.tensors[f"{root}.lora_B.weight"].roll(1, dims=0)
    elif mutant == "the scale":
        joined.config.lora_alpha = 9
    elif mutant == "the mixer":
        joined.tensors[f"{root}.lora_mixer.weight"] = joined.tensors[f"{root}.lora_mixer.weight"].mT.contiguous()
    elif mutant == "the projector":
        joined.tensors["base_model.model.model.multi_modal_projector.linear_1.bias"] += 0.001
    elif mutant == "a layer too many":
        theirs.edit_tensors(LLM, remove("layers.0.mlp.up_proj"))
    else:
        theirs.edit_tensors(LLM, lambda _tensors: whole)
    (tmp_path / "ours").mkdir()
    save_file(joined.tensors, tmp_path / "ours" / "adapter_model.safetensors")
    joined.config.save_pretrained(str(tmp_path / "ours"))
    adapted = PeftModel.from_pretrained(model, str(tmp_path / "ours"))
    with pytest.raises(DriftError, match="the joined adapter is not the adapter: "):
        prove_joined(theirs.folder, adapted, projector=projector)


def test_a_folder_without_adapters_of_parts_is_no_such_import(tmp_path: Path, base: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MosloraError, match=r"has neither llm_adapter nor visual_encoder_adapter"):
        import_llava(tmp_path / "empty", tmp_path / "ours", base=str(base))
