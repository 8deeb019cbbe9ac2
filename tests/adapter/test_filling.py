"""An adapter without its tensors computes nothing and leaves everything else alone; a filled one shows no trace."""

import copy
import dataclasses
import pickle

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from moslora import MosloraConfig, MosloraError, fold, save_merged
from moslora.adapter.filling import Unfilled

WEIGHTS = "adapter_model.safetensors"
REFUSED = "adapter 'default' was added to be loaded from a file, and its tensors are missing"


@pytest.fixture
def good(trained, tmp_path):
    trained().save_pretrained(tmp_path / "good")
    return tmp_path / "good"


@pytest.fixture
def broken(good, tmp_path):
    """The same adapter without its mixers."""
    folder = tmp_path / "broken"
    PeftConfig.from_pretrained(good).save_pretrained(str(folder))
    tensors = load_file(good / WEIGHTS)
    save_file({key: tensor for key, tensor in tensors.items() if "lora_mixer" not in key}, folder / WEIGHTS)
    return folder


@pytest.fixture
def unfilled(good, make_base):
    return get_peft_model(make_base(), PeftConfig.from_pretrained(good))


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_an_adapter_without_its_tensors_does_not_run(unfilled, logits):
    with pytest.raises(MosloraError, match=REFUSED):
        logits(unfilled)


@pytest.mark.parametrize("use", ["fold", "save", "merge", "merge_and_unload", "save_merged", "combine"])
def test_nothing_is_made_of_an_adapter_without_its_tensors(unfilled, use, tmp_path):
    uses = {
        "fold": lambda: fold(unfilled),
        "save": lambda: unfilled.save_pretrained(tmp_path / "again"),
        "merge": unfilled.merge_adapter,
        "merge_and_unload": unfilled.merge_and_unload,
        "save_merged": lambda: save_merged(unfilled, tmp_path / "merged"),
        "combine": lambda: unfilled.add_weighted_adapter(["default"], [1.0], "copy", combination_type="cat"),
    }
    with pytest.raises(MosloraError, match=REFUSED):
        uses[use]()
    assert not (tmp_path / "again" / WEIGHTS).exists()
    assert not (tmp_path / "merged").exists()


def test_no_adapter_is_merged_beside_one_without_its_tensors(trained, good):
    model = trained()
    model.add_adapter("second", PeftConfig.from_pretrained(good))
    weight = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
    before = weight.clone()
    with pytest.raises(MosloraError, match="adapter 'second' was added to be loaded from a file"):
        model.merge_adapter(["default", "second"])
    assert torch.equal(weight, before)


def test_a_refused_file_leaves_a_peft_model_as_it_was(trained, good, broken, logits):
    model = trained()
    expected = logits(model)
    with pytest.raises(MosloraError, match="tensors are missing"):
        model.load_adapter(broken, adapter_name="second")
    close(logits(model), expected)
    model.set_adapter("second")
    with pytest.raises(MosloraError, match="adapter 'second' was added to be loaded from a file"):
        logits(model)
    model.load_adapter(good, adapter_name="second")
    close(logits(model), expected)
    model.set_adapter("default")
    model.delete_adapter("second")
    with pytest.raises(MosloraError, match="tensors are missing"):
        model.load_adapter(broken, adapter_name="second")
    model.delete_adapter("second")
    close(logits(model), expected)
    model.load_adapter(good, adapter_name="second")
    model.set_adapter("second")
    close(logits(model), expected)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute", "ignore:Adapter second was active")
@pytest.mark.parametrize("is_fresh", [False, True], ids=["saved configuration", "fresh configuration"])
def test_a_refused_file_leaves_a_transformers_model_as_it_was(trained, good, broken, load_base, logits, is_fresh):
    expected = logits(trained())
    model = load_base()
    model.load_adapter(str(good))
    tensors = {key.removeprefix("base_model.model."): tensor for key, tensor in load_file(broken / WEIGHTS).items()}
    fresh = dataclasses.replace(PeftConfig.from_pretrained(broken))
    source = {"adapter_state_dict": tensors, "peft_config": fresh} if is_fresh else {"peft_model_id": str(broken)}
    with pytest.raises(MosloraError, match="tensors are missing"):
        model.load_adapter(**source, adapter_name="second")
    with pytest.raises(MosloraError, match="adapter 'second' was added to be loaded from a file"):
        logits(model)
    model.set_adapter("default")
    close(logits(model), expected)
    model.delete_adapter("second")
    close(logits(model), expected)
    model.load_adapter(str(good), adapter_name="second")
    close(logits(model), expected)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_a_base_whose_adapter_was_refused_takes_a_good_one(trained, good, broken, load_base, logits):
    base = load_base()
    with pytest.raises(MosloraError, match="tensors are missing"):
        PeftModel.from_pretrained(base, broken)
    close(logits(PeftModel.from_pretrained(base, good)), logits(trained()))


def test_a_refused_file_does_not_touch_a_trained_adapter(trained, broken, logits):
    model = trained()
    expected = logits(model)
    with pytest.raises(MosloraError, match="tensors are missing"):
        model.load_adapter(broken, adapter_name="default", is_trainable=True)
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("way", ["peft", "transformers"])
def test_a_loaded_model_is_pickled_copied_and_compiled_before_it_runs(good, load_base, ids, trained, logits, way):
    expected = logits(trained())
    base = load_base()
    if way == "transformers":
        base.load_adapter(str(good))
    model = base if way == "transformers" else PeftModel.from_pretrained(base, good)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())
    close(logits(pickle.loads(pickle.dumps(model))), expected)
    close(logits(copy.deepcopy(model)), expected)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        close(compiled(input_ids=ids).logits, expected)


def test_an_adapter_without_its_tensors_stays_so_in_copies(unfilled, logits):
    for same in (copy.deepcopy(unfilled), pickle.loads(pickle.dumps(unfilled))):
        with pytest.raises(MosloraError, match=REFUSED):
            logits(same)


def test_a_filled_adapter_has_its_own_variant_again(good, load_base):
    model = PeftModel.from_pretrained(load_base(), good)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    assert not isinstance(layer.lora_variant["default"], Unfilled)


def test_a_copied_configuration_is_a_fresh_one(good, make_base, load_base, logits):
    used = PeftModel.from_pretrained(load_base(), good).peft_config["default"]
    read = PeftConfig.from_pretrained(good)
    for config in (used, read):
        copies = dataclasses.replace(config, r=4), MosloraConfig(**config.to_dict())
        assert all(one.base_model_config == config.base_model_config for one in copies)
        for one in copies:
            logits(get_peft_model(make_base(), one))
    with pytest.raises(MosloraError, match=REFUSED):
        logits(get_peft_model(make_base(), read))
    logits(get_peft_model(make_base(), used))
