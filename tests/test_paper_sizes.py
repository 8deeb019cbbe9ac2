"""The shipped recipes of the paper's experiments, built with their models' real dimensions, without their weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, LlamaForCausalLM, LlavaConfig

from moslora import load_recipe
from moslora.adapter.inspection import count_parameters
from moslora.adapter.methods import method_config
from moslora.adapter.part_coverage import PartCoverage, coverage_by_part
from moslora.records import RunRecord
from moslora.runs.adapters import adapted_on_meta
from moslora.runs.inspecting import inspect_source
from moslora.runs.kinds import kind_of
from moslora.runs.models import meta_model
from moslora.runs.recipe import recipe_text
from moslora.runs.run import run_recipe

LLAMA_3_8B = LlamaConfig(
    vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
    num_key_value_heads=8,
)  # fmt: skip


@pytest.fixture(scope="module")
def make_model():
    def make():
        with torch.device("meta"):
            return LlamaForCausalLM(LLAMA_3_8B)

    return make


@pytest.mark.parametrize(
    ("overrides", "trainable", "mixer"),
    [
        ([], 28_352_512, 40_960),
        (["adapter.method=lora", "adapter.mixer=null"], 28_311_552, 0),
        (["adapter.method=ts-mixing", "adapter.mixer=null"], 28_311_552, 40_960),
        (["adapter.method=linchain"], 28_434_432, 122_880),
    ],
)
def test_the_trainable_parameters_are_the_papers(make_model, overrides, trainable, mixer):
    """Table 4: LoRA 28.3M, MoSLoRA 28.4M."""
    recipe = load_recipe("commonsense-llama3-8b", overrides)
    model = get_peft_model(
        make_model(), method_config(recipe.adapter.method, recipe.adapter.options), low_cpu_mem_usage=True
    )
    counts = count_parameters(model)
    assert (counts["trainable"], counts["mixer"]) == (trainable, mixer)


def test_the_recipe_has_the_papers_hyper_parameters():
    recipe = load_recipe("commonsense-llama3-8b")
    options = recipe.adapter.options
    assert (options["r"], options["lora_alpha"], options["lora_dropout"]) == (16, 32, 0.05)
    assert sorted(options["target_modules"]) == ["down_proj", "k_proj", "q_proj", "up_proj", "v_proj"]
    training = recipe.training
    assert (training.batch_size, training.epochs, training.learning_rate, training.warmup_steps) == (16, 3, 3e-4, 100)
    data = recipe.data
    assert (data.max_length_tokens, data.validation_samples, data.loss_on, data.prompt) == (
        256,
        120,
        "sequence",
        "alpaca",
    )
    assert training.keep_best
    assert len(recipe.evaluation.tasks) == 8


WIDTH, KEYS, INNER, LAYERS = 4096, 1024, 14336, 32  # of LLaMA-3-8B and of InternLM2-7B: 8 of 32 heads have keys
TOWER_WIDTH, TOWER_INNER, TOWER_LAYERS = 1024, 4096, 24  # of CLIP ViT-L/14-336
LLAVA_4_BIT = "llava-internlm2-7b-qmoslora"
LLAVA = {"llava-llama3-8b": 128256, LLAVA_4_BIT: 92544}  # and the rows of the embedding
PROJECTOR = TOWER_WIDTH * WIDTH + WIDTH + WIDTH * WIDTH + WIDTH
QUERY, KEY, UP = (WIDTH, WIDTH), (WIDTH, KEYS), (WIDTH, INNER)  # input and output of a layer
LANGUAGE = [QUERY, KEY, KEY, QUERY, UP, UP, UP]
TOWER = [(TOWER_WIDTH, TOWER_WIDTH)] * 4 + [(TOWER_WIDTH, TOWER_INNER)] * 2


def numbers(shapes: list[tuple[int, int]], *, rank: int, layers: int) -> int:
    """The numbers of A, M and B on layers of these shapes."""
    return layers * sum(rank * (inputs + outputs) + rank**2 for inputs, outputs in shapes)


@pytest.fixture(scope="module")
def sized(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """The override that gives a LLaVA recipe a folder with its model's real dimensions, and no weights."""
    folder = tmp_path_factory.mktemp("sizes")

    def path(name: str) -> list[str]:
        text = LlamaConfig(
            vocab_size=LLAVA[name], hidden_size=WIDTH, intermediate_size=INNER, num_hidden_layers=LAYERS,
            num_attention_heads=32, num_key_value_heads=8,
        )  # fmt: skip
        vision = CLIPVisionConfig(
            hidden_size=TOWER_WIDTH, intermediate_size=TOWER_INNER, num_hidden_layers=TOWER_LAYERS,
            num_attention_heads=16, image_size=336, patch_size=14,
        )  # fmt: skip
        LlavaConfig(text_config=text, vision_config=vision, vision_feature_layer=-2).save_pretrained(folder / name)
        return [f"model.path={folder / name}"]

    return path


