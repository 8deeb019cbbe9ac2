import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from moslora.data.tokens import IGNORED, Example, collate, cut_examples, divide_examples, end_token_id, pad_token_id
from moslora.errors import DataError


def example(*ids: int, learned_from: int = 0) -> Example:
    return {"input_ids": list(ids), "labels": [IGNORED] * learned_from + list(ids[learned_from:])}


def test_cutting_keeps_the_start_and_counts_what_lost_tokens():
    cut = cut_examples([example(1, 2, 3, 4), example(5, 6, 7)], max_length_tokens=3, source="x")
    assert cut.examples == [example(1, 2, 3), example(5, 6, 7)]
    assert cut.truncated == 1


def test_a_cut_that_leaves_nothing_to_learn_advises_a_length():
    rows = [example(1, 2, 3), example(1, 2, 3, 4, learned_from=3), example(*range(9), learned_from=5)]
    with pytest.raises(DataError) as caught:
        cut_examples(rows, max_length_tokens=3, source="a.jsonl")
    assert str(caught.value) == (
        "a.jsonl: sample 2 has 4 tokens and none to learn from among its first 3 (2 samples are like that, the longest "
        "has 9); set data.max_length_tokens to 9, or data.longer to leave_out"
    )


@pytest.mark.parametrize("length", range(2, 20))
def test_pieces_of_a_long_example_learn_each_token_once_as_the_whole_does(length: int):
    whole = example(*range(length))
    divided = divide_examples([example(98, 99), whole], max_length_tokens=4)
    assert divided.kept == [0] + [1] * (len(divided.examples) - 1)
    assert all(1 < len(piece["input_ids"]) <= 4 for piece in divided.examples)
    learned = [label for piece in divided.examples[1:] for label in piece["labels"][1:]]
    assert learned == whole["labels"][1:]
    assert divided.truncated == (length > 4)


def test_a_longer_example_can_stop_the_run():
    with pytest.raises(DataError) as caught:
        cut_examples(
            [example(1), example(1, 2, 3), example(1, 2, 3, 4)], max_length_tokens=2, source="x", longer="stop"
        )
    assert str(caught.value) == (
        "x: sample 2 has 3 tokens, more than data.max_length_tokens 2 (2 samples are longer, the longest has 4); set"
        " it to 4, or data.longer to cut or leave_out"
    )


def test_longer_examples_can_be_left_out():
    rows = [example(1, 2, 3, 4), example(5, 6, 7), example(*range(9))]
    short = cut_examples([rows[2], *rows[:2]], max_length_tokens=4, source="x", longer="leave_out")
    assert (short.examples, short.kept, short.truncated) == (rows[:2], [1, 2], 0)
    with pytest.raises(
        DataError,
        match=(
            r"x: .* leaves no samples: none has 2 tokens or fewer; set data\.max_length_tokens to 3 or"
            r" more"
        ),
    ):
        cut_examples(rows, max_length_tokens=2, source="x", longer="leave_out")


def test_an_example_that_was_not_cut_and_has_nothing_to_learn_is_told_by_its_own_number():
    rows = [example(*range(9)), example(1, 2, 3), example(1, 2, 3, learned_from=3)]
    with pytest.raises(DataError, match=r"x: sample 3 has no token to learn from; set data.loss_on to sequence"):
        cut_examples(rows, max_length_tokens=4, source="x", longer="leave_out")


def test_an_empty_set_is_refused():
    with pytest.raises(DataError, match="x: no samples; give at least one"):
        cut_examples([], max_length_tokens=8, source="x")


def test_a_batch_is_padded_on_the_right_masked_and_unlabelled_there():
    batch = collate([example(1, 2, 3, learned_from=1), example(4)], pad_token_id=9, pad_to_multiple_of=4)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 9], [4, 9, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 2, 3, -100], [4, -100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert all(value.dtype == torch.int64 for value in batch.values())
    assert collate([example(1, 2, 3)], pad_token_id=9)["input_ids"].shape == (1, 3)


def test_the_loss_of_a_padded_batch_is_that_of_its_tokens(tiny_llama):
    rows = [example(5, 6, 7, 8, 9), example(10, 11, 12)]
    single = [tiny_llama(**collate([row], pad_token_id=0)).loss.item() for row in rows]
    batch = tiny_llama(**collate(rows, pad_token_id=0)).loss.item()
    assert batch == pytest.approx((single[0] * 4 + single[1] * 2) / 6, abs=1e-5)


def test_the_end_token_pads_where_there_is_no_padding_token(tiny_tokenizer):
    class Without:
        pad_token_id = None
        eos_token_id = 7

    assert pad_token_id(tiny_tokenizer) == tiny_tokenizer.pad_token_id
    assert pad_token_id(Without()) == end_token_id(Without()) == 7


def test_a_tokenizer_without_an_end_token_is_refused():
    class Without:
        pad_token_id = eos_token_id = None

    with pytest.raises(DataError, match="the tokenizer has no end token; set its eos_token"):
        pad_token_id(Without())


def test_a_loss_near_the_ends_needs_the_logits_there_only(tiny_llama):
    rows = [example(5, 6, 7, 8, 9, learned_from=3), example(11, 12, 13, 14, 15, 16, 17, learned_from=6)]
    batch = collate(rows, pad_token_id=0, at_end=True)
    assert batch["logits_to_keep"] == 3
    assert batch["labels"].shape == (2, 3)
    assert tiny_llama(**batch).logits.shape[1] == 3
    expected = tiny_llama(**collate(rows, pad_token_id=0)).loss.item()
    assert tiny_llama(**batch).loss.item() == pytest.approx(expected, abs=1e-6)


def test_a_loss_on_everything_keeps_all_logits():
    rows = [example(5, 6, 7), example(11, 12)]
    batch, plain = collate(rows, pad_token_id=0, at_end=True), collate(rows, pad_token_id=0)
    assert batch.keys() == plain.keys()
    assert all(torch.equal(batch[name], plain[name]) for name in plain)


def test_positions_in_a_batch_padded_on_the_left_count_from_each_rows_start():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)).double().eval()
    with torch.no_grad():
        model.transformer.wpe.weight.mul_(20)
    rows = [example(5, 6, 7, 8, 9, learned_from=3), example(11, 12, 13, 14, 15, 16, 17, learned_from=6)]
    batch = collate(rows, pad_token_id=0, at_end=True)
    assert batch["attention_mask"].tolist() == [[0, 0, 1, 1, 1, 1, 1], [1] * 7]
    assert batch["position_ids"][0, 2:].tolist() == [0, 1, 2, 3, 4]
    assert batch["position_ids"][1].tolist() == [*range(7)]
    expected = model(**collate(rows, pad_token_id=0)).loss.item()
    assert model(**batch).loss.item() == pytest.approx(expected, abs=1e-5)
    assert model(**batch | {"position_ids": None}).loss.item() != pytest.approx(expected, abs=1e-2)  # it would be seen
