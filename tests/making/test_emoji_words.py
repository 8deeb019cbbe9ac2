import torch

from making.emoji_parts import networks, tokenizer
from making.emoji_scenes import trained_names
from making.emoji_training import Settings
from making.emoji_words import _VALUES, school
from moslora.emoji import sprites
from tests.making.test_emoji_parts import TINY


def test_schooled_encoders_read_more_of_a_prompt_the_same_ones_from_the_same_seed_and_nothing_else_moves():
    vocabulary = tokenizer()
    torch.manual_seed(0)
    parts = networks(TINY, vocabulary)
    start = {name: value.clone() for name, value in parts.state_dict().items()}
    little = school(parts, vocabulary, seed=3, steps=20)
    parts.load_state_dict(start)
    more = school(parts, vocabulary, seed=3, steps=80)
    assert more > little + 0.15
    learned = {name: value.clone() for name, value in parts.state_dict().items()}
    parts.load_state_dict(start)
    assert school(parts, vocabulary, seed=3, steps=80) == more
    assert all(torch.equal(value, learned[name]) for name, value in parts.state_dict().items())
    moved = {name.split(".")[0] for name, value in learned.items() if not torch.equal(value, start[name])}
    assert moved == {"text_encoder", "text_encoder_2"}


def test_no_prompt_of_the_schooling_names_a_subject():
    assert not set(sprites.SUBJECTS) & set(_VALUES["concept"])
    assert set(_VALUES["concept"]) == set(trained_names())


def test_shifted_times_reach_over_the_schedule_and_crowd_at_its_noisy_end():
    shares = torch.arange(1000) / 1000
    assert (Settings(time_shift=1).times(shares) - torch.arange(1000)).abs().max() <= 1
    shifted = Settings(time_shift=3).times(shares)
    assert (shifted.min(), shifted.max()) == (0, 999)
    assert (shifted > 900).float().mean().item() > 0.24