def covered(name: str, overrides: list[str]) -> list[PartCoverage]:
    recipe = load_recipe(name, overrides)
    model = adapted_on_meta(recipe.model, recipe.adapter.method, recipe.adapter.options)
    return coverage_by_part(model, kind_of(recipe.kind).parts(model))


@pytest.mark.parametrize(("name", "rank", "alpha"), [("llava-llama3-8b", 64, 128), (LLAVA_4_BIT, 512, 256)])
def test_each_part_of_a_llava_recipe_has_the_papers_ranks_and_the_numbers_counted_by_hand(
    sized: Callable[[str], list[str]], name: str, rank: int, alpha: int
):
    language, vision, projector = covered(name, sized(name))
    mixer = load_recipe(name).adapter.options["mixer"]
    assert (language.adapted, language.ranks, language.alphas) == (7 * LAYERS, (rank,), (alpha,))
    assert (vision.adapted, vision.ranks, vision.alphas) == (6 * (TOWER_LAYERS - 1), (64,), (16,))  # the last is dead
    assert language.dropouts == vision.dropouts == (0.05,)
    assert language.mixers == vision.mixers == (mixer,)
    of_language = numbers(LANGUAGE, rank=rank, layers=LAYERS)
    of_vision = numbers(TOWER, rank=64, layers=TOWER_LAYERS - 1)
    assert (language.trained_parameters, vision.trained_parameters) == (of_language, of_vision)
    assert (projector.adapted, projector.trained_parameters) == (0, PROJECTOR)
    mixers = [7 * LAYERS * rank**2, 6 * (TOWER_LAYERS - 1) * 64**2]
    assert [language.mixer_parameters, vision.mixer_parameters] == mixers
    said = [of_language + of_vision + PROJECTOR, of_language, of_vision, PROJECTOR, *mixers]
    assert [number for number in said if f"{number:,}" not in recipe_text(name)] == []


def test_what_the_fused_layout_and_the_adapted_head_of_internlm2_come_to_is_what_the_recipe_says():
    fused = [(WIDTH, WIDTH + 2 * KEYS), QUERY, UP, UP, UP]
    more = numbers(LANGUAGE, rank=512, layers=LAYERS) - numbers(fused, rank=512, layers=LAYERS)
    in_a, in_mixers = LAYERS * 2 * 512 * WIDTH, LAYERS * 2 * 512**2
    head = numbers([(WIDTH, LLAVA[LLAVA_4_BIT])], rank=512, layers=1)
    assert more == in_a + in_mixers
    for number in (more, in_a, in_mixers, head):
        assert f"{number:,}" in recipe_text(LLAVA_4_BIT)


