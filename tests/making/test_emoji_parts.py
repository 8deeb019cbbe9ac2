import random
from collections import Counter

import pytest
import torch

from making.emoji_parts import IDENTIFIERS, MAX_TOKENS, Shape, embedded, networks, tokenizer, words
from making.emoji_scenes import random_prompt, random_scene, trained_names
from moslora.emoji import sprites
from moslora.emoji.subjects import IDENTIFIER, evaluation_scenes, subject_prompt

TINY = Shape(channels=(32, 32, 32), text_widths=(16, 32), text_layers=2, head_width=16)


@pytest.fixture(scope="module")
def vocabulary():
    return tokenizer()


def test_every_word_of_a_prompt_is_one_token(vocabulary):
    for word in words():
        start, _, end = vocabulary(word).input_ids
        assert (start, end) == (vocabulary.bos_token_id, vocabulary.eos_token_id), word
    assert vocabulary.decode(vocabulary("a sks dog").input_ids, skip_special_tokens=True).strip() == "a sks dog"


def test_other_words_are_spelled_not_taken_for_the_end_of_the_text(vocabulary):
    ids = vocabulary("zyzzyva").input_ids
    assert len(ids) > 3
    assert vocabulary.eos_token_id not in ids[:-1]


def test_no_prompt_is_longer_than_the_tokens_there_are(vocabulary):
    scenes = [random_scene(number, 5) for number in range(300)]
    scenes += [scene for name in sprites.SUBJECTS for scene in evaluation_scenes(name)]
    prompts = [scene.prompt() for scene in scenes] + [subject_prompt(scene) for scene in scenes[300:]]
    assert max(len(vocabulary(prompt).input_ids) for prompt in prompts) <= MAX_TOKENS


def test_two_prompts_pool_differently(vocabulary):
    torch.manual_seed(0)
    parts = networks(TINY, vocabulary)
    ids = vocabulary(["a dog", "a cat"], padding="max_length", max_length=MAX_TOKENS, return_tensors="pt").input_ids
    text, pooled = embedded(parts, ids)
    assert text.shape == (2, MAX_TOKENS, 48)
    assert pooled.shape == (2, 32)
    assert (pooled[0] - pooled[1]).abs().max() > 0.1


def test_base_training_meets_neither_the_subjects_nor_their_identifiers():
    assert not set(trained_names()) & set(sprites.SUBJECTS)
    everything = Counter(each.class_word for each in sprites.concepts())
    subjects = Counter(sprites.concept(name).class_word for name in sprites.SUBJECTS)
    classes = Counter(sprites.concept(name).class_word for name in trained_names())
    assert classes == {word: everything[word] - number for word, number in subjects.items()}
    assert classes.total() == len(set(trained_names())) == 173
    draw = random.Random(0)
    prompts = [random_prompt(random_scene(number, 0), draw) for number in range(2_000)]
    said = {word.strip(",") for prompt in prompts for word in prompt.split()}
    assert IDENTIFIER in IDENTIFIERS
    assert not said & {*IDENTIFIERS, *sprites.SUBJECTS}
    assert said >= {sprites.concept(name).class_word for name in sprites.SUBJECTS}
