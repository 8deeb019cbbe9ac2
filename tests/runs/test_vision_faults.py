"""Faults that others' training on pictures is known for, each with the test that keeps it out.

A test without a file stands here.

 1  the last vision layer never trains      adapter/test_part_gradients::test_the_modules_without_a_gradient_are_...
 2  checkpointing stops gradients           adapter/test_part_gradients::test_every_part_has_a_gradient
 3  a name adapts the tower unasked         test_a_name_that_stands_in_both_parts_is_refused_without_parts,
                                            adapter/test_parts::test_one_name_for_the_language_model_reaches_no_vision_layer
 4  a merge drops the tower's adapter       test_only_pictures_show_what_the_tower_learned,
                                            test_a_merge_that_drops_the_tower_is_refused
 5  the projector lies where nobody loads   test_an_adapter_without_its_projector_is_refused
 6  samples without labels, loss 0          test_a_sample_that_would_teach_nothing_is_named,
                                            test_a_template_that_hides_the_answers_is_refused
 7  questions are trained on                test_the_labels_are_the_answers_and_nothing_else
 8  turns found by the word "assistant"     test_a_question_that_says_assistant_is_not_learned
 9  masks that fail beside image tokens     test_the_labels_are_the_answers_and_nothing_else
10  truncation cuts a picture               test_a_picture_is_never_cut
11  processor and model count differently   test_a_processor_that_counts_otherwise_is_refused_before_weights,
                                            runs/test_processors.py
12  the list of layers not to quantise      runs/test_vision_language::test_only_the_language_model_is_quantised
13  quantisation that is silently ignored   runs/test_vision_language::test_a_quantisation_that_reaches_no_layer_is_...
14  a trained projector in 4 bits           adapter/test_part_coverage::test_a_quantised_projector_is_not_trained
15  tensors under old names, untrained      test_an_adapter_under_the_names_of_older_transformers_is_loaded_whole,
                                            test_an_adapter_under_unknown_names_is_refused
16  servers ignore the tower's adapter      test_a_folded_adapter_says_what_a_server_may_leave_out
17  text-only batches hang processes        test_a_batch_of_words_reaches_the_tower_where_several_processes_train
18  unreadable answers hide in the score    evaluation/test_vision::test_texts_without_an_answer_are_counted_apart...,
                                            test_the_rule_and_the_unread_answers_stand_in_the_record
19  PEFT freezes what was unfrozen          test_the_projector_moves_beside_the_adapter
20  one rate for tower, text and projector  test_the_projector_may_have_a_rate_of_its_own
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from moslora.adapter import merging
from moslora.adapter.preparing import optimiser
from moslora.errors import CheckpointError, ConfigError, DataError, DriftError
from moslora.records import RunRecord
from moslora.runs.adapters import adapted_on_meta, load_adapted, open_adapter
from moslora.runs.arguments import rates_by_module
from moslora.runs.exporting import fold_adapter, merge_adapter
from moslora.runs.folder import RunFolder
from moslora.runs.kinds import kind_of
from moslora.runs.models import load_model
from moslora.runs.recipe import load_recipe, parse_recipe
from moslora.runs.run import plan_run, run_recipe
from moslora.runs.steps import prepared
from tests.pictures import CHAT_TEMPLATE, make_pictures, vision_settings

WriteVision = Callable[..., Path]
TOWER, PROJECTOR = "model.vision_tower", "model.multi_modal_projector"
TENSORS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, llava_folder: Path) -> Path:
    """A run with both parts and the projector trained."""
    folder = tmp_path_factory.mktemp("faults")
    settings = {"name": "faults"} | vision_settings(llava_folder, make_pictures(folder / "data"))
    run_recipe(parse_recipe(settings, source="faults"), folder / "run", progress=False)
    return folder / "run"


@pytest.fixture
def changed_adapter(finished: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the run's adapter with its tensors changed."""

    def change(function: Callable[[dict[str, torch.Tensor]], Mapping[str, torch.Tensor]]) -> Path:
        copied = shutil.copytree(finished / "adapter", tmp_path / "changed")
        save_file(dict(function(load_file(copied / TENSORS))), copied / TENSORS, metadata={"format": "pt"})
        return copied

    return change