def test_plain_lora_of_a_llava_recipe_is_the_same_without_mixers(sized: Callable[[str], list[str]]):
    overrides = [*sized("llava-llama3-8b"), "adapter.method=lora", "adapter.mixer=null"]
    language, vision, projector = covered("llava-llama3-8b", overrides)
    assert language.trained_parameters == numbers(LANGUAGE, rank=64, layers=LAYERS) - 7 * LAYERS * 64**2
    assert vision.trained_parameters == numbers(TOWER, rank=64, layers=23) - 6 * 23 * 64**2
    assert projector.trained_parameters == PROJECTOR


def test_the_4_bit_recipe_quantises_the_language_model_alone(sized: Callable[[str], list[str]]):
    found = inspect_source(LLAVA_4_BIT, sized(LLAVA_4_BIT))
    assert [part["quantised"] for part in found.parts] == [7 * LAYERS, 0, 0]
    assert {(row["part"], row["name"], row["rank"]) for row in found.kinds()} >= {
        ("language", "q_proj", "512"),
        ("vision", "q_proj", "64"),
    }
    held = meta_model(load_recipe(LLAVA_4_BIT, sized(LLAVA_4_BIT)).model)
    kept = sum(p.numel() for name, p in held.named_parameters() if "language_model.layers" not in name)
    assert 2 * kept == pytest.approx(2.2e9, rel=0.02)  # bytes that float32 takes more than bfloat16


def test_the_4_bit_recipe_takes_the_settings_of_the_public_file(sized: Callable[[str], list[str]]):
    public = [*sized(LLAVA_4_BIT), "training.learning_rate=2e-4", "adapter.parts.vision.mixer=none"]
    language, vision, _ = covered(LLAVA_4_BIT, public)
    assert (language.mixers, vision.mixers, vision.mixer_parameters) == (("kaiming",), (), 0)
    assert load_recipe(LLAVA_4_BIT, public).training.learning_rate == 2e-4


@pytest.mark.parametrize("name", LLAVA)
def test_a_llava_recipe_has_the_papers_hyper_parameters(name: str):
    recipe = load_recipe(name)
    training = recipe.training
    assert (training.epochs, training.batch_size, training.learning_rate) == (1, 64, 2e-5)
    assert training.accumulation_steps(devices=4) == {"llava-llama3-8b": 2, LLAVA_4_BIT: 1}[name]
    assert (training.schedule, training.warmup_ratio, training.weight_decay) == ("cosine", 0.03, 0)
    assert training.max_grad_norm == 1
    options = recipe.adapter.options
    assert (options["projector"], options["lora_dropout"]) == ("trained", 0.05)
    assert recipe.model.quantize == ("nf4" if name == LLAVA_4_BIT else "none")
    assert len(recipe.evaluation.tasks) == 7


@pytest.mark.parametrize("name", LLAVA)
@pytest.mark.filterwarnings("ignore:.*bitsandbytes:UserWarning")
def test_a_llava_recipe_runs_from_end_to_end_on_a_tiny_model(
    name: str, llava_folder: Path, picture_data: Path, tmp_path: Path
):
    pytest.importorskip("bitsandbytes")
    changes: dict[str, Any] = {
        "model.path": llava_folder,
        "model.dtype": "float32",
        "data.train": picture_data / "train.json",
        "data.image_folder": picture_data,
        "training.max_steps": 2,
        "training.batch_size": 4,
        "training.micro_batch_size": 2,
        "training.precision": "float32",
        "evaluation.tasks": "[easy-vqa]",
        "evaluation.data": picture_data,
        "evaluation.limit": 2,
    }
    recipe = load_recipe(name, [f"{key}={value}" for key, value in changes.items()])
    record = run_recipe(recipe, tmp_path / "run", progress=False)
    assert RunRecord.load(tmp_path / "run" / "run.json").status == "finished"
    assert record.coverage
    language, vision, projector = record.coverage.parts or ()
    assert language.ranks == [recipe.adapter.options["parts"]["language"]["r"]]
    assert (vision.ranks, projector.whole_parameters) == ([64], 2112)
    assert [language.dead, vision.dead, projector.dead] == [[], [], []]
    assert language.quantised == (14 if name == LLAVA_4_BIT else 0)
