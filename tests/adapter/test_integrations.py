"""The stack people already use: Trainer, TRL, diffusers, torch.compile, checkpointing, autocast, hot-swap."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments

from moslora import MosloraConfig, save_folded


def close(actual, expected, tolerance=1e-5):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=tolerance)


def rows(count=12, seed=0):
    ids = torch.randint(3, 300, (count, 8), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": row, "labels": row} for row in ids]


def arguments(folder, **options):
    return TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=4, max_steps=4, learning_rate=1e-2, save_steps=2,
        report_to="none", use_cpu=True, disable_tqdm=True, dataloader_pin_memory=False, **options,
    )  # fmt: skip


def adapter_tensors(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items() if "lora_" in name}


def test_trainer_resumes_to_the_weights_of_an_uninterrupted_run(make_base, config, tmp_path):
    def trainer(folder):
        torch.manual_seed(3)
        model = get_peft_model(make_base(), config(lora_dropout=0.2))
        return Trainer(model=model, args=arguments(folder), train_dataset=rows())

    whole = trainer(tmp_path / "whole")
    whole.train()
    resumed = trainer(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-2"))
    expected, actual = adapter_tensors(whole.model), adapter_tensors(resumed.model)
    assert all(torch.equal(expected[name], actual[name]) for name in expected)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing. is deprecated")
def test_trl_trains_with_the_config_as_peft_config(load_base, config, tiny_tokenizer, tmp_path):
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict({"text": ["a small bird", "a big ship", "a red apple", "a cold lake"] * 2})
    options = trl.SFTConfig(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=2, report_to="none", use_cpu=True,
        bf16=False, disable_tqdm=True, dataloader_pin_memory=False, gradient_checkpointing=False,
    )  # fmt: skip
    trainer = trl.SFTTrainer(
        model=load_base(), args=options, train_dataset=data, peft_config=config(), processing_class=tiny_tokenizer
    )
    trainer.train()
    assert any("lora_mixer" in name and tensor.any() for name, tensor in adapter_tensors(trainer.model).items())
    trainer.save_model(str(tmp_path / "out"))
    model = PeftModel.from_pretrained(load_base(), tmp_path / "out")
    assert isinstance(model.peft_config["default"], MosloraConfig)


def test_transformers_adds_saves_loads_switches_and_deletes(make_base, config, train, logits, load_base, tmp_path):
    torch.manual_seed(7)
    model = make_base()
    base = logits(model)
    model.add_adapter(config(), adapter_name="mine")
    train(model)
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter")
    loaded = load_base()
    loaded.load_adapter(str(tmp_path / "adapter"), adapter_name="other")
    close(logits(loaded), expected)
    loaded.disable_adapters()
    close(logits(loaded), base)
    loaded.enable_adapters()
    close(logits(loaded), expected)
    loaded.delete_adapter("other")
    close(logits(loaded), base)


@pytest.mark.filterwarnings("ignore:.*torch_dtype.*", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_diffusers_model_takes_the_config(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4, norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=12, attention_head_dim=4,
    ).eval()  # fmt: skip
    inputs = {"sample": torch.randn(1, 4, 8, 8), "timestep": 3, "encoder_hidden_states": torch.randn(1, 5, 12)}
    before = unet(**inputs).sample.detach()
    unet.add_adapter(MosloraConfig(r=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"], mixer="orthogonal"))
    close(unet(**inputs).sample, before)
    optimiser = torch.optim.Adam([p for p in unet.parameters() if p.requires_grad], lr=0.05)
    for _ in range(3):
        unet(**inputs).sample.square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
    after = unet(**inputs).sample.detach()
    assert not torch.allclose(after, before, atol=1e-4)
    unet.disable_adapters()
    close(unet(**inputs).sample, before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("options", [{}, {"mixer_depth": 3}, {"lora_dropout": 0.3}], ids=str)
def test_compiled_without_a_graph_break(make_base, config, ids, options):
    torch._dynamo.reset()
    torch.manual_seed(7)
    model = get_peft_model(make_base(), config(**options)).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    eager = copy.deepcopy(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    if options.get("lora_dropout"):
        compiled.eval()
        eager.eval()
    loss, expected = compiled(input_ids=ids, labels=ids).loss, eager(input_ids=ids, labels=ids).loss
    close(loss, expected)
    loss.backward()
    expected.backward()
    gradients = {name: parameter.grad for name, parameter in eager.named_parameters() if parameter.requires_grad}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            close(parameter.grad, gradients[name])


def test_gradient_checkpointing_changes_no_gradient(make_base, config, ids):
    def gradients(checkpointing):
        torch.manual_seed(7)
        model = get_peft_model(make_base(), config(lora_dropout=0.2)).train()
        if checkpointing:
            model.enable_input_require_grads()
            model.activation_checkpointing_enable({"use_reentrant": False})
        nn.init.normal_(model.base_model.model.model.layers[0].self_attn.q_proj.lora_B["default"].weight)
        torch.manual_seed(1)
        model(input_ids=ids, labels=ids).loss.backward()
        return [parameter.grad for parameter in model.parameters() if parameter.requires_grad]

    for one, two in zip(gradients(False), gradients(True), strict=True):
        close(one, two)


def test_autocast_gives_float32_gradients_near_the_exact_ones(make_base, config, ids):
    def gradients(dtype):
        torch.manual_seed(7)
        model = get_peft_model(make_base(), config()).train()
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}

    exact, rounded = gradients(torch.float32), gradients(torch.bfloat16)
    for name, gradient in rounded.items():
        assert gradient.dtype == torch.float32
        assert (gradient - exact[name]).norm() < 0.1 * exact[name].norm()


def test_the_folded_form_is_hot_swapped(trained, load_base, logits, tmp_path):
    from peft.utils.hotswap import hotswap_adapter

    folders, expected = [], []
    for number, mixer in enumerate(("kaiming", "orthogonal")):
        model = trained(mixer=mixer)
        folders.append(tmp_path / f"folded{number}")
        save_folded(model, folders[-1])
        expected.append(logits(model))
    model = PeftModel.from_pretrained(load_base(), folders[0])
    close(logits(model), expected[0])
    hotswap_adapter(model, str(folders[1]), adapter_name="default", torch_device="cpu")
    close(logits(model), expected[1])


def test_the_unfolded_form_is_not_hot_swapped_without_a_word(trained, tmp_path):
    from peft.utils.hotswap import hotswap_adapter

    model = trained()
    model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"MOSLORA|not.*supported"):
        hotswap_adapter(model, str(tmp_path), adapter_name="default", torch_device="cpu")


def test_convert_to_lora_refuses_and_says_so(trained):
    from peft import convert_to_lora

    with pytest.raises((TypeError, ValueError), match="LoRA"):
        convert_to_lora(trained(), rank=4)


def test_other_methods_in_the_same_process_are_untouched(make_base, logits):
    model = get_peft_model(make_base(), LoraConfig(r=4, target_modules=["q_proj"]))
    assert type(model.base_model.model.model.layers[0].self_attn.q_proj).__module__ == "peft.tuners.lora.layer"
    close(logits(model), logits(make_base()))
