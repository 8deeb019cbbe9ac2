import random

import pytest
import torch
from transformers import (
    JambaConfig,
    JambaForCausalLM,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Trainer,
    TrainingArguments,
)

from moslora.data.packing import check_packing, pack
from moslora.data.tokens import collate
from moslora.errors import ConfigError, DataError


def examples_of(lengths):
    draw = random.Random(1)
    rows = [[draw.randrange(3, 300) for _ in range(length)] for length in lengths]
    return [{"input_ids": ids, "labels": list(ids)} for ids in rows]


def documents(rows):
    """The documents of packed rows: position ids restart at 0."""
    found = []
    for row in rows:
        for token, position in zip(row["input_ids"], row["position_ids"], strict=True):
            if position == 0:
                found.append([])
            assert position == len(found[-1])
            found[-1].append(token)
    return found


def test_packing_keeps_every_token_of_every_example():
    draw = random.Random(0)
    examples = examples_of([draw.randrange(1, 65) for _ in range(300)])
    rows = pack(examples, max_length_tokens=64)
    assert sorted(documents(rows)) == sorted(example["input_ids"] for example in examples)
    tokens = sum(len(example["input_ids"]) for example in examples)
    assert all(len(row["input_ids"]) == len(row["labels"]) <= 64 for row in rows)
    assert tokens / (64 * len(rows)) > 0.95
    assert rows == pack(examples, max_length_tokens=64)


def test_the_first_token_of_a_packed_example_has_no_label():
    (row,) = pack(examples_of([3, 2, 1]), max_length_tokens=6)
    starts = [position == 0 for position in row["position_ids"]]
    assert [label == -100 for label in row["labels"]] == starts
    assert sum(starts) == 3


def test_the_padding_of_a_packed_row_is_a_document_of_its_own():
    batch = collate([*pack(examples_of([2, 1]), max_length_tokens=3)], pad_token_id=9, pad_to_multiple_of=5)
    assert batch["position_ids"].tolist() == [[0, 1, 0, 0, 1]]
    assert batch["input_ids"][0, 3:].tolist() == [9, 9]
    assert batch["labels"][0, 3:].tolist() == [-100, -100]
    assert batch["use_cache"] is False
    assert "attention_mask" not in batch


def test_an_example_longer_than_a_row_is_refused():
    with pytest.raises(DataError, match=r"example 2 has 9 tokens, a packed row .* 8; raise data\.max_length_tokens"):
        pack(examples_of([3, 9]), max_length_tokens=8)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("is_training", [True, False])
def test_packed_examples_do_not_see_each_other(tiny_llama, attention, is_training):
    tiny_llama.set_attn_implementation(attention)
    tiny_llama.train(is_training).double()
    examples = examples_of([7, 5, 1, 9, 2, 4])
    packed = pack(examples, max_length_tokens=12)
    assert len({len(row["input_ids"]) for row in packed}) > 1, "padding must be part of the test"
    alone = {tuple(e["input_ids"]): tiny_llama(**collate([e], pad_token_id=0)).logits[0] for e in examples}
    logits = tiny_llama(**collate(packed, pad_token_id=0)).logits
    for number, row in enumerate(packed):
        start = 0
        for document in documents([row]):
            found = logits[number, start : start + len(document)]
            torch.testing.assert_close(found, alone[tuple(document)], rtol=1e-9, atol=1e-9)
            start += len(document)


def test_the_loss_of_packed_examples_is_that_of_the_same_batch_unpacked(tiny_llama):
    examples = examples_of([7, 5, 2, 9])
    packed = collate(pack(examples, max_length_tokens=14), pad_token_id=0)
    assert tiny_llama(**packed).loss.item() == pytest.approx(
        tiny_llama(**collate(examples, pad_token_id=0)).loss.item(), abs=1e-5
    )


def test_the_trainer_takes_packed_batches_in_training_and_evaluation(tiny_llama, tmp_path):
    rows = pack(examples_of([7, 5, 2, 9]), max_length_tokens=14)
    expected = tiny_llama(**collate(rows, pad_token_id=0)).loss.item()
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=2, per_device_eval_batch_size=2, max_steps=1, report_to=[],
        use_cpu=True, learning_rate=0.0, disable_tqdm=True, save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Trainer(
        tiny_llama, arguments, train_dataset=rows, eval_dataset=rows, data_collator=lambda e: collate(e, pad_token_id=0)
    )
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, abs=1e-5)
    assert trainer.train().training_loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_check_passes_where_documents_stay_apart_and_restores_the_mode(tiny_llama, attention, dtype):
    tiny_llama.set_attn_implementation(attention)
    tiny_llama.to(dtype).train()
    tiny_llama.lm_head.eval()
    check_packing(tiny_llama)
    assert tiny_llama.training
    assert not tiny_llama.lm_head.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_refuses_a_model_whose_documents_see_each_other(tiny_llama, monkeypatch, dtype):
    forward = LlamaForCausalLM.forward
    monkeypatch.setattr(LlamaForCausalLM, "forward", lambda self, **kw: forward(self, **(kw | {"use_cache": True})))
    with pytest.raises(
        ConfigError, match=r"packing: this model with attention 'sdpa' does not keep packed samples apart"
    ):
        check_packing(tiny_llama.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_check_refuses_a_leak_that_half_precision_would_round_away(tiny_llama, dtype):
    tiny_llama.to(dtype)
    check_packing(tiny_llama)
    embeddings = tiny_llama.model.embed_tokens
    embeddings.register_forward_hook(lambda *call: call[-1] + 1e-5 * call[-1].cumsum(dim=1).roll(1, dims=1))
    with pytest.raises(ConfigError, match=r"apart \(a change in one changes another's logits by \d"):
        check_packing(tiny_llama)


SIZES = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
HEADS = {"intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_refuses_a_recurrent_model(dtype):
    torch.manual_seed(0)
    jamba = JambaConfig(**SIZES, **HEADS, attn_layer_period=2, attn_layer_offset=1, num_experts=2, mamba_d_state=4)
    jamba.use_mamba_kernels = False
    with pytest.raises(
        ConfigError, match=r"does not keep packed samples apart \(a change .*; set data.packing to false$"
    ):
        check_packing(JambaForCausalLM(jamba).to(dtype))
    with pytest.raises(ConfigError, match=r"apart \(it takes no position ids"):
        check_packing(MambaForCausalLM(MambaConfig(**SIZES, state_size=4)).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_check_passes_a_mixture_whose_experts_round_otherwise_beside_other_tokens(dtype):
    torch.manual_seed(0)
    model = MixtralForCausalLM(MixtralConfig(**SIZES, **HEADS, num_local_experts=4)).to(dtype)
    former = model.get_experts_implementation()
    check_packing(model)
    assert model.get_experts_implementation() == former


def test_the_check_refuses_a_model_whose_positions_run_on(tiny_llama, monkeypatch):
    forward = LlamaForCausalLM.forward

    def shifted(self, *, position_ids, **options):
        starts = (position_ids == 0).cumsum(dim=-1) - 1
        return forward(self, position_ids=position_ids * (1 + starts), **options)

    with torch.no_grad():
        tiny_llama.model.layers[0].self_attn.q_proj.weight.mul_(30)
    monkeypatch.setattr(LlamaForCausalLM, "forward", shifted)
    monkeypatch.setattr("moslora.data.packing.accepts", lambda *_: True)
    with pytest.raises(ConfigError, match=r"apart \(logits differ from those of a sample alone by \d"):
        check_packing(tiny_llama)
