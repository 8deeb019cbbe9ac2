"""Folding and merging: the same outputs, without our code, verified before anything stands in its place."""

import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM

from moslora import MosloraConfig, MosloraError, fold, save_folded, save_merged
from moslora.adapter.export import plain_config
from moslora.adapter.merging import merged_model
from moslora.adapter.twin import plain_twin
from moslora.adapter.verification import probe_output
from moslora.errors import ConfigError

VARIANTS = [
    {},
    {"mixer_depth": 3},
    {"mixer": "butterfly", "use_rslora": True},
    {"use_dora": True},
    {"rank_pattern": {"q_proj": 6}, "alpha_pattern": {"v_proj": 3}, "modules_to_save": ["norm"], "bias": "lora_only"},
    {"target_modules": ["q_proj"], "trainable_token_indices": [3, 5]},
]
PLAIN_PEFT = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(sys.argv[1]), sys.argv[2]).eval()
torch.save(model(input_ids=torch.load(sys.argv[3])).logits.detach(), sys.argv[4])
assert "moslora" not in sys.modules
print(model.peft_config["default"].peft_type.value)
"""


@pytest.fixture(params=VARIANTS, ids=lambda options: "-".join(options) or "plain")
def variant(request):
    return request.param


def close(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_a_folded_adapter_gives_the_same_output_in_plain_peft(trained, load_base, logits, tmp_path, variant):
    model = trained(**variant)
    drift = save_folded(model, tmp_path / "folded")
    assert drift.max_difference < 1e-5
    assert json.loads((tmp_path / "folded/adapter_config.json").read_text())["peft_type"] == "LORA"
    close(logits(PeftModel.from_pretrained(load_base(), tmp_path / "folded")), logits(model))


def test_a_folded_adapter_loads_in_a_process_without_our_package(trained, base_folder, ids, logits, tmp_path):
    model = trained(mixer="orthogonal", mixer_depth=2)
    save_folded(model, tmp_path / "folded")
    torch.save(ids, tmp_path / "ids.pt")
    arguments = [base_folder, tmp_path / "folded", tmp_path / "ids.pt", tmp_path / "out.pt"]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN_PEFT, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.stdout.strip() == "LORA", done.stderr
    close(torch.load(tmp_path / "out.pt"), logits(model))


def test_an_unfolded_adapter_fails_loudly_without_our_package(trained, base_folder, ids, tmp_path):
    trained().save_pretrained(tmp_path / "adapter")
    code = f"from peft import PeftConfig; PeftConfig.from_pretrained({str(tmp_path / 'adapter')!r})"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert "KeyError: 'MOSLORA'" in done.stderr


def test_the_rank_and_scale_stay(trained):
    model = trained(use_rslora=True)
    config, tensors = fold(model)
    assert type(config) is LoraConfig
    assert (config.r, config.lora_alpha, config.use_rslora) == (8, 16, True)
    assert not any("mixer" in key for key in tensors)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    a = tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"]
    close(a, layer.mixer_matrix("default") @ layer.lora_A["default"].weight)


def test_folding_leaves_the_model_as_it_was(trained, logits, tmp_path):
    model = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = logits(model)
    model.train()
    model.get_base_model().model.layers[1].eval()  # a part that is kept as it is
    modes = [module.training for module in model.modules()]
    save_folded(model, tmp_path / "folded")
    save_merged(model, tmp_path / "merged", dtype=torch.bfloat16)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    close(logits(model), expected)


def test_a_merged_model_is_frozen(trained):
    assert not any(
        parameter.requires_grad for parameter in merged_model(trained(), adapter_name="default").parameters()
    )


def test_a_module_that_cannot_be_written_is_merged_in_memory_instead(tmp_path):
    model = get_peft_model(nn.Sequential(nn.Linear(4, 4)), MosloraConfig(r=2, target_modules=["0"]))
    with pytest.raises(ConfigError, match=r"Sequential has no save_pretrained.*merge_and_unload"):
        save_merged(model, tmp_path / "merged", probe={"input": torch.zeros(1, 4)})


def test_a_merged_model_has_its_tokenizer_beside_it(trained, tiny_tokenizer, tmp_path):
    save_merged(trained(), tmp_path / "merged", tokenizer=tiny_tokenizer)
    assert (tmp_path / "merged" / "tokenizer.json").is_file()


def test_a_merged_model_gives_the_same_output_and_is_plain(trained, logits, tmp_path, variant):
    model = trained(**variant)
    drift = save_merged(model, tmp_path / "merged")
    assert drift.max_difference < 1e-4
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not any("lora" in name for name, _ in merged.named_parameters())
    close(logits(merged), logits(model))


def test_merging_into_bfloat16_adds_in_float32_and_rounds_once(make_base, config, train):
    torch.manual_seed(7)
    model = train(get_peft_model(make_base().bfloat16(), config()))
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    exact = layer.base_layer.weight.double() + layer.get_delta_weight("default").double()
    merged = merged_model(model)
    assert torch.equal(merged.model.layers[0].self_attn.q_proj.weight, exact.bfloat16())
    wide = merged_model(model, dtype=torch.float32)
    assert torch.equal(wide.model.layers[0].self_attn.q_proj.weight, exact.float())


@pytest.mark.filterwarnings("ignore:Model has .tie_word_embeddings=True", "ignore:Setting .save_embedding_layers")
def test_merging_separates_tied_weights(tiny_llama, config, train, logits, tmp_path):
    tiny_llama.config.tie_word_embeddings = True
    tiny_llama.tie_weights()
    model = get_peft_model(tiny_llama, config(target_modules=["embed_tokens", "q_proj"]))
    train(model)
    expected = logits(model)
    save_folded(model, tmp_path / "folded")
    save_merged(model, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert merged.config.tie_word_embeddings is False
    assert model.get_base_model().config.tie_word_embeddings is True
    close(logits(merged), expected)


def test_models_with_the_adapter_added_by_transformers_are_exported_too(
    make_base, config, train, logits, load_base, tmp_path
):
    torch.manual_seed(7)
    model = make_base()
    model.add_adapter(config())
    train(model)
    expected = logits(model)
    save_folded(model, tmp_path / "folded")
    save_merged(model, tmp_path / "merged")
    close(logits(PeftModel.from_pretrained(load_base(), tmp_path / "folded")), expected)
    close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged")), expected)


def test_a_twin_shares_its_weights(trained, make_base, logits):
    model = trained()
    twin = plain_twin(model)
    close(logits(twin), logits(make_base()))
    pointers = {tensor.data_ptr() for tensor in model.parameters()}
    assert all(tensor.data_ptr() in pointers for tensor in twin.parameters())


@pytest.mark.parametrize(("save", "name"), [(save_folded, "adapter_model"), (save_merged, "model")])
def test_outputs_that_differ_are_refused_unless_accepted_and_nothing_is_left_behind(
    trained, tmp_path, monkeypatch, save, name
):
    model, noise = trained(), itertools.count()

    def run(model, probe):
        return probe_output(model, probe) + next(noise)  # another program that computes something else

    monkeypatch.setattr("moslora.adapter.export.probe_output", run)
    with pytest.raises(MosloraError, match=r"the .* differs from the adapter by 1 .*--allow-drift"):
        save(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    drift = save(model, tmp_path / "out", allow_drift=True)
    assert not drift.is_within
    assert drift.tensors.layers == 6
    assert (tmp_path / "out" / f"{name}.safetensors").is_file()


def test_a_tensor_that_is_not_loaded_as_written_is_refused(trained, tmp_path, monkeypatch):
    def without_a_trained_token(tensors, path, metadata):
        changed = {key: tensor.clone() for key, tensor in tensors.items()}
        (key,) = (key for key in changed if "token_adapter" in key)
        changed[key][0] = 0  # no position of the probe need have this token
        save_file(changed, path, metadata)

    monkeypatch.setattr("moslora.adapter.export.save_file", without_a_trained_token)
    model = trained(target_modules=["q_proj"], trainable_token_indices=[3, 5])
    probe = {"input_ids": torch.arange(6, 18)[None]}
    for allow_drift in (False, True):
        with pytest.raises(MosloraError, match=r"the folded adapter is not the adapter: .*token_adapter.* has 0 "):
            save_folded(model, tmp_path / "folded", probe=probe, allow_drift=allow_drift)
    assert list(tmp_path.iterdir()) == []


def test_broken_weights_are_not_merged(trained, tmp_path):
    model = trained()
    model.base_model.model.model.layers[0].self_attn.q_proj.lora_A["default"].weight.data[0, 0] = float("nan")
    with pytest.raises(MosloraError, match="q_proj: the merged weight is not finite"):
        save_merged(model, tmp_path / "merged")
    with pytest.raises(MosloraError, match="q_proj: the adapter holds numbers that are not finite"):
        save_folded(model, tmp_path / "folded")


def test_existing_folders_are_not_overwritten(trained, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    for save in (save_folded, save_merged):
        with pytest.raises(MosloraError, match="exists and is not an empty folder"):
            save(trained(), tmp_path / "mine")
    assert (tmp_path / "mine/notes.txt").read_text() == "keep"


def test_what_is_no_adapter_with_a_mixer_is_refused(make_base, trained):
    with pytest.raises(MosloraError, match=re.escape("the model has no adapter 'other' (it has: default)")):
        fold(trained(), "other")
    plain = get_peft_model(make_base(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(MosloraError, match="adapter 'default' is a LoraConfig, which has no mixer to fold"):
        fold(plain)


def test_an_adapter_that_is_not_at_work_is_not_exported(trained, config, tmp_path):
    model = trained()
    model.add_adapter("second", config())
    cases = {
        "adapter 'default' is not the active one (second): call set_adapter() first": lambda: model.set_adapter(
            "second"
        ),
        "the adapters are disabled": lambda: (model.set_adapter("default"), model.base_model.disable_adapter_layers()),
        "adapters are merged into the base weights": lambda: (
            model.base_model.enable_adapter_layers(),
            model.merge_adapter(),
        ),
    }
    for message, change in cases.items():
        change()
        for save in (save_folded, save_merged):
            with pytest.raises(MosloraError, match=re.escape(message)):
                save(model, tmp_path / "out")


def test_a_model_under_mixed_precision_is_verified_without_it(trained, tmp_path):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # of a test before this one
    model = Accelerator(mixed_precision="bf16", cpu=True).prepare_model(trained())
    assert save_folded(model, tmp_path / "folded").max_difference < 1e-5


def test_a_model_without_vocabulary_needs_a_probe(tmp_path):
    model = get_peft_model(nn.Sequential(nn.Linear(3, 3)), MosloraConfig(target_modules=["0"], init_lora_weights=False))
    with pytest.raises(MosloraError, match="Sequential has no vocab_size: give the inputs to compare on as probe"):
        save_folded(model, tmp_path / "folded")


def test_a_bias_without_a_place_is_not_merged(make_base, config, tmp_path):
    with pytest.warns(UserWarning, match="has no bias"):
        model = get_peft_model(make_base(), config(lora_bias=True))
    with pytest.raises(MosloraError, match="q_proj has no bias that could take the adapter's: keep the adapter"):
        save_merged(model, tmp_path / "merged")


def test_the_folded_config_keeps_every_lora_field():
    config = MosloraConfig(r=4, lora_alpha=7, target_modules=["a"], rank_pattern={"b": 2}, lora_dropout=0.1, bias="all")
    plain = plain_config(config)
    assert (plain.r, plain.lora_alpha, plain.target_modules, plain.rank_pattern) == (4, 7, {"a"}, {"b": 2})
    assert (plain.lora_dropout, plain.bias) == (0.1, "all")


def test_saved_adapters_say_how_to_load_them(trained, tmp_path):
    trained().save_pretrained(tmp_path / "adapter")
    card = (tmp_path / "adapter/README.md").read_text()
    assert card.index("import moslora") < card.index("AutoPeftModelForCausalLM.from_pretrained")
    trained().save_pretrained(tmp_path / "adapter")
    assert (tmp_path / "adapter/README.md").read_text().count("How to load this adapter") == 1
    save_folded(trained(), tmp_path / "folded")
    assert "import moslora" not in Path(tmp_path / "folded/README.md").read_text()
