"""Adapters of other programs, against their own formulas written out."""

import json
import re

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from torch import nn

from moslora import MosloraError, import_adapter, save_folded, save_merged

RANK, TARGETS = 4, ("q_proj", "v_proj")


def shapes(model):
    layers = {name: module for name, module in model.named_modules() if name.endswith(TARGETS)}
    return {f"base_model.model.{name}": (layer.out_features, layer.in_features) for name, layer in layers.items()}


def foreign(model, mixers):
    """A, B and what the other program stores between them, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, (outputs, inputs) in shapes(model).items():
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, inputs, generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(outputs, RANK, generator=generator) * 0.1
        for key in mixers:
            shape = (RANK, RANK) if key.endswith("weight") else (RANK,)
            tensors[f"{name}.{key}"] = torch.randn(shape, generator=generator)
    return tensors


def write(folder, tensors, *, pickled=False, **fields):
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "r": RANK,
        "lora_alpha": 8,
        "target_modules": list(TARGETS),
        "task_type": "CAUSAL_LM",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config | fields))
    if pickled:
        torch.save(tensors, folder / "adapter_model.bin")
    else:
        save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def expected_output(layer_name, tensors, x, base, chain):
    """`base(x) + scale · B(Mn(... M1(A x + 0) + b1 ...) + bn)`, as the other program computes it."""
    h = x @ tensors[f"{layer_name}.lora_A.weight"].T
    for weight, bias in chain:
        h = h @ tensors[f"{layer_name}.{weight}"].T + (tensors[f"{layer_name}.{bias}"] if bias else 0)
    return base(x) + 8 / RANK * h @ tensors[f"{layer_name}.lora_B.weight"].T


MOSLORA_CHAIN = [("lora_AB.weight", None)]
LINCHAIN = [(f"lora_mixer.{number}.weight", f"lora_mixer.{number}.bias") for number in range(3)]


@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed")
@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("chain", [MOSLORA_CHAIN, LINCHAIN], ids=["moslora", "linchain"])
def test_every_layer_computes_what_the_other_program_computed(load_base, tmp_path, chain, pickled):
    base = load_base()
    tensors = foreign(base, [key for link in chain for key in link if key])
    source = write(tmp_path / "theirs", tensors, pickled=pickled, lora_use_mixer=True, enable_lora=None)
    config = import_adapter(source, tmp_path / "ours")
    assert (config.mixer_depth, config.lora_bias) == (len(chain), chain is LINCHAIN)
    model = PeftModel.from_pretrained(base, tmp_path / "ours")
    for name in shapes(load_base()):
        layer = model.get_submodule(name)
        x = torch.randn(5, layer.in_features)
        expected = expected_output(name, tensors, x, layer.base_layer, chain)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.lora_bias=True. was passed")
def test_a_linchain_bias_folds_and_is_not_merged_where_it_has_no_place(load_base, logits, tmp_path):
    tensors = foreign(load_base(), [key for link in LINCHAIN for key in link])
    import_adapter(write(tmp_path / "theirs", tensors), tmp_path / "ours")
    model = PeftModel.from_pretrained(load_base(), tmp_path / "ours")
    save_folded(model, tmp_path / "folded")
    folded = PeftModel.from_pretrained(load_base(), tmp_path / "folded")
    torch.testing.assert_close(logits(folded), logits(model), rtol=1e-4, atol=1e-4)
    with pytest.raises(MosloraError, match="has no bias that could take the adapter's: keep the adapter"):
        save_merged(model, tmp_path / "merged")


def test_a_linchain_bias_merges_into_a_layer_with_bias(tmp_path):
    from moslora.adapter.importing import convert
    from moslora.adapter.merging import merged_model

    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 5))
    keys = ["lora_mixer.0.weight", "lora_mixer.0.bias", "lora_mixer.1.weight", "lora_mixer.1.bias"]
    tensors = {
        "base_model.model.0.lora_A.weight": torch.randn(3, 6),
        "base_model.model.0.lora_B.weight": torch.randn(5, 3),
    }
    tensors |= {f"base_model.model.0.{key}": torch.randn((3, 3) if "weight" in key else (3,)) for key in keys}
    config, converted = convert(tensors, {"r": 3, "lora_alpha": 6, "target_modules": ["0"]}, source="theirs")
    model = get_peft_model(base, config)
    model.load_state_dict(
        {
            key.replace(".weight", ".default.weight").replace(".bias", ".default.bias"): tensor
            for key, tensor in converted.items()
        },
        strict=False,
    )
    x = torch.randn(4, 6)
    torch.testing.assert_close(merged_model(model)(x), model(x))


def test_plain_lora_gets_identity_mixers_and_trains_on(make_base, load_base, train, logits, tmp_path):
    torch.manual_seed(1)
    plain = train(get_peft_model(make_base(), LoraConfig(r=4, target_modules=list(TARGETS), task_type="CAUSAL_LM")))
    plain.save_pretrained(tmp_path / "plain")
    config = import_adapter(tmp_path / "plain", tmp_path / "ours")
    assert config.mixer == "identity"
    model = PeftModel.from_pretrained(load_base(), tmp_path / "ours", is_trainable=True)
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-4, atol=1e-5)
    train(model)
    mixers = [p for name, p in model.named_parameters() if "lora_mixer" in name]
    assert all(not torch.equal(mixer[0], torch.eye(4)) for mixer in mixers)


def damage(tensors, change):
    name = next(iter(tensors)).rpartition(".lora_A")[0]
    return change(dict(tensors), name)


CASES = {
    "no mixer in one layer": (
        lambda t, n: {k: v for k, v in t.items() if k != f"{n}.lora_AB.weight"},
        "mixers for some layers only: 3 of 4",
    ),
    "no B": (
        lambda t, n: {k: v for k, v in t.items() if k != f"{n}.lora_B.weight"},
        "has rank 4 in lora_A and no lora_B.weight",
    ),
    "mixer of another rank": (
        lambda t, n: t | {f"{n}.lora_AB.weight": torch.eye(3)},
        "has rank 4 and a mixer of shape (3, 3)",
    ),
    "no A at all": (
        lambda t, n: {k: v for k, v in t.items() if "lora_A." not in k},
        "has no tensor called *.lora_A.weight",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_checkpoints_that_do_not_hold_together_are_refused(load_base, tmp_path, case):
    change, message = CASES[case]
    source = write(tmp_path / "theirs", damage(foreign(load_base(), ["lora_AB.weight"]), change))
    with pytest.raises(MosloraError, match=re.escape(message)):
        import_adapter(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


class Trap:
    def __reduce__(self):
        return (print, ("code from a pickle ran",))


def test_pickles_run_no_code(load_base, tmp_path, capsys):
    source = write(tmp_path / "theirs", {"a": Trap()}, pickled=True)
    with pytest.raises(MosloraError, match=r"adapter_model.bin is damaged or holds more than tensors"):
        import_adapter(source, tmp_path / "ours")
    assert "code from a pickle ran" not in capsys.readouterr().out


def test_damaged_and_missing_files_are_one_line(tmp_path):
    source = tmp_path / "theirs"
    with pytest.raises(MosloraError, match=r"has no adapter weights \(looked for adapter_model.safetensors and"):
        import_adapter(source, tmp_path / "ours")
    write(source, {"x": torch.zeros(3)})
    weights = source / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(MosloraError, match="is damaged or holds more than tensors"):
        import_adapter(source, tmp_path / "ours")
    (source / "adapter_config.json").write_text("{")
    save_file({"x": torch.zeros(3)}, weights)
    with pytest.raises(MosloraError, match=r"adapter_config.json is not readable JSON"):
        import_adapter(source, tmp_path / "ours")
    (source / "adapter_config.json").unlink()
    with pytest.raises(MosloraError, match=r"has no adapter_config.json"):
        import_adapter(source, tmp_path / "ours")
    (source / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(MosloraError, match="says peft_type IA3: only LoRA-like adapters"):
        import_adapter(source, tmp_path / "ours")
