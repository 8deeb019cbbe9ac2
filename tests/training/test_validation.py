import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, TrainingArguments

from moslora.data.tokens import IGNORED, collate
from moslora.training.language import collator
from moslora.training.trainer import train
from moslora.training.validation import SampleLoss, mean_over_tokens, sample_losses

ROWS = [{"input_ids": [5, 6, 7, number], "labels": [5, 6, 7, number]} for number in range(8, 20)]
SAMPLES = [
    {"input_ids": [5, 6, 7, 8, 9, 10], "labels": [5, 6, 7, 8, 9, 10]},
    {"input_ids": [5, 6, 7], "labels": [IGNORED, IGNORED, 7]},
    {"input_ids": [11, 12, 13, 14], "labels": [IGNORED, 12, 13, 14]},
]


def by_hand(model: LlamaForCausalLM) -> list[SampleLoss]:
    """Each sample alone, in float64."""
    model, found = model.double().eval(), []
    for sample in SAMPLES:
        logits = model(torch.tensor([sample["input_ids"]])).logits[0, :-1]
        labels = torch.tensor(sample["labels"][1:])
        losses = cross_entropy(logits[labels != IGNORED], labels[labels != IGNORED], reduction="none")
        found.append(SampleLoss(losses.mean().item(), len(losses)))
    return found


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_each_samples_loss_is_its_own_however_it_is_batched(
    tiny_llama: LlamaForCausalLM, batch_size: int, at_end: bool
):
    model = tiny_llama.train()
    starts = range(0, len(SAMPLES), batch_size)
    batches = [collate(SAMPLES[s : s + batch_size], pad_token_id=0, at_end=at_end) for s in starts]
    found = sample_losses(model, batches)
    assert model.training
    for one, expected in zip(found, by_hand(model), strict=True):
        assert one.tokens == expected.tokens
        assert one.loss == pytest.approx(expected.loss, rel=1e-5)


def test_the_mean_counts_every_token_alike():
    assert mean_over_tokens([SampleLoss(1.0, 1), SampleLoss(4.0, 2)]) == 3.0


def test_the_validation_loss_of_a_training_does_not_depend_on_the_batch_size(
    tiny_llama: LlamaForCausalLM, tmp_path: Path
):
    expected, logged = mean_over_tokens(by_hand(tiny_llama)), set()
    tiny_llama.float()
    for size in (1, 2, 3):
        result = train(
            tiny_llama,
            ROWS,
            validation=SAMPLES,
            arguments=TrainingArguments(
                output_dir=str(tmp_path / str(size)),
                max_steps=1,
                learning_rate=0.0,
                per_device_eval_batch_size=size,
                eval_strategy="steps",
                eval_steps=1,
                save_strategy="no",
                use_cpu=True,
                report_to="none",
                disable_tqdm=True,
                log_level="error",
            ),
            collate=collator(tiny_llama, pad_token_id=0),
            metrics_path=tmp_path / f"{size}.jsonl",
            progress=False,
        )
        assert result.validation_loss == pytest.approx(expected, rel=1e-5)
        assert [one.tokens for one in result.validation_losses] == [5, 1, 3]
        lines = [json.loads(line) for line in (tmp_path / f"{size}.jsonl").read_text().splitlines()]
        logged |= {line["eval_loss"] for line in lines if "eval_loss" in line}
    assert max(logged) == pytest.approx(expected, rel=1e-5)
    assert min(logged) == pytest.approx(expected, rel=1e-5)
