import copy
import inspect

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM, RwkvConfig, RwkvForCausalLM

from moslora.data.prompts import build_prompt
from moslora.data.tasks import Task, task
from moslora.errors import DataError
from moslora.evaluation import choice
from moslora.evaluation.choice import score_by_log_probability
from moslora.evaluation.inference import length_batches

NESTED = Task("nested", ("a", "ab", "abc", "b"), "a|ab|abc|b")  # some candidates start with others


def questions(of, count=7):
    """Questions of different lengths, some with fewer labels than the task has."""
    made = []
    for number in range(count):
        allowed = of.labels[: 2 + number % (len(of.labels) - 1)]
        text = f"{'Why? ' * (number * 5 % 7)}What about {number}?\n\nAnswer format: {'/'.join(allowed)}"
        answer = allowed[number % len(allowed)]
        made.append({"instruction": text, "input": "", "output": "x", "answer": answer, "kind": f"k{number % 2}"})
    return made


def reference(model, tokenizer, samples, of, style):
    """One candidate at a time, without padding: the sum of the log-softmax of its tokens."""
    expected = []
    for sample in samples:
        prompt = tokenizer(build_prompt(sample, style=style))["input_ids"]
        allowed = sample["instruction"].rpartition("Answer format: ")[2].strip().split("/")
        scores = {}
        for label in allowed:
            response = tokenizer("the correct answer is " + label)["input_ids"]
            with torch.no_grad():
                logits = model(torch.tensor([prompt + response])).logits[0]
            steps = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            scores[label] = sum(step[token].item() for step, token in zip(steps, response, strict=True))
        expected.append(scores)
    return expected


def scored(model, tokenizer, samples, of, **options):
    defaults = {"prompt_style": "plain", "batch_size": 3, "progress": False}
    return score_by_log_probability(model, tokenizer, samples, task=of, **(defaults | options))


def check_against_reference(answers, expected, samples, *, tolerance):
    assert [answer.index for answer in answers] == list(range(len(samples)))
    for answer, scores, sample in zip(answers, expected, samples, strict=True):
        assert answer.scores == pytest.approx(scores, abs=tolerance)
        assert list(answer.scores) == list(scores)
        assert answer.predicted == max(scores, key=lambda label: scores[label])
        assert answer.expected == sample["answer"]
        assert answer.is_correct == (answer.predicted == sample["answer"])
        assert (answer.kind, answer.text) == (sample["kind"], None)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("of", [task("everyday"), task("boolq"), task("ARC-Easy"), NESTED], ids=lambda t: t.name)
def test_batched_scores_equal_scoring_one_candidate_at_a_time(tiny_llama, tiny_tokenizer, of, batch_size):
    tiny_llama.double()
    samples = questions(of)
    expected = reference(tiny_llama, tiny_tokenizer, samples, of, "plain")
    answers = scored(tiny_llama, tiny_tokenizer, samples, of, batch_size=batch_size)
    check_against_reference(answers, expected, samples, tolerance=1e-9)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("style", ["alpaca", "plain"])
def test_scores_hold_in_float32_for_either_attention_and_prompt(tiny_llama, tiny_tokenizer, style, attention):
    tiny_llama.set_attn_implementation(attention)
    samples = questions(task("everyday"))
    expected = reference(tiny_llama, tiny_tokenizer, samples, task("everyday"), style)
    answers = scored(tiny_llama, tiny_tokenizer, samples, task("everyday"), prompt_style=style)
    check_against_reference(answers, expected, samples, tolerance=2e-3)


def test_a_model_with_learned_positions_counts_them_from_the_first_real_token(tiny_tokenizer):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=1, eos_token_id=2)
    model = GPT2LMHeadModel(config).double().eval()
    torch.nn.init.normal_(model.transformer.wpe.weight)
    samples = questions(task("boolq"))
    expected = reference(model, tiny_tokenizer, samples, task("boolq"), "plain")
    answers = scored(model, tiny_tokenizer, samples, task("boolq"), batch_size=8)
    check_against_reference(answers, expected, samples, tolerance=1e-9)


def test_padding_with_the_end_token_changes_nothing(tiny_llama, tiny_tokenizer):
    same = copy.deepcopy(tiny_tokenizer)
    same.pad_token = same.eos_token
    samples = questions(task("boolq"))
    a, b = (scored(tiny_llama.double(), t, samples, task("boolq"), batch_size=8) for t in (tiny_tokenizer, same))
    for first, second in zip(a, b, strict=True):
        assert first.scores == pytest.approx(second.scores, abs=1e-9)


