import inspect

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from moslora import MosloraConfig
from moslora.data.tasks import Task, task
from moslora.evaluation import choice
from moslora.evaluation import shared_prefix as module
from moslora.evaluation.choice import score_by_log_probability
from moslora.evaluation.shared_prefix import shared_prefix

NESTED = Task("nested", ("a", "ab", "abc", "b"), "a|ab|abc|b")
HEADER = "Choose the answer: "
SIZES = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0}


def questions(of, count=5):
    """Questions of different lengths that start alike; the byte tokenizer makes one token a letter."""
    formats = f"Answer format: {'/'.join(of.labels)}"
    texts = [f"{HEADER}{'Why? ' * (number * 3 % 5)}{number}\n{formats}" for number in range(count)]
    return [{"instruction": text, "output": "x", "answer": of.labels[0]} for text in texts]


def scores(model, tokenizer, of, *, style="plain", batch_size=3):
    answers = score_by_log_probability(
        model, tokenizer, questions(of), task=of, prompt_style=style, batch_size=batch_size, progress=False
    )
    return [answer.scores for answer in answers]


def check_sharing_changes_nothing(model, tokenizer, of, monkeypatch, *, tolerance, **options):
    found = scores(model, tokenizer, of, **options)
    monkeypatch.setattr(module, "SHORTEST", 10_000)
    for shared, alone in zip(found, scores(model, tokenizer, of, **options), strict=True):
        assert shared == pytest.approx(alone, abs=tolerance)


def spy_on_forward(monkeypatch, kind):
    """The (rows, columns) of every forward pass from here on."""
    shapes, forward = [], kind.forward

    def spy(self, **arguments):
        shapes.append(tuple(arguments["input_ids"].shape))
        return forward(self, **arguments)

    spy.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(kind, "forward", spy)
    return shapes


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("style", ["plain", "alpaca"])
@pytest.mark.parametrize("of", [task("everyday"), task("boolq"), NESTED], ids=lambda t: t.name)
def test_scores_with_a_shared_prefix_equal_those_without(
    tiny_llama, tiny_tokenizer, monkeypatch, of, style, batch_size
):
    options = {"style": style, "batch_size": batch_size}
    check_sharing_changes_nothing(tiny_llama.double(), tiny_tokenizer, of, monkeypatch, tolerance=1e-10, **options)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_scores_agree_in_float32_for_either_attention(tiny_llama, tiny_tokenizer, monkeypatch, attention):
    tiny_llama.set_attn_implementation(attention)
    check_sharing_changes_nothing(tiny_llama, tiny_tokenizer, task("everyday"), monkeypatch, tolerance=1e-4)


@pytest.mark.parametrize("config", [LoraConfig, MosloraConfig])
def test_the_prefix_runs_through_the_adapter(tiny_llama, tiny_tokenizer, monkeypatch, config):
    model = get_peft_model(tiny_llama, config(r=4, target_modules=["q_proj", "k_proj", "v_proj", "down_proj"]))
    bare = scores(model, tiny_tokenizer, task("everyday"))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter)
    model.double()
    assert scores(model, tiny_tokenizer, task("everyday"))[0] != pytest.approx(bare[0], abs=1e-2)
    check_sharing_changes_nothing(model, tiny_tokenizer, task("everyday"), monkeypatch, tolerance=1e-10)


def test_the_prefix_is_run_once_and_the_batches_only_read_the_rest(tiny_llama, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(choice, "sees_left_padding", lambda _: False)  # it runs the model too
    shapes = spy_on_forward(monkeypatch, LlamaForCausalLM)
    scores(tiny_llama, tiny_tokenizer, task("everyday"), batch_size=3)
    prefixed = len(HEADER)
    longest = max(len(q["instruction"]) for q in questions(task("everyday")))
    after = len("\nResponse:\n" + "the correct answer is answer")
    assert shapes[0] == (1, prefixed)
    assert [rows for rows, _ in shapes[1:]] == [3, 2]
    assert shapes[1][1] == longest + after - prefixed


def test_learned_positions_go_on_after_the_prefix(tiny_tokenizer, monkeypatch):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=1, eos_token_id=2)
    model = GPT2LMHeadModel(config).double().eval()
    torch.nn.init.normal_(model.transformer.wpe.weight)
    shapes = spy_on_forward(monkeypatch, GPT2LMHeadModel)
    check_sharing_changes_nothing(model, tiny_tokenizer, task("boolq"), monkeypatch, tolerance=1e-10)
    assert shapes[0] == (1, len(HEADER))


@pytest.mark.parametrize("kind", ["sliding window", "recurrent"])
def test_models_that_keep_no_key_of_every_token_share_nothing(tiny_tokenizer, monkeypatch, kind):
    torch.manual_seed(0)
    if kind == "recurrent":
        model = MambaForCausalLM(MambaConfig(**SIZES, state_size=4))
    else:
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 32}
        model = MistralForCausalLM(MistralConfig(**SIZES, **heads, sliding_window=12))
    model = model.double().eval()
    with torch.no_grad():
        assert shared_prefix(model, [[*range(3, 20), 1], [*range(3, 20), 2]]).length == 0
    check_sharing_changes_nothing(model, tiny_tokenizer, task("everyday"), monkeypatch, tolerance=1e-10)


@pytest.mark.parametrize(
    ("prompts", "length"),
    [
        ([[*range(3, 20), 1], [*range(3, 20), 2, 5], [*range(3, 20), 1, 1]], 17),
        ([[*range(3, 20)], [*range(3, 20), 1]], 16),  # the last token of a prompt gives the first answer's logits
        ([[*range(3, 20)], [*range(3, 20)]], 16),
        ([[*range(3, 10), 1], [*range(3, 10), 2]], 0),  # too short
        ([[*range(3, 20)]], 0),
        ([[5], [5, 6]], 0),
    ],
)
@torch.no_grad()
def test_the_prefix_leaves_every_prompt_a_token(tiny_llama, prompts, length):
    prefix = shared_prefix(tiny_llama, prompts)
    assert prefix.length == length
    assert (prefix.cache is None) == (length == 0)


@torch.no_grad()
def test_a_batch_does_not_lengthen_the_prefix_of_the_next(tiny_llama):
    prefix = shared_prefix(tiny_llama, [[*range(3, 20), 1], [*range(3, 20), 2]])
    for rows in (2, 3):
        arguments = prefix.as_arguments(tiny_llama, rows=rows)
        tiny_llama(input_ids=torch.ones(rows, 5, dtype=torch.long), **arguments)
        assert arguments["past_key_values"].get_seq_length() == 22
    assert prefix.cache is not None
    assert prefix.cache.get_seq_length() == 17
