import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM, RecurrentGemmaConfig, RecurrentGemmaForCausalLM, TrainingArguments

from moslora.training import language
from moslora.training.checkpoints import newest_checkpoint
from moslora.training.language import collator
from moslora.training.trainer import forget_after, mean_loss, train

EXAMPLES = [{"input_ids": [5, 6, 7, number], "labels": [5, 6, 7, number]} for number in range(8, 20)]


def make_checkpoint(folder: Path, step: int, state: str = "{}") -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(state)
    return checkpoint


def arguments(folder: Path, **options: object) -> TrainingArguments:
    settings = {"max_steps": 5, "per_device_train_batch_size": 4, "use_cpu": True, "save_strategy": "no"}
    return TrainingArguments(
        output_dir=str(folder), report_to="none", disable_tqdm=True, log_level="error", **(settings | options)
    )


def test_the_newest_checkpoint_is_the_one_of_the_highest_step(tmp_path: Path):
    for step in (9, 100, 20):
        make_checkpoint(tmp_path, step)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_half_written_checkpoints_are_dropped(tmp_path: Path):
    whole = make_checkpoint(tmp_path, 10)
    make_checkpoint(tmp_path, 20, '{"global_step": 2')
    make_checkpoint(tmp_path, 30, "[]")
    (make_checkpoint(tmp_path, 40) / "trainer_state.json").unlink()
    (tmp_path / "runs").mkdir()
    assert newest_checkpoint(tmp_path) == whole
    assert sorted(place.name for place in tmp_path.iterdir()) == ["checkpoint-10", "runs"]


def test_there_may_be_no_checkpoint_yet(tmp_path: Path):
    assert newest_checkpoint(tmp_path / "nowhere") is None
    make_checkpoint(tmp_path, 20, "")
    assert newest_checkpoint(tmp_path) is None


def test_metrics_after_a_step_are_forgotten_and_so_is_a_half_written_line(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    forget_after(path, step=0)
    assert not path.exists()
    path.write_text('{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 3, "loss": 1.0}\n{"step": 4, "lo')
    forget_after(path, step=2)
    assert path.read_text() == '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n'
    forget_after(path, step=0)
    assert path.read_text() == ""


def test_the_mean_loss_weighs_each_logged_loss_with_its_steps(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    assert mean_loss(path) is None
    path.write_text('{"step": 10, "loss": 3.0}\n{"step": 10, "eval_loss": 9.0}\n{"step": 12, "loss": 1.5}\n')
    assert mean_loss(path) == pytest.approx((10 * 3.0 + 2 * 1.5) / 12)


def test_every_step_is_in_the_metrics_however_rarely_they_are_logged(tmp_path: Path, tiny_llama: LlamaForCausalLM):
    metrics = tmp_path / "metrics.jsonl"
    result = train(
        tiny_llama,
        EXAMPLES,
        arguments=arguments(tmp_path, logging_steps=3),
        collate=collator(tiny_llama, pad_token_id=0),
        metrics_path=metrics,
        progress=False,
    )
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == [3, 5]
    assert (result.steps, result.is_complete, result.was_stopped) == (5, True, False)
    assert result.train_loss == mean_loss(metrics)


def recurrent_gemma() -> RecurrentGemmaForCausalLM:
    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "lru_width": 32, "num_hidden_layers": 3}
    return RecurrentGemmaForCausalLM(RecurrentGemmaConfig(**sizes, num_attention_heads=4, attention_window_size=64))


@pytest.mark.parametrize("sees_padding", [True, False])
def test_a_batch_is_padded_on_the_left_only_for_a_model_that_does_not_see_it(
    tmp_path: Path, tiny_llama: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch, sees_padding: bool
):
    at_end: list[bool] = []
    collated = language.collate

    def noting(examples: Any, **options: Any) -> Any:
        at_end.append(options["at_end"])
        return collated(examples, **options)

    monkeypatch.setattr(language, "collate", noting)
    model = recurrent_gemma() if sees_padding else tiny_llama
    options = {"collate": language.collator(model, pad_token_id=0), "metrics_path": tmp_path / "metrics.jsonl"}
    train(model, EXAMPLES, arguments=arguments(tmp_path), progress=False, **options)
    assert set(at_end) == {not sees_padding}


def test_a_loss_that_is_not_a_number_is_shown(tmp_path: Path, tiny_llama: LlamaForCausalLM):
    with torch.no_grad():
        tiny_llama.lm_head.weight.fill_(torch.nan)
    result = train(
        tiny_llama,
        EXAMPLES,
        arguments=arguments(tmp_path, logging_steps=1, logging_nan_inf_filter=False),
        collate=collator(tiny_llama, pad_token_id=0),
        metrics_path=tmp_path / "metrics.jsonl",
        progress=False,
    )
    assert result.train_loss != result.train_loss


def test_progress_goes_to_stderr(tmp_path: Path, tiny_llama: LlamaForCausalLM, capsys: pytest.CaptureFixture[str]):
    options = {"collate": collator(tiny_llama, pad_token_id=0), "metrics_path": tmp_path / "metrics.jsonl"}
    train(tiny_llama, EXAMPLES, arguments=arguments(tmp_path, logging_steps=1), **options)
    output, remarks = capsys.readouterr()
    assert output == ""
    assert "5/5 loss " in remarks