@pytest.mark.parametrize(
    ("of", "passes"), [(task("everyday"), 1), (task("boolq"), 2), (NESTED, 1)], ids=lambda x: str(x)
)
def test_a_question_takes_the_fewest_rows_and_logits(tiny_llama, tiny_tokenizer, monkeypatch, of, passes):
    calls = []
    forward = LlamaForCausalLM.forward

    def spy(self, **arguments):
        calls.append((arguments["input_ids"].shape[0], forward(self, **arguments).logits.shape[1]))
        return forward(self, **arguments)

    spy.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(choice, "sees_left_padding", lambda _: False)  # it runs the model too
    monkeypatch.setattr(LlamaForCausalLM, "forward", spy)
    sample = questions(of, count=len(of.labels))[len(of.labels) - 2]  # allows every label
    scored(tiny_llama, tiny_tokenizer, [sample], of, batch_size=4)
    assert sum(rows for rows, _ in calls) == passes
    # the byte tokenizer has a token a letter; the last letter is never read
    assert calls[0][1] == max(len("the correct answer is " + label) for label in of.labels)


def test_a_model_without_logits_to_keep_or_positions_is_scored_alike(tiny_llama, tiny_tokenizer, monkeypatch):
    samples = questions(task("everyday"))
    tiny_llama.double()
    expected = scored(tiny_llama, tiny_tokenizer, samples, task("everyday"), batch_size=1)
    forward = LlamaForCausalLM.forward
    monkeypatch.setattr(
        LlamaForCausalLM, "forward", lambda self, input_ids, attention_mask: forward(self, input_ids, attention_mask)
    )
    answers = scored(tiny_llama, tiny_tokenizer, samples, task("everyday"), batch_size=1)
    for first, second in zip(answers, expected, strict=True):
        assert first.scores == pytest.approx(second.scores, abs=1e-9)


def test_dropout_is_off_and_every_modules_mode_comes_back(tiny_llama, tiny_tokenizer):
    adapter = LoraConfig(r=4, lora_dropout=0.9, target_modules=["q_proj"], init_lora_weights=False)
    model = get_peft_model(tiny_llama, adapter).train()
    model.get_submodule("base_model.model.lm_head").eval()
    before = {name: module.training for name, module in model.named_modules()}
    samples = questions(task("everyday"))
    first, second = (scored(model, tiny_tokenizer, samples, task("everyday")) for _ in range(2))
    assert first == second
    assert {name: module.training for name, module in model.named_modules()} == before
    expected = reference(model.eval(), tiny_tokenizer, samples, task("everyday"), "plain")
    check_against_reference(first, expected, samples, tolerance=2e-3)


