"""Chat templates that show pictures, as their makers' processors use them."""

import copy
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from moslora.data.chat import chat_example
from moslora.data.messages import Chat, read_chat
from moslora.data.picture_template import PictureTemplate
from moslora.errors import DataError
from tests.pictures import CHAT_TEMPLATE
from tests.vision_models import GEMMA_TEMPLATE, IDEFICS_TEMPLATE

TAGGED = (
    "{% for m in messages %}{{ m['role'] + ':' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|end|>' }}{% endgeneration %}{% else %}{{ m['content'] }}{% endif %}"
    "{% endfor %}"
)
PICTURES_FIRST = (  # as in the folders of LLaVA 1.5 at llava-hf
    "{% for m in messages %}{{ m['role'].upper() + ': ' }}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in m['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
QUESTION = "<image>\nWhat is this, and <image>\nthis?"


@pytest.fixture
def template(tiny_tokenizer: PreTrainedTokenizerFast) -> Any:
    """A template whose pictures are `token`."""

    def make(text: str, token: str = "<image>") -> PictureTemplate:
        tokenizer = copy.deepcopy(tiny_tokenizer)
        tokenizer.chat_template = text
        return PictureTemplate(tokenizer, token)

    return make


def chat(*said: str) -> Chat:
    turns = [{"role": ("user", "assistant")[turn % 2], "content": text} for turn, text in enumerate(said)]
    return read_chat({"messages": turns}, place="chat")


def learned(example: dict[str, list[int]], tokenizer: Any) -> str:
    return str(tokenizer.decode([label for label in example["labels"] if label >= 0]))


@pytest.mark.parametrize(
    ("text", "token", "start"),
    [
        (CHAT_TEMPLATE, "<image>", "<|start|>user\n[one]\nWhat is this, and [two]\nthis?<|end|>"),
        (CHAT_TEMPLATE, "[IMG]", "<|start|>user\n[one]\nWhat is this, and [two]\nthis?<|end|>"),
        (GEMMA_TEMPLATE, "<start_of_image>", "<|start|><|start|>user\n[one]What is this, and[two]this?<|end|>\n"),
        (PICTURES_FIRST, "<image>", "USER: [one]\n[two]\nWhat is this, and  this? ASSISTANT: a cat "),
        (IDEFICS_TEMPLATE, "<image>", "<|start|>User:[one]What is this, and [two]this?<end_of_utterance>\n"),
    ],
)
def test_pictures_stand_where_the_template_shows_them(template: Any, text: str, token: str, start: str):
    whole = template(text, token)
    shown = whole.showing(["[one]", "[two]"])
    found = chat(QUESTION, "a cat", "And now?", "a dog")
    rendered = shown.text(found.messages, place="chat")
    assert rendered.startswith(start)
    example = chat_example(found, shown, loss_on="response", place="chat")
    assert whole.tokenizer.decode(example["input_ids"]) == rendered
    answers = learned(example, whole.tokenizer)
    assert [answers.count(word) for word in ("a cat", "a dog", "[one]", "this", "now")] == [1, 1, 0, 0, 0]


def test_what_a_template_says_is_generated_moves_with_the_pictures(template: Any):
    whole = template(TAGGED).showing(["[the first of them]", "[two]"])
    found = chat("Say <|end|>", "a cat", QUESTION, "a dog", "And now?", "a bird")
    example = chat_example(found, whole, loss_on="response", place="chat")
    assert learned(example, whole.tokenizer) == "a cat<|end|>a dog<|end|>a bird<|end|>"


def test_a_text_that_names_the_token_of_pictures_itself_is_refused(template: Any):
    whole = template(GEMMA_TEMPLATE, "<start_of_image>").showing(["[one]"])
    said = chat("<image>\nWhat does <start_of_image> mean?", "a picture")
    with pytest.raises(DataError, match="chat: <start_of_image> stands 2 times in its text, for 1 pictures: take it"):
        whole.text(said.messages, place="chat")


def test_what_was_found_out_about_a_template_holds_for_all_its_chats(template: Any):
    whole = template(CHAT_TEMPLATE)
    whole.showing(["[one]"]).unshown["name"] = None
    assert whole.unshown == {"name": None}
    assert whole.pictures == ()


def test_a_template_that_prints_the_parts_as_they_are_takes_none(template: Any):
    assert not template("{% for m in messages %}{{ m['content'] }}{% endfor %}").takes_parts
    assert template(IDEFICS_TEMPLATE).takes_parts
