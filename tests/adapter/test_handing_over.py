"""What transformers' and PEFT's own ways of loading do with an adapter of ours, and leave alone of others."""

import pytest
import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_base_model_state_dict,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from peft.utils.other import ModulesToSaveWrapper
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from moslora import MosloraConfig, MosloraError, save_folded
from moslora.adapter.handing_over import LOADING_STEP

WEIGHTS = "adapter_model.safetensors"


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def rewrite(folder, change):
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def test_transformers_trains_what_the_configuration_trains_and_nothing_else(trained, load_base, tmp_path):
    model = trained(mixer="butterfly", modules_to_save=["lm_head"])
    model.save_pretrained(tmp_path)
    for is_trainable in (True, False):
        loaded = load_base()
        loaded.load_adapter(str(tmp_path), is_trainable=is_trainable)
        trainable = {f"base_model.model.{name}" for name, value in loaded.named_parameters() if value.requires_grad}
        expected = {name for name, value in model.named_parameters() if value.requires_grad}
        assert not any("lora_mixer" in name for name in trainable)
        assert trainable == (expected if is_trainable else set())


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_transformers_loads_plain_lora_beside_ours_as_it_does(trained, make_base, load_base, train, logits, tmp_path):
    trained().save_pretrained(tmp_path / "ours")
    torch.manual_seed(3)
    plain = train(get_peft_model(make_base(), LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])))
    plain.save_pretrained(tmp_path / "plain")
    model = load_base()
    model.load_adapter(str(tmp_path / "ours"), adapter_name="ours")
    model.load_adapter(str(tmp_path / "plain"), adapter_name="plain")
    model.set_adapter("plain")
    close(logits(model), logits(plain))


@pytest.mark.filterwarnings("ignore:Already found a `peft_config` attribute")
def test_peft_loads_saved_modules_of_plain_lora_beside_ours_as_it_does(make_base):
    plain = get_peft_model(make_base(), LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]))
    tensors = {key: tensor + 1 for key, tensor in get_peft_model_state_dict(plain).items()}
    model = get_peft_model(make_base(), MosloraConfig(target_modules=["v_proj"], modules_to_save=["lm_head"]), "ours")
    inject_adapter_in_model(LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]), model.get_base_model())
    set_peft_model_state_dict(model, tensors)
    head = model.base_model.model.lm_head
    assert torch.equal(head.modules_to_save["default"].weight, tensors["base_model.model.lm_head.weight"])
    assert torch.equal(head.modules_to_save["ours"].weight, head.original_module.weight)


def test_transformers_reads_a_pickle_of_tensors(trained, load_base, logits, tmp_path):
    model = trained()
    model.save_pretrained(tmp_path, safe_serialization=False)
    loaded = load_base()
    loaded.load_adapter(str(tmp_path), use_safetensors=False)
    close(logits(loaded), logits(model))


def test_nothing_stays_on_a_model_without_its_adapter(trained, make_base):
    model = get_peft_model(make_base(), MosloraConfig(target_modules=["q_proj"]))
    assert LOADING_STEP in model.get_base_model().__dict__
    assert LOADING_STEP not in model.unload().__dict__
    assert LOADING_STEP not in trained().merge_and_unload().__dict__


def test_saved_modules_stay_part_of_the_adapter_for_peft(trained):
    model = trained(modules_to_save=["lm_head"])
    assert isinstance(model.base_model.model.lm_head, ModulesToSaveWrapper)
    keys = set(get_base_model_state_dict(model))
    assert "lm_head.weight" in keys
    assert not any("modules_to_save" in key or "lora_" in key for key in keys)


def test_an_adapter_without_trained_tokens_lives_beside_one_with_them(trained, config, load_base, logits, tmp_path):
    model = trained(trainable_token_indices=[3, 5])
    expected = logits(model)
    model.add_adapter("second", config(mixer="orthogonal"))
    assert not any("token" in key for key in get_peft_model_state_dict(model, adapter_name="second"))
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(load_base(), tmp_path)
    loaded.load_adapter(tmp_path / "second", adapter_name="second")
    close(logits(loaded), expected)


def arguments(folder):
    return TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, max_steps=4, save_steps=2, report_to="none",
        use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip


