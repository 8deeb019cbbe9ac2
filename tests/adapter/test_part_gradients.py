"""Whether training reaches each part of a model: proven on gradients, with every tower and kind of checkpointing."""

import pytest
import torch
from transformers import Trainer, TrainingArguments

from moslora.adapter.part_gradients import CheckGradients, gradients_by_part
from moslora.adapter.part_layers import dead_modules, is_within
from moslora.adapter.parts import expand
from moslora.adapter.preparing import prepare
from moslora.errors import ConfigError

BOTH = {"parts": {"language": {"r": 4}, "vision": {"r": 4}}, "projector": "trained"}
EVERY_VISION_LAYER = {"target_modules": r".*vision_tower.*\.(q_proj|fc1)", "r": 4}


@pytest.fixture
def backward(pictured):
    def run(model, tower="clip"):
        batch = pictured(tower)
        model.train()
        model(**batch, labels=batch["input_ids"]).loss.backward()
        return model

    return run


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2"])
@pytest.mark.parametrize("checkpointing", [None, {"use_reentrant": True}, {"use_reentrant": False}], ids=str)
@pytest.mark.parametrize("method", ["moslora", "lora"])
def test_every_part_has_a_gradient(make_llava, parts, backward, tower, checkpointing, method):
    base = make_llava(tower)
    if checkpointing is not None:
        base.activation_checkpointing_enable(checkpointing)
        base.enable_input_require_grads()
    model = backward(prepare(base, method, expand(BOTH, parts, base, method=method)), tower)
    found = gradients_by_part(model, parts)
    assert [*found] == ["language", "vision", "projector"]
    assert {part: gradients.dead for part, gradients in found.items()} == dict.fromkeys(found, ())
    assert [len(gradients.alive) for gradients in found.values()] == [14, 12, 1]


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2"])
def test_the_modules_without_a_gradient_are_those_called_dead(make_llava, parts, backward, tower):
    base = make_llava(tower)
    dead = dead_modules(base, parts)
    model = backward(prepare(base, "lora", EVERY_VISION_LAYER), tower)
    found = gradients_by_part(model, parts)["vision"]
    assert all(any(is_within(name, prefix) for prefix in dead) for name in found.dead)
    assert not any(is_within(name, prefix) for name in found.alive for prefix in dead)
    assert {prefix for prefix in dead if any(is_within(name, prefix) for name in found.dead)} == {*dead}


def run_trainer(model, rows, folder, callback):
    settings = {"max_steps": 3, "per_device_train_batch_size": 1, "report_to": "none", "save_strategy": "no"}
    arguments = TrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **settings)
    Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[callback]).train()


@pytest.fixture
def rows(pictured):
    batch = pictured()
    return [{key: value[0] for key, value in batch.items()} | {"labels": batch["input_ids"][0]} for _ in range(4)]


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_reaches_every_part_goes_on(make_llava, parts, rows, tmp_path):
    base = make_llava()
    check = CheckGradients(parts)
    run_trainer(prepare(base, "moslora", expand(BOTH, parts, base, method="moslora")), rows, tmp_path, check)
    assert check.dead == {"language": (), "vision": (), "projector": ()}


@pytest.mark.filterwarnings("ignore")
def test_single_dead_modules_are_collected(make_llava, parts, rows, tmp_path):
    check = CheckGradients(parts, steps=2)
    run_trainer(prepare(make_llava(), "lora", EVERY_VISION_LAYER), rows, tmp_path, check)
    last = "model.vision_tower.encoder.layers.2"
    assert check.dead == {"vision": (f"{last}.self_attn.q_proj", f"{last}.mlp.fc1")}


@pytest.mark.filterwarnings("ignore")
def test_a_part_that_was_asked_for_and_is_not_reached_stops_the_training(make_llava, parts, rows, tmp_path):
    base = make_llava()
    model = prepare(base, "moslora", expand(BOTH, parts, base, method="moslora"))
    base.model.vision_tower.register_forward_hook(lambda _module, _inputs, output: cut_off(output))
    message = r"the vision part \(model.vision_tower\) has no gradient after 2 steps, so it would not be trained \(12"
    with pytest.raises(ConfigError, match=message):
        run_trainer(model, rows, tmp_path, CheckGradients(parts, steps=2))


def cut_off(output):
    output.hidden_states = tuple(state if state is None else state.detach() for state in output.hidden_states)
    return output


@pytest.mark.filterwarnings("ignore")
def test_a_first_batch_without_pictures_is_no_proof_against_the_vision_part(make_llava, parts, rows, tmp_path):
    words = rows[0]["input_ids"][-8:]
    base = make_llava()
    model = prepare(base, "moslora", expand(BOTH, parts, base, method="moslora"))
    check = CheckGradients(parts, steps=2)
    mixed = [{"input_ids": words, "labels": words}, rows[0]]
    feed(model, mixed, check)
    assert check.dead["vision"] == ()
    with pytest.raises(ConfigError, match="the vision part"):
        feed(model, mixed[:1], CheckGradients(parts))


def feed(model, batches, check):
    """What the trainer does with each batch, up to the step."""
    for row in batches:
        model.zero_grad()
        model(**{key: value[None] for key, value in row.items()}).loss.backward()
        check.on_pre_optimizer_step(None, None, None, model=model)


def test_a_model_without_an_adapter_is_judged_by_its_own_modules(make_llava, parts, backward):
    base = make_llava().requires_grad_(False)
    base.model.multi_modal_projector.requires_grad_(True)
    found = gradients_by_part(backward(base), parts)
    assert found["projector"].alive == (
        "model.multi_modal_projector.linear_1",
        "model.multi_modal_projector.linear_2",
    )
    assert torch.is_grad_enabled()
