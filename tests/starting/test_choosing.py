import dataclasses

import pytest

from moslora.data.columns import Shape
from moslora.starting.choosing import (
    Choice,
    counted,
    length_settings,
    model_settings,
    pieces,
    targets,
    training_settings,
)
from moslora.starting.machine import Footprint, Machine, samples_at_once, this_machine
from moslora.starting.sources import Sources

SMALL = Footprint(
    parameters=135_000_000,
    trainable=3_000_000,
    layers=30,
    width=576,
    inner_width=1536,
    attention_heads=9,
    vocabulary=49152,
    bytes_a_number=2,
)
LARGE = dataclasses.replace(SMALL, parameters=8_000_000_000, layers=32, width=4096, inner_width=14336)
ROOMY = Machine(cores=8, free_bytes=64 << 30)


def lengths_chosen(lengths: list[int], *, is_text: bool = False, positions: int = 8192) -> dict:
    choice = Choice()
    length_settings(choice, sorted(lengths), is_text=is_text, is_on_cpu=True, positions=positions)
    return choice.settings["data"]


def training_chosen(
    samples: int, *, machine: Machine = ROOMY, footprint: Footprint = SMALL, tokens: int = 256, **told: dict
) -> dict:
    choice = Choice.of({**told, "data": {"max_length_tokens": tokens, **told.get("data", {})}})
    training_settings(choice, samples=samples, footprint=footprint, machine=machine)
    return choice.settings["data"] | choice.settings["training"]


def test_no_sample_is_lost_where_all_are_about_as_long():
    assert lengths_chosen([100] * 99 + [190]) == {"max_length_tokens": 192}


def test_one_sample_far_longer_than_the_others_does_not_set_the_length():
    assert lengths_chosen([100] * 199 + [900]) == {"max_length_tokens": 104, "longer": "leave_out"}


def test_the_length_is_not_above_what_the_model_reads_nor_the_machine_bears():
    assert lengths_chosen([5000] * 10 + [10])["max_length_tokens"] == 1024
    assert lengths_chosen([700] * 10, positions=512)["max_length_tokens"] == 512


def test_long_texts_are_divided_and_never_left_out():
    assert lengths_chosen([90_000], is_text=True) == {"max_length_tokens": 1024, "packing": True}


@pytest.mark.parametrize(
    ("lengths", "more", "longer", "told"),
    [
        ([40] * 18 + [90, 99], {}, "leave_out", "2 of 20 are longer and will be left out"),
        ([40] * 18 + [90, 99], {"longer": "cut"}, "cut", "2 of 20 are longer and will be cut"),
        ([90, 99], {}, None, "2 of 2 are longer and will be cut"),  # none would be left
        ([40, 50, 99], {"max_length_tokens": 99}, None, ""),
    ],
)
def test_a_length_that_is_given_says_how_many_are_longer_and_what_becomes_of_them(
    lengths: list[int], more: dict, longer: str | None, told: str
):
    choice = Choice.of({"data": {"max_length_tokens": 64, **more}})
    kept = length_settings(choice, lengths, is_text=False, is_on_cpu=True, positions=8192)
    assert choice.settings["data"].get("longer") == longer
    assert kept == (0.9 if longer == "leave_out" else 1)
    reason = choice.reasons["data.max_length_tokens"]
    assert reason == "; ".join(
        ["given with --set", ", ".join(filter(None, [told, "the longest sample has 99 tokens"]))]
    )


def test_a_length_given_for_texts_says_how_many_are_divided():
    choice = Choice.of({"data": {"max_length_tokens": 64}})
    length_settings(choice, [10, 64, 65, 900], is_text=True, is_on_cpu=True, positions=8192)
    assert "; 2 of 4 are longer and will be divided, the lon" in choice.reasons["data.max_length_tokens"]
    assert "longer" not in choice.settings["data"]


def test_a_long_text_counts_by_its_pieces():
    sources = Sources(["book.txt"], None, 1, Shape("text"))
    assert pieces([90_000], sources, tokens=1000) == 90
    many = Sources(["texts.jsonl"], None, 40, Shape("text"))
    assert pieces([500] * 10, many, tokens=1000) == 20  # ten of forty were measured


