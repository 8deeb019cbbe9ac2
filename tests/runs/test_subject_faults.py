"""Faults that trainers of text-to-image adapters are known for, each with the tests that keep it out.

 1  a file loads, and none of its keys      adapter::test_keys_of_the_adapter_folder_do_nothing_in_diffusers_...
                                            adapter::test_every_key_of_the_file_is_in_the_pipeline_with_the_...
 2  alpha is not saved                      adapter::test_an_alpha_other_than_the_rank_is_in_the_numbers_so_that_...
 3  alpha in a header that nobody reads     adapter::test_a_reader_without_the_header_draws_the_same_latents
 4  mixed ranks scaled by the keys' order   adapter::test_mixed_ranks_have_their_own_scale_in_any_order_of_keys
 5  text-encoder keys under a new name      adapter::test_exported_names_are_those_of_the_frozen_list
 6  a text encoder's keys are dropped       adapter::test_an_adapter_of_a_text_encoder_alone_reaches_the_picture
 7  DoRA's keys are skipped                 adapter::test_what_a_file_cannot_hold_is_refused_with_the_next_step
 8  min-SNR beside prior preservation       training::test_the_loss_is_the_subjects_mean_and_the_class_mean_...
 9  class pictures with foreign sizes       training::test_each_picture_has_its_own_sizes_the_class_too
10  mirrored after the cut, sizes swapped   training::test_a_cut_is_mirrored_first_so_that_its_place_is_true
11  latents kept beside other captions      training::test_kept_latents_and_captions_belong_to_their_pictures_...
12  a resumed run trains nothing            runs::test_an_interrupted_run_goes_on_to_the_same_weights
13  a new rate is ignored after resuming    runs::test_other_settings_are_refused_when_a_run_goes_on
14  validation changes dtypes               runs::test_pictures_drawn_while_training_change_nothing_in_it
                                            painting::test_drawing_leaves_the_pipeline_and_the_random_state_as_they_were
15  latents that are no numbers             training::test_latents_that_are_not_finite_name_the_file
16  a text encoder is asked for and rests   runs::test_each_part_that_is_asked_for_moves
17  weights of zero                         runs::test_settings_that_cannot_be_meant_are_refused_before_weights_load
18  an offset of the noise breaks colours   runs::test_noise_is_standard_normal (there is no such setting)
19  fusing cannot be undone                 adapter::test_an_export_changes_neither_the_model_nor_the_pipeline
                                            adapter::test_unloading_restores_every_bit_of_the_base
20  an adapter's weight is ignored          adapter::test_weight_0_is_the_base_bit_for_bit
                                            adapter::test_two_halves_of_one_file_are_the_whole
21  a camera's rotation is lost             training::test_a_cameras_rotation_is_applied
22  a picture depends on its batch          painting::test_a_picture_does_not_depend_on_its_batch
23  judges see pairs in one order           (judging is no part of a run)
"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moslora.errors import ConfigError
from moslora.runs.recipe import load_recipe
from moslora.runs.run import run_recipe
from moslora.training.noise import draws_of

TESTS = Path(__file__).parents[1]
NAMED = re.findall(r"(\w+)::(test_\w+)(\.\.\.)?", str(__doc__))


@pytest.mark.parametrize(("folder", "name", "is_cut"), NAMED)
def test_each_fault_has_its_test(folder: str, name: str, is_cut: str):
    source = "\n".join(path.read_text(encoding="utf-8") for path in sorted((TESTS / folder).glob("test_*.py")))
    assert re.search(rf"^def {name}{'' if is_cut else '[(]'}", source, flags=re.MULTILINE)


def test_noise_is_standard_normal():
    """Over many visits, without an offset, and not the same for two of them."""
    noise = torch.stack([torch.randn(4, 8, 8, generator=draws_of(42)(visit)) for visit in range(400)])
    assert noise.mean().abs() < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert noise.mean(dim=(2, 3)).std() == pytest.approx(1 / 8, abs=0.01)  # of a channel's mean over 64 numbers
    assert noise[0].flatten().dot(noise[1].flatten()).abs() / 256 < 0.3


def test_other_settings_are_refused_when_a_run_goes_on(tmp_path: Path, write_subject: Callable[..., Path]):
    run_recipe(load_recipe(write_subject()), tmp_path / "run", progress=False)
    changed = load_recipe(write_subject(training={"learning_rate": 1e-5}))
    with pytest.raises(ConfigError, match=r"training\.learning_rate was 0\.01, is 1e-05"):
        run_recipe(changed, tmp_path / "run", resume=True, progress=False)