@pytest.mark.parametrize("part", ["lora_mixer", "base_layer.bias", "score.weight"])
def test_the_trainer_does_not_resume_from_half_an_adapter(part, tmp_path, ids):
    def trainer():
        torch.manual_seed(0)
        base = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=320, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
                attention_bias=True,
            )
        )  # fmt: skip
        base.score = torch.nn.Linear(2, 2)
        config = MosloraConfig(r=2, target_modules=["q_proj"], bias="lora_only", modules_to_save=["score"])
        rows = [{"input_ids": row, "labels": row} for row in ids]
        return Trainer(model=get_peft_model(base, config), args=arguments(tmp_path), train_dataset=rows)

    trainer().train()
    checkpoint = tmp_path / "checkpoint-2"
    trainer().train(resume_from_checkpoint=str(checkpoint))
    rewrite(checkpoint, lambda tensors: {key: tensor for key, tensor in tensors.items() if part not in key})
    again = trainer()
    before = {name: tensor.clone() for name, tensor in again.model.state_dict().items()}
    with pytest.raises(MosloraError, match=rf"1 tensors are missing \(.*{part}"):
        again.train(resume_from_checkpoint=str(checkpoint))
    assert all(torch.equal(tensor, before[name]) for name, tensor in again.model.state_dict().items())


@pytest.mark.parametrize("way", ["peft", "transformers"])
@pytest.mark.parametrize("options", [{}, {"modules_to_save": ["lm_head"]}], ids=str)
def test_module_names_of_transformers_4_are_understood(way, options, tmp_path):
    def base():
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
        text = LlamaConfig(vocab_size=32, **sizes)
        vision = CLIPVisionConfig(image_size=28, patch_size=14, **sizes)
        return LlavaForConditionalGeneration(LlavaConfig(text_config=text, vision_config=vision, image_token_index=31))

    old_names = {
        "base_model.model.model.language_model.": "base_model.model.language_model.model.",
        "base_model.model.model.vision_tower.": "base_model.model.vision_tower.",
        "base_model.model.model.multi_modal_projector.": "base_model.model.multi_modal_projector.",
        "base_model.model.lm_head.": "base_model.model.language_model.lm_head.",
    }

    def old(key):
        prefix = next(name for name in old_names if key.startswith(name))
        return old_names[prefix] + key.removeprefix(prefix)

    torch.manual_seed(1)
    config = MosloraConfig(r=2, target_modules=["q_proj", "linear_1"], init_lora_weights=False, **options)
    model = get_peft_model(base(), config)
    model.save_pretrained(tmp_path)
    rewrite(tmp_path, lambda tensors: {old(key): tensor + 1 for key, tensor in tensors.items()})
    loaded = base()
    if way == "peft":
        loaded = PeftModel.from_pretrained(loaded, tmp_path)
    else:
        loaded.load_adapter(str(tmp_path))
    before, after = get_peft_model_state_dict(model), get_peft_model_state_dict(loaded)
    for key, tensor in before.items():
        name = key if way == "peft" else key.removeprefix("base_model.model.")
        assert torch.equal(after[name], tensor + 1)
    rewrite(tmp_path, lambda tensors: dict(list(tensors.items())[1:]))
    with pytest.raises(MosloraError, match="1 tensors are missing"):
        PeftModel.from_pretrained(base(), tmp_path)


@pytest.mark.filterwarnings(
    "ignore:Setting `save_embedding_layers` to `True`", "ignore:Model has `tie_word_embeddings=True`"
)
@pytest.mark.parametrize("is_tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(
    "options",
    [
        {"modules_to_save": ["embed_tokens", "lm_head"]},
        {"modules_to_save": ["embed_tokens"]},
        {"trainable_token_indices": [320, 321, 322]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {},
    ],
    ids=str,
)
def test_what_was_saved_after_new_tokens_loads_and_folds(options, is_tied, config, logits, tiny_llama, tmp_path):
    tiny_llama.config.tie_word_embeddings = is_tied
    tiny_llama.tie_weights()
    tiny_llama.save_pretrained(tmp_path / "base")

    def base(seed):
        model = LlamaForCausalLM.from_pretrained(tmp_path / "base")
        torch.manual_seed(seed)  # of the new rows, which only the adapter's file can make alike
        model.resize_token_embeddings(323)
        return model.eval()

    model = get_peft_model(base(1), config(init_lora_weights=False, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn_like(parameter))
    new = {"input_ids": torch.arange(311, 323)[None]}
    with torch.no_grad():
        expected = model.eval()(**new).logits
    model.save_pretrained(tmp_path / "adapter")
    by_transformers = base(3)
    by_transformers.load_adapter(str(tmp_path / "adapter"))
    save_folded(model, tmp_path / "folded", probe=new)
    ways = [PeftModel.from_pretrained(base(2), tmp_path / "adapter"), by_transformers]
    for loaded in (*ways, PeftModel.from_pretrained(base(4), tmp_path / "folded")):
        with torch.no_grad():
            torch.testing.assert_close(loaded.eval()(**new).logits, expected, rtol=1e-3, atol=1e-4)
