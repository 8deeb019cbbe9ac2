import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig, RecurrentGemmaConfig, RecurrentGemmaForCausalLM

from moslora.data.prompts import build_prompt
from moslora.data.tasks import task
from moslora.errors import DataError
from moslora.evaluation import generating
from moslora.evaluation.choice import score_by_generation
from moslora.evaluation.inference import left_padded

BOOLQ = task("boolq")


def questions(count=6):
    texts = [f"{'Why? ' * (n * 5 % 7)}Is {n}?\n\nAnswer format: true/false" for n in range(count)]
    return [{"instruction": text, "input": "", "output": "x", "answer": "true", "kind": "k"} for text in texts]


def generated(model, tokenizer, samples, **options):
    defaults = {"prompt_style": "plain", "progress": False, "max_new_tokens": 8}
    return score_by_generation(model, tokenizer, samples, task=BOOLQ, **(defaults | options))


def reference_text(model, tokenizer, sample, *, num_beams):
    ids = torch.tensor([tokenizer(build_prompt(sample, style="plain"))["input_ids"]])
    settings = GenerationConfig(num_beams=num_beams, max_new_tokens=8, do_sample=False, eos_token_id=2, pad_token_id=0)
    output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    return tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("num_beams", [1, 4])
@pytest.mark.parametrize("pad_is_end", [False, True])
def test_the_text_is_that_of_one_question_alone_whatever_the_batch(tiny_llama, tiny_tokenizer, num_beams, pad_is_end):
    tiny_llama.double()
    tokenizer = copy.deepcopy(tiny_tokenizer)
    samples = questions()
    expected = [reference_text(tiny_llama, tokenizer, sample, num_beams=num_beams) for sample in samples]
    assert len(set(expected)) > 1
    if pad_is_end:
        tokenizer.pad_token = tokenizer.eos_token
    for batch_size in (1, 4):
        answers = generated(tiny_llama, tokenizer, samples, num_beams=num_beams, batch_size=batch_size)
        assert [answer.text for answer in answers] == expected
        assert [answer.index for answer in answers] == list(range(len(samples)))


def test_a_model_that_sees_padding_generates_without_any(tiny_tokenizer, monkeypatch):
    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "lru_width": 32, "num_hidden_layers": 3}
    config = RecurrentGemmaConfig(**sizes, num_attention_heads=4, attention_window_size=64)
    batches = []

    def noting(rows, **options):
        batches.append({len(row) for row in rows})
        return left_padded(rows, **options)

    monkeypatch.setattr(generating, "left_padded", noting)
    model, samples = RecurrentGemmaForCausalLM(config).eval(), questions(12)
    answers = generated(model, tiny_tokenizer, samples, num_beams=1, batch_size=4)
    assert [answer.index for answer in answers] == list(range(12))
    assert all(len(lengths) == 1 for lengths in batches)
    assert 1 < len(batches) < 12


@pytest.fixture
def speaking(tiny_llama, tiny_tokenizer, monkeypatch):
    """The model, made to continue every prompt with a given text and its end token."""

    def says(text):
        def generate(*, input_ids, attention_mask, generation_config):
            assert not tiny_llama.training
            assert not torch.is_grad_enabled()
            assert attention_mask.shape == input_ids.shape
            new = torch.tensor([[*tiny_tokenizer(text)["input_ids"], 2]] * len(input_ids))
            return torch.cat([input_ids, new], dim=1)

        monkeypatch.setattr(tiny_llama, "generate", generate)
        return tiny_llama

    return says


@pytest.mark.parametrize(
    ("text", "predicted"),
    [("the correct answer is true", "true"), ("\n false or true", "false"), ("TRUE", None), ("", None)],
)
def test_the_first_match_in_the_new_text_is_the_prediction(speaking, tiny_tokenizer, text, predicted):
    (answer,) = generated(speaking(text), tiny_tokenizer, questions(1))
    assert (answer.predicted, answer.is_correct, answer.text) == (predicted, predicted == "true", text)
    assert (answer.expected, answer.kind, answer.scores) == ("true", "k", None)
    assert answer.is_read == (predicted is not None)


def test_the_mode_of_the_model_comes_back(speaking, tiny_tokenizer):
    model = speaking("true").train()
    generated(model, tiny_tokenizer, questions(2))
    assert model.training


def test_the_models_own_generation_settings_do_not_matter(tiny_llama, tiny_tokenizer):
    tiny_llama.double()
    expected = [answer.text for answer in generated(tiny_llama, tiny_tokenizer, questions())]
    own = tiny_llama.generation_config
    own.update(do_sample=True, temperature=0.3, top_p=0.5, top_k=2, repetition_penalty=9.0, no_repeat_ngram_size=2)
    own.update(length_penalty=-5.0, early_stopping=True, min_new_tokens=8, num_return_sequences=2, max_length=20)
    own.update(forced_eos_token_id=5, bad_words_ids=[[70]], suppress_tokens=[71, 72], begin_suppress_tokens=[73])
    own.update(exponential_decay_length_penalty=(1, 2.0), sequence_bias=[[[80], 9.0]], guidance_scale=3.0)
    own.update(num_beam_groups=2, diversity_penalty=1.0, min_p=0.3, typical_p=0.5, output_scores=True)
    own.update(return_dict_in_generate=True, renormalize_logits=True, remove_invalid_values=True, penalty_alpha=0.6)
    assert [answer.text for answer in generated(tiny_llama, tiny_tokenizer, questions())] == expected
    assert tiny_llama.generation_config is own


def test_the_models_own_end_tokens_end_the_text_too(tiny_llama, tiny_tokenizer):
    text = generated(tiny_llama, tiny_tokenizer, questions(1), num_beams=1)[0].text
    end = text[1]
    tiny_llama.generation_config.eos_token_id = [2, tiny_tokenizer(end)["input_ids"][0]]
    ended = generated(tiny_llama, tiny_tokenizer, questions(1), num_beams=1)[0].text
    assert ended == text[: text.index(end) + 1] != text


def test_an_adapter_speaks_through_its_wrapper(tiny_llama, tiny_tokenizer):
    tiny_llama.double()
    adapter = LoraConfig(r=4, lora_alpha=64, target_modules="all-linear", init_lora_weights=False)
    plain = [answer.text for answer in generated(tiny_llama, tiny_tokenizer, questions())]
    wrapped = get_peft_model(tiny_llama, adapter)
    adapted = [answer.text for answer in generated(wrapped, tiny_tokenizer, questions())]
    merged = wrapped.merge_and_unload()
    assert adapted == [answer.text for answer in generated(merged, tiny_tokenizer, questions())] != plain


def test_a_question_longer_than_the_models_positions_is_refused(tiny_llama, tiny_tokenizer):
    samples = questions(1)
    samples[0]["instruction"] = "x" * 600
    with pytest.raises(DataError, match="question 1 needs 619 tokens with its answer, the model has 512 positions"):
        generated(tiny_llama, tiny_tokenizer, samples)


def test_a_bad_sample_is_refused(tiny_llama, tiny_tokenizer):
    with pytest.raises(DataError, match="task 'boolq': sample 1: field 'answer' is 'yes'"):
        generated(tiny_llama, tiny_tokenizer, [questions(1)[0] | {"answer": "yes"}])
