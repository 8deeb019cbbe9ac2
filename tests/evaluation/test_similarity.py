import numpy as np
import pytest

from moslora.comparison.statistics import Questions, compare_arms
from moslora.errors import DataError
from moslora.evaluation.answers import Answer
from moslora.evaluation.recording import evaluation_record
from moslora.evaluation.scores import accuracy
from moslora.evaluation.similarity import (
    STEP,
    Span,
    copies,
    copy_threshold,
    drift,
    measured,
    nearest_photo,
    prompt_similarity,
    similarity_of_photos,
    subject_similarity,
)


def unit(*degrees: float) -> np.ndarray:
    """Vectors of length 1 in a plane, by their angles."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def cosine(degrees: float) -> float:
    return float(np.cos(np.radians(degrees)))


def test_a_picture_is_as_like_the_subject_as_it_is_to_its_photos_on_average() -> None:
    found = subject_similarity(unit(0, 90, 180), unit(0, 60))
    assert found == pytest.approx([(1 + 0.5) / 2, (0 + cosine(30)) / 2, (-1 - 0.5) / 2])
    assert subject_similarity(unit(33), unit(33)) == pytest.approx([1])


def test_each_picture_is_compared_with_its_own_prompt() -> None:
    assert prompt_similarity(unit(0, 10, 20), unit(0, 70, 110)) == pytest.approx([1, 0.5, 0])
    with pytest.raises(ValueError):
        prompt_similarity(unit(0, 10), unit(0, 10, 20))


def test_equal_pictures_have_no_drift_and_opposite_ones_the_most() -> None:
    assert drift(unit(0, 17, 0), unit(0, 17, 180)) == pytest.approx([0, 0, 2])


def test_the_nearest_photo_is_named_with_its_cosine() -> None:
    found = nearest_photo(unit(5, 80, 50), unit(0, 45, 90))
    assert found.photo.tolist() == [0, 2, 1]
    assert found.cosine == pytest.approx([cosine(5), cosine(10), cosine(5)])


def test_copies_are_pictures_nearer_than_held_out_photos() -> None:
    photos, held_out = unit(0, 40), unit(12, 60)
    threshold = copy_threshold(photos, held_out, percentile=100)
    assert threshold == pytest.approx(cosine(12))
    assert copies(unit(11, 13, 40, 20), photos, threshold=threshold).tolist() == [True, False, True, False]
    assert copy_threshold(photos, held_out, percentile=0) == pytest.approx(cosine(20))


def test_photos_are_held_against_each_other_where_none_is_held_out() -> None:
    photos = unit(0, 10, 40)
    assert similarity_of_photos(photos) == pytest.approx(
        [(cosine(10) + cosine(40)) / 2, (cosine(10) + cosine(30)) / 2, (cosine(40) + cosine(30)) / 2]
    )
    assert copy_threshold(photos, percentile=100) == pytest.approx(cosine(10))
    assert copy_threshold(photos, percentile=0) == pytest.approx(cosine(30))
    for alone in (lambda: copy_threshold(unit(0)), lambda: similarity_of_photos(unit(0))):
        with pytest.raises(DataError, match="the subject has 1 photo and none held out; give a second one"):
            alone()


def test_a_value_stands_between_floor_and_ceiling() -> None:
    span = Span(floor=0.2, ceiling=0.7)
    assert [span.place(value) for value in (0.2, 0.45, 0.7, 0.95, 0.1)] == pytest.approx([0, 0.5, 1, 1.5, -0.2])
    with pytest.raises(DataError) as refusal:
        Span(floor=0.5, ceiling=0.5).place(0.6)
    assert "held-out photos are no more like the subject (0.500) than what the base draws (0.500)" in str(refusal.value)


PROMPTS, SEEDS = ["a cat", "a cat", "a dog", "a dog"], [1, 2, 1, 2]


def test_a_value_becomes_the_credit_of_a_prompt_with_a_seed() -> None:
    found = measured([0.25, 1.0000001, -0.1, 0.5], PROMPTS, SEEDS)
    assert [one.credit for one in found] == [0.25, 1, 0, 0.5]
    assert [one.index for one in found] == [0, 1, 2, 3]
    assert [one.expected for one in found] == [
        "a cat · seed 1",
        "a cat · seed 2",
        "a dog · seed 1",
        "a dog · seed 2",
    ]
    assert [one.group for one in found] == PROMPTS
    assert [Answer.from_dict(one.to_dict()) for one in found] == found


def test_prompts_are_groups_only_where_several_have_several_seeds() -> None:
    assert {one.group for one in measured([0.1, 0.2], ["a cat", "a cat"], [1, 2])} == {None}
    assert {one.group for one in measured([0.1, 0.2], ["a cat", "a dog"], [1, 1])} == {None}


def test_a_record_has_the_mean_and_an_interval_for_new_prompts() -> None:
    values = [0.50, 0.52, 0.70, 0.72, 0.60, 0.62]
    prompts, seeds = [*PROMPTS, "a can", "a can"], [*SEEDS, 1, 2]
    answers = measured(values, prompts, seeds)
    record = evaluation_record(
        answers, task="likeness", when="after", scoring="pictures", prompt=None, wall_seconds=0, rule="cosine"
    )
    assert record.accuracy == pytest.approx(np.mean(values))
    assert (record.total, record.groups) == (6, 3)
    assert record.scored is not None
    assert record.scored.rule == "cosine"
    assert not record.scored.is_counted
    alone = accuracy(measured(values, [f"{prompt} {seed}" for prompt, seed in zip(prompts, seeds, strict=True)], seeds))
    assert record.low < alone.interval[0] < record.accuracy < alone.interval[1] < record.high


def test_a_difference_on_every_picture_is_found_by_the_paired_statistics() -> None:
    rng = np.random.default_rng(0)
    base, prompts = rng.uniform(0.4, 0.6, 40), [f"prompt {number}" for number in range(40)]

    def credits(shift: float) -> dict[str, np.ndarray]:
        values = base + shift + rng.normal(0, 0.01, 40)
        return {"likeness": np.array([one.credit for one in measured(values, prompts, [1] * 40)])}

    scores = {arm: {seed: credits(shift) for seed in range(3)} for arm, shift in (("lora", 0.0), ("moslora", 0.05))}
    asked = {"likeness": Questions(40, steps=np.full(40, STEP))}
    _, differences = compare_arms(scores, baseline="lora", tasks=["likeness"], questions=asked)
    difference = next(one for one in differences if one.task == "likeness")
    assert difference.mean == pytest.approx(0.05, abs=0.01)
    assert difference.p_value is not None
    assert difference.p_value < 0.01


def test_zeros_and_ones_are_counted() -> None:
    found = measured(np.array([True, False, True, True]), PROMPTS, SEEDS, step=1.0)
    assert [one.credit for one in found] == [1, 0, 1, 1]
    assert accuracy(found).correct == 3
    assert accuracy(found).mean is None


def test_a_withheld_picture_is_worth_nothing_and_counts_as_unread() -> None:
    found = measured([0.5, 0.9, 0.5, 0.5], PROMPTS, SEEDS, is_read=[True, False, True, True])
    assert [one.is_read for one in found] == [True, False, True, True]
    assert found[1].credit == 0
    assert found[1].predicted is None


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="'a cat' was drawn with seed 1 twice; give each prompt different seeds"):
        measured([0.1, 0.2], ["a cat", "a cat"], [1, 1])
    with pytest.raises(DataError, match="the value of 'a dog' with seed 1 is not a number"):
        measured([0.1, np.nan], ["a cat", "a dog"], [1, 1])
    with pytest.raises(ValueError):
        measured([0.1], ["a cat", "a dog"], [1, 1])