@pytest.mark.parametrize(("samples", "batch", "epochs"), [(5, 1, 10), (60, 8, 9), (5000, 16, 3)])
def test_few_samples_are_seen_more_often_in_smaller_batches(samples: int, batch: int, epochs: int):
    found = training_chosen(samples)
    assert (found["batch_size"], found["epochs"]) == (batch, epochs)


@pytest.mark.parametrize(("samples", "held_out"), [(19, None), (60, 6), (100_000, 200)])
def test_a_tenth_is_kept_to_validate_on_of_samples_that_are_not_very_few_or_many(samples: int, held_out: int | None):
    found = training_chosen(samples)
    assert found.get("validation_samples") == held_out
    assert ("keep_best" in found) == (held_out is not None)


def test_what_is_told_decides_what_goes_with_it():
    steps = training_chosen(500, training={"max_steps": 40, "batch_size": 6, "warmup_steps": 0})
    assert "epochs" not in steps
    assert "warmup_ratio" not in steps
    assert (steps["micro_batch_size"], steps["evaluate_every_steps"]) == (6, 5)
    shared = training_chosen(500, data={"validation_share": 0.2})
    assert "validation_samples" not in shared
    assert shared["keep_best"]
    assert "keep_best" not in training_chosen(500, data={"validation_samples": 0})


def test_an_option_that_another_method_lacks_is_not_chosen_for_it():
    choice = Choice.of({"adapter": {"method": "lora", "r": 4}})
    model_settings(choice, "smollm2", footprint=SMALL, layer_names=["a.b"])
    adapter = choice.settings["adapter"]
    assert "mixer" not in adapter
    assert (adapter["method"], adapter["r"], adapter["target_modules"]) == ("lora", 4, "all-linear")


def test_less_memory_means_fewer_samples_at_once_and_then_checkpointing():
    def at(gigabytes: int) -> tuple[int, bool]:
        machine = Machine(8, gigabytes << 30)
        found = training_chosen(5000, machine=machine, footprint=LARGE, tokens=1024)
        return found["micro_batch_size"], found.get("gradient_checkpointing", False)

    assert at(400) == (16, False)
    few, checkpointed = at(60)
    assert 1 <= few < 16
    assert not checkpointed
    assert at(24)[1]


def test_a_machine_that_is_too_small_is_said_to_be():
    choice = Choice({"data": {"max_length_tokens": 1024}})
    training_settings(choice, samples=500, footprint=LARGE, machine=Machine(2, 4 << 30))
    assert choice.reasons["training.micro_batch_size"].endswith("IT MAY NOT FIT")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_what_fits_at_once_divides_the_batch_and_is_the_most_that_does(checkpointing: bool):
    free = 10e9
    found = samples_at_once(LARGE, batch_size=12, tokens=64, free_bytes=free * 10, checkpointing=checkpointing)
    assert found == 12
    needed = [SMALL.step_bytes(samples=n, tokens=512, checkpointing=checkpointing) for n in range(1, 13)]
    assert needed == sorted(needed)
    at_once = samples_at_once(SMALL, batch_size=12, tokens=512, free_bytes=needed[4] / 0.8, checkpointing=checkpointing)
    assert at_once == 4  # five fit, and five do not divide twelve


def test_checkpointing_and_four_bits_need_less():
    def needed(footprint: Footprint, checkpointing: bool = False) -> float:
        return footprint.step_bytes(samples=4, tokens=512, checkpointing=checkpointing)

    assert needed(LARGE, True) < needed(LARGE)
    assert needed(dataclasses.replace(LARGE, is_quantised=True)) < needed(LARGE)


def test_the_papers_layers_are_taken_where_the_model_has_them():
    assert targets(["model.layers.0.attn.c_attn"]) == "all-linear"
    names = [f"model.layers.0.{name}" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")]
    assert targets(names) == ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]


def test_this_machine_has_cores_and_memory():
    machine = this_machine()
    assert machine.cores >= 1
    assert machine.free_bytes > 1e8


@pytest.mark.parametrize(("number", "text"), [(134_515_008, "135 million"), (8e9, "8 billion"), (102_720, "102,720")])
def test_parameters_are_counted_as_people_do(number: float, text: str):
    assert counted(number) == text