def test_the_mode_comes_back_after_a_failure_too(tiny_llama, tiny_tokenizer, monkeypatch):
    tiny_llama.train()
    monkeypatch.setattr(LlamaForCausalLM, "forward", lambda self, **arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scored(tiny_llama, tiny_tokenizer, questions(task("everyday")), task("everyday"))
    assert tiny_llama.training


def test_training_goes_on_after_an_evaluation(tiny_llama, tiny_tokenizer):
    scored(tiny_llama, tiny_tokenizer, questions(task("everyday")), task("everyday"))
    ids = torch.tensor([[3, 4, 5]])
    tiny_llama(input_ids=ids, labels=ids).loss.backward()
    assert tiny_llama.lm_head.weight.grad is not None


def test_a_tie_goes_to_the_first_label(tiny_llama, tiny_tokenizer):
    torch.nn.init.zeros_(tiny_llama.lm_head.weight)
    answers = scored(tiny_llama, tiny_tokenizer, questions(task("everyday")), task("everyday"))
    assert {answer.predicted for answer in answers} == {"answer1"}


def test_scores_that_are_not_numbers_are_refused(tiny_llama, tiny_tokenizer):
    torch.nn.init.constant_(tiny_llama.lm_head.weight, float("nan"))
    with pytest.raises(DataError, match="question 1: the model's log-probabilities are not numbers; try another dtype"):
        scored(tiny_llama, tiny_tokenizer, questions(task("everyday")), task("everyday"))


def test_labels_with_the_same_tokens_are_refused(tiny_llama, tiny_tokenizer):
    blind = copy.deepcopy(tiny_tokenizer)

    class Blind:
        def __call__(self, texts, **options):
            return blind([text.rstrip("0123456789") for text in texts], **options)

    with pytest.raises(
        DataError, match="task 'everyday': the tokenizer gives the labels 'answer1' and 'answer2' the same"
    ):
        scored(tiny_llama, Blind(), questions(task("everyday")), task("everyday"))


def test_a_question_longer_than_the_models_positions_is_refused(tiny_llama, tiny_tokenizer):
    samples = questions(task("boolq"), count=2)
    samples[1]["instruction"] = "x" * 600 + "Answer format: true/false"
    with pytest.raises(
        DataError, match="question 2 needs 662 tokens with its answer, the model has 512 positions; leave"
    ):
        scored(tiny_llama, tiny_tokenizer, samples, task("boolq"))


def test_a_bad_sample_is_refused_before_the_model_runs(tiny_tokenizer):
    samples = [*questions(task("boolq"), count=1), {"instruction": "x", "output": "y", "answer": "no"}]
    with pytest.raises(DataError, match=r"task 'boolq': sample 2: field 'answer' is 'no', .* true, false"):
        scored(torch.nn.Identity(), tiny_tokenizer, samples, task("boolq"))
    with pytest.raises(DataError, match="task 'boolq': no samples"):
        scored(torch.nn.Identity(), tiny_tokenizer, [], task("boolq"))


@pytest.mark.parametrize("progress", [True, False])
def test_progress_goes_to_stderr_and_only_if_asked(tiny_llama, tiny_tokenizer, capsys, progress):
    scored(tiny_llama, tiny_tokenizer, questions(task("everyday")), task("everyday"), progress=progress)
    output = capsys.readouterr()
    assert output.out == ""
    assert ("evaluating" in output.err) == progress


def test_a_frozen_head_gets_no_slice_which_torch_would_copy_its_weight_for(tiny_llama, tiny_tokenizer):
    head, seen = tiny_llama.requires_grad_(False).lm_head, []
    head.register_forward_hook(lambda _, inputs, output: seen.append((len(inputs[0]), inputs[0].is_contiguous())))
    scored(tiny_llama, tiny_tokenizer, questions(task("everyday")), task("everyday"))
    assert (3, True) in seen
    assert all(is_contiguous for _, is_contiguous in seen)
    assert not head._forward_pre_hooks


@pytest.mark.parametrize(("most_tokens", "sizes"), [(None, [3, 2]), (20, [2, 3]), (9, [1, 1, 2, 1]), (1, [1] * 5)])
def test_batches_hold_like_lengths_and_no_more_tokens_than_asked(most_tokens, sizes):
    rows = [4, 9, 2, 8, 4]
    batches = [*length_batches(rows, 3, length=lambda row: row, progress=False, most_tokens=most_tokens)]
    assert [row for batch in batches for row in batch] == [9, 8, 4, 4, 2]
    assert [len(batch) for batch in batches] == sizes


def test_a_cpu_reads_long_questions_in_smaller_batches(tiny_llama, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(choice, "CPU_TOKENS", 1)
    seen = []
    tiny_llama.lm_head.register_forward_hook(lambda _, inputs, output: seen.append(len(inputs[0])))
    scored(tiny_llama, tiny_tokenizer, questions(task("everyday")), task("everyday"), batch_size=8)
    assert set(seen) == {1}


def test_a_model_that_sees_padding_is_scored_without_any(tiny_tokenizer):
    torch.manual_seed(0)
    sizes = {"vocab_size": 320, "hidden_size": 32, "attention_hidden_size": 32, "intermediate_size": 48}
    model = RwkvForCausalLM(RwkvConfig(**sizes, num_hidden_layers=2, context_length=512)).double().eval()
    of = task("boolq")
    samples = questions(of, count=12)
    assert len({len(sample["instruction"]) for sample in samples}) > 3
    alone, together = (scored(model, tiny_tokenizer, samples, of, batch_size=size) for size in (1, 8))
    for one, other in zip(alone, together, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-9)


def test_batches_without_padding_hold_rows_of_one_length_and_lose_none():
    rows = ["aa", "b", "cc", "dd", "e", "f", "ggg"]
    batches = list(length_batches(rows, 2, length=len, progress=False, is_padded=False))
    assert batches == [["ggg"], ["aa", "cc"], ["dd"], ["b", "e"], ["f"]]


def test_without_a_prompt_the_answer_stands_on_a_line_of_its_own(tiny_llama, tiny_tokenizer):
    samples = questions(task("openbookqa"))
    as_lines = [{**sample, "instruction": sample["instruction"] + "\n"} for sample in samples]
    expected = reference(tiny_llama, tiny_tokenizer, as_lines, task("openbookqa"), "none")
    answers = scored(tiny_llama, tiny_tokenizer, samples, task("openbookqa"), prompt_style="none")
    check_against_reference(answers, expected, samples, tolerance=1e-3)