@pytest.fixture
def write_samples(tmp_path: Path, picture_data: Path) -> Callable[..., str]:
    """Write conversations, each a list of what is said in turn about a picture, as a file to train on."""

    def write(*conversations: list[str]) -> str:
        samples = [
            {
                "id": str(number),
                "image": "easy-vqa/images/0.png",
                "conversations": [
                    {"from": ("human", "gpt")[turn % 2], "value": text} for turn, text in enumerate(texts)
                ],
            }
            for number, texts in enumerate(conversations)
        ]
        (picture_data / "train.json").write_text(json.dumps(samples))
        return str(picture_data / "train.json")

    return write


@pytest.fixture
def rows(write_vision: WriteVision, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """The training rows of the recipe with changes, as the plan has them."""

    def make(*overrides: str) -> list[dict[str, Any]]:
        return list(plan_run(load_recipe(write_vision(), overrides), RunFolder(tmp_path / "plan")).material.rows)

    return make


def learned(row: Mapping[str, Any], folder: Path) -> str:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return str(tokenizer.decode([label for label in row["labels"] if label >= 0]))


def test_a_name_that_stands_in_both_parts_is_refused_without_parts(write_vision: WriteVision):
    recipe = load_recipe(write_vision(adapter={"parts": None, "target_modules": ["q_proj"], "r": 4}))
    with pytest.raises(ConfigError, match=r"reaches more than one part of the model \(language, vision\)"):
        adapted_on_meta(recipe.model, recipe.adapter.method, recipe.adapter.options)


def test_only_pictures_show_what_the_tower_learned(finished: Path):
    model, processor = load_adapted(open_adapter(finished))
    probe = kind_of("vision_language").probe(processor, model, prompt=None)
    has_picture = (probe["input_ids"] == processor.image_token_id).any(dim=1)
    assert has_picture.tolist() == [True, True, False, False]
    with torch.no_grad():
        before = model(**probe).logits
        for name, parameter in model.named_parameters():
            if "lora_mixer" in name and TOWER in name:
                parameter.mul_(3)
        difference = (model(**probe).logits - before).abs().amax(dim=(1, 2))
    assert (difference[has_picture] > 1e-4).all()
    assert (difference[~has_picture] == 0).all()


def test_a_merge_that_drops_the_tower_is_refused(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    merge = merging._merged_layer

    def without_tower(layer: Any, *given: Any, name: str, **options: Any) -> Any:
        return layer.get_base_layer() if TOWER in name else merge(layer, *given, name=name, **options)

    monkeypatch.setattr(merging, "_merged_layer", without_tower)
    with pytest.raises(DriftError, match=r"vision_tower"):
        merge_adapter(open_adapter(finished), tmp_path / "merged", dtype=None)


def test_an_adapter_without_its_projector_is_refused(changed_adapter: Callable[..., Path]):
    def without(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {key: tensor for key, tensor in tensors.items() if f"{PROJECTOR}.linear_1.weight" not in key}

    with pytest.raises(CheckpointError, match=r"multi_modal_projector\S*linear_1\.weight"):
        load_adapted(open_adapter(changed_adapter(without)))


def under(name: str) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """The tower's tensors one module deeper."""
    return lambda tensors: {key.replace(f"{TOWER}.", f"{TOWER}.{name}."): tensor for key, tensor in tensors.items()}


def test_an_adapter_under_the_names_of_older_transformers_is_loaded_whole(
    finished: Path, changed_adapter: Callable[..., Path]
):
    old, _ = load_adapted(open_adapter(changed_adapter(under("vision_model"))))
    new, _ = load_adapted(open_adapter(finished))
    given, right = (
        {name: p for name, p in model.named_parameters() if TOWER in name and "lora_" in name} for model in (old, new)
    )
    assert len(right) == 36
    assert all(tensor.any() and torch.equal(tensor, given[name]) for name, tensor in right.items())


def test_an_adapter_under_unknown_names_is_refused(changed_adapter: Callable[..., Path]):
    with pytest.raises(CheckpointError, match=r"36 tensors are missing \(\S*vision_tower\.encoder\.layers\.0"):
        load_adapted(open_adapter(changed_adapter(under("tower"))))


def test_the_labels_are_the_answers_and_nothing_else(
    write_samples: Callable[..., str], rows: Callable[..., list[dict[str, Any]]], llava_folder: Path
):
    write_samples(["<image>\nWhat colour?", "It is red.", "Sure?", "Yes, red."])
    (row,) = rows()
    assert learned(row, llava_folder) == "It is red.<|end|>Yes, red.<|end|>"
    image = AutoTokenizer.from_pretrained(llava_folder).convert_tokens_to_ids("<image>")
    assert row["input_ids"].count(image) == 16
    assert image not in row["labels"]


def test_a_question_that_says_assistant_is_not_learned(
    write_samples: Callable[..., str], rows: Callable[..., list[dict[str, Any]]], llava_folder: Path
):
    write_samples(["<image>\nWhat would an assistant\nassistant\nsay?", "red"])
    (row,) = rows()
    assert learned(row, llava_folder) == "red<|end|>"


def test_a_sample_that_would_teach_nothing_is_named(
    write_samples: Callable[..., str], rows: Callable[..., list[dict[str, Any]]]
):
    write_samples(["<image>\nWhat colour?", "red"], ["<image>\n" + "Look at it for long. " * 4, "blue"])
    with pytest.raises(DataError, match=r"sample 2: no answer is left in its first 64 tokens"):
        rows("data.max_length_tokens=64")


def test_a_sample_whose_answers_are_marked_is_not_told_to_be_cut(
    picture_data: Path, rows: Callable[..., list[dict[str, Any]]]
):
    turns = [{"role": "user", "content": "Say red."}, {"role": "assistant", "content": "red", "train": False}]
    (picture_data / "train.json").write_text(json.dumps([{"messages": turns}]))
    with pytest.raises(DataError, match=r"sample 1: every answer is marked as not to be learned; unmark one, or"):
        rows()


def test_a_template_that_hides_the_answers_is_refused(write_vision: WriteVision, llava_folder: Path, tmp_path: Path):
    hiding = shutil.copytree(llava_folder, tmp_path / "hiding")
    (hiding / "chat_template.jinja").write_text(
        CHAT_TEMPLATE.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'assistant' %}")
    )
    recipe = load_recipe(write_vision(), [f"model.path={hiding}"])
    with pytest.raises(DataError, match=r"train\.json: sample 1"):
        plan_run(recipe, RunFolder(tmp_path / "run"))


def test_a_picture_is_never_cut(write_samples: Callable[..., str], rows: Callable[..., list[dict[str, Any]]]):
    write_samples(["<image>\nWhat colour?", "red"])
    with pytest.raises(DataError, match=r"sample 1: data\.max_length_tokens 12 would cut a picture .* 16 of pictures"):
        rows("data.max_length_tokens=12")


def test_a_processor_that_counts_otherwise_is_refused_before_weights(
    write_vision: WriteVision, llava_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    other = shutil.copytree(llava_folder, tmp_path / "other")
    settings = json.loads((other / "processor_config.json").read_text())
    (other / "processor_config.json").write_text(json.dumps(settings | {"num_additional_image_tokens": 0}))
    monkeypatch.setattr("moslora.runs.run.load_model", lambda _settings: pytest.fail("the model was loaded"))
    recipe = load_recipe(write_vision(), [f"model.path={other}"])
    with pytest.raises(ConfigError, match=r"num_additional_image_tokens is 0 and the model needs 1"):
        run_recipe(recipe, tmp_path / "run", progress=False)


def test_a_folded_adapter_says_what_a_server_may_leave_out(finished: Path, tmp_path: Path):
    export = fold_adapter(open_adapter(finished), tmp_path / "folded")
    card = (tmp_path / "folded" / "README.md").read_text()
    assert "from transformers import LlavaForConditionalGeneration" in card
    for text in (card, *export.notes):
        assert "may apply the language model's part alone" in text
        assert "`moslora merge ADAPTER`" in text
    assert "from peft import AutoPeftModel\n" in (finished / "adapter" / "README.md").read_text()


def test_a_batch_of_words_reaches_the_tower_where_several_processes_train(
    write_vision: WriteVision, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = load_recipe(write_vision(), ["evaluation.tasks=[]"])
    plan = plan_run(recipe, RunFolder(tmp_path / "run"))
    words = [row for row in plan.material.rows if not row["images"]]
    model = prepared(recipe, plan, load_model(recipe.model))
    alone = kind_of(recipe.kind).collator(model, plan.processor)(words)
    monkeypatch.setenv("WORLD_SIZE", "2")
    batch = kind_of(recipe.kind).collator(model, plan.processor)(words)
    assert "pixel_values" not in alone
    assert (batch["labels"] >= 0).sum() == (alone["labels"] >= 0).sum()
    loss = model(**batch).loss
    assert torch.isclose(loss, model(**alone).loss, atol=1e-6)
    loss.backward()
    tower = [p for name, p in model.named_parameters() if TOWER in name and p.requires_grad]
    assert tower
    assert all(p.grad is not None for p in tower)
    assert not any(p.grad.any() for p in tower if p.grad is not None)  # reached, and taught nothing by a grey picture


def test_the_rule_and_the_unread_answers_stand_in_the_record(finished: Path):
    for evaluation in RunRecord.load(finished / "run.json").evaluations:
        assert evaluation.scored
        assert evaluation.scored.rule
        assert evaluation.unread is not None


def test_the_projector_moves_beside_the_adapter(finished: Path, llava_folder: Path):
    trained = load_file(finished / "adapter" / TENSORS)
    base = load_model(load_recipe(finished / "recipe.yaml").model).state_dict()
    projector = {key.removeprefix("base_model.model."): tensor for key, tensor in trained.items() if PROJECTOR in key}
    assert len(projector) == 4
    assert not any(torch.equal(tensor, base[key]) for key, tensor in projector.items())
    assert any(tensor.any() for key, tensor in trained.items() if TOWER in key and "lora_B" in key)


@pytest.mark.parametrize("method", ["moslora", "lora"])
def test_the_projector_may_have_a_rate_of_its_own(write_vision: WriteVision, tmp_path: Path, method: str):
    settings = ["training.projector_learning_rate=0.0005", "evaluation.tasks=[]", f"adapter.method={method}"]
    recipe = load_recipe(write_vision(), settings)
    plan = plan_run(recipe, RunFolder(tmp_path / "run"))
    model = prepared(recipe, plan, load_model(recipe.model))
    projector = {id(p) for name, p in model.named_parameters() if PROJECTOR in name and p.requires_grad}
    build = optimiser(method, plan.options, weight_decay=0.0, rates=rates_by_module(recipe, model))
    assert build
    groups = build(model, torch.optim.AdamW, {"lr": 0.01}).param_groups
    assert [group["lr"] for group in groups] == [0.01, 0.0005]
    assert {id(p) for p in groups[1]["params"]} == projector
    every = [p for group in groups for p in group["params"]]
    assert len(every) == len([p for p in model.parameters() if p.requires_grad])
    record = run_recipe(recipe, tmp_path / "run", progress=False)
    assert record.status == "finished"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["adapter.projector=frozen"],
            r"0\.001 would do nothing, since adapter\.projector is frozen: set",
        ),
        (
            ["adapter.method=lora+"],
            r"'lora\+' groups the parameters itself, so model\.multi_modal_projector",
        ),
    ],
)
def test_a_rate_that_cannot_hold_is_refused(
    write_vision: WriteVision, tmp_path: Path, overrides: list[str], message: str
):
    def planned() -> None:
        recipe = load_recipe(write_vision(), ["training.projector_learning_rate=0.001", *overrides])
        plan_run(recipe, RunFolder(tmp_path / "run"))

    with pytest.raises(ConfigError, match=message):
        planned()
