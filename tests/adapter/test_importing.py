"""Adapters of other programs, against their own formulas written out."""

import copy
import json
import re

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from moslora import MosloraError, import_adapter, save_folded, save_merged
from moslora.adapter.importing import convert
from moslora.adapter.preparing import prepare, save_trained, starting_tensors

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


LORA_OF = {
    "an embedding too": {"target_modules": ["q_proj", "embed_tokens"]},
    "an embedding alone": {"target_modules": ["embed_tokens"]},
    "an embedding with DoRA": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True},
    "saved modules and biases": {"target_modules": ["q_proj"], "modules_to_save": ["norm"], "bias": "lora_only"},
    "trained tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 5]},
    "ranks of its own": {"target_modules": ["q_proj", "v_proj"], "rank_pattern": {"v_proj": 2}, "use_rslora": True},
}


@pytest.mark.filterwarnings("ignore:Setting .save_embedding_layers")
@pytest.mark.parametrize("kind", LORA_OF)
def test_plain_lora_of_every_kind_imports_exactly(make_base, load_base, train, logits, tmp_path, kind):
    torch.manual_seed(1)
    plain = train(get_peft_model(make_base(), LoraConfig(r=4, task_type="CAUSAL_LM", **LORA_OF[kind])))
    plain.save_pretrained(tmp_path / "plain")
    import_adapter(tmp_path / "plain", tmp_path / "ours")
    model = PeftModel.from_pretrained(load_base(), tmp_path / "ours")
    torch.testing.assert_close(logits(model), logits(plain), rtol=1e-4, atol=1e-5)
    drift = save_folded(model, tmp_path / "folded")
    assert drift.tensors.difference == 0


@pytest.mark.filterwarnings("ignore:LoRA adapter added to ConvNd layer with groups > 1")
def test_lora_on_a_grouped_convolution_imports(tmp_path):
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2))
    plain = get_peft_model(copy.deepcopy(base), LoraConfig(target_modules=["0"], init_lora_weights=False)).eval()
    plain.save_pretrained(tmp_path / "plain")
    import_adapter(tmp_path / "plain", tmp_path / "ours")
    x = torch.randn(1, 4, 6, 6)
    torch.testing.assert_close(PeftModel.from_pretrained(base, tmp_path / "ours").eval()(x), plain(x))


@pytest.mark.parametrize("init", ["eva", "orthogonal", "mica", "gaussian", True, False])
def test_an_init_that_is_only_history_is_no_obstacle(load_base, tmp_path, init):
    tensors = foreign(load_base(), [])
    source = write(tmp_path / "theirs", tensors, init_lora_weights=init, eva_config={"rho": 2.0})
    assert import_adapter(source, tmp_path / "ours").init_lora_weights in (True, init)
    model = PeftModel.from_pretrained(load_base(), tmp_path / "ours")
    for name in shapes(load_base()):
        layer = model.get_submodule(name)
        x = torch.randn(5, layer.in_features)
        torch.testing.assert_close(layer(x), expected_output(name, tensors, x, layer.base_layer, []))


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga"])
def test_an_init_that_changed_the_base_is_refused_with_what_to_do(load_base, tmp_path, init):
    source = write(tmp_path / "theirs", foreign(load_base(), []), init_lora_weights=init)
    advice = "the base model that LoftQ made" if init == "loftq" else "path_initial_model_for_weight_conversion"
    with pytest.raises(MosloraError, match=f"init_lora_weights='{init}', which changes the base model too.*{advice}"):
        import_adapter(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_converted_pissa_imports_exactly(make_base, load_base, train, logits, tmp_path):
    torch.manual_seed(3)
    options = {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj"], "init_lora_weights": "pissa"}
    model = prepare(make_base(), "pissa", options)
    start = starting_tensors(model, "pissa")
    expected = logits(train(model))
    save_trained(model, tmp_path / "converted", method="pissa", start=start)
    import_adapter(tmp_path / "converted", tmp_path / "ours")
    imported = PeftModel.from_pretrained(load_base(), tmp_path / "ours")
    torch.testing.assert_close(logits(imported), expected, rtol=1e-4, atol=1e-5)


def test_a_mixer_keeps_a_wider_dtype_than_a(load_base, tmp_path):
    tensors = foreign(load_base(), ["lora_AB.weight"])
    halved = {key: tensor if "lora_AB" in key else tensor.half() for key, tensor in tensors.items()}
    import_adapter(write(tmp_path / "theirs", halved), tmp_path / "ours")
    written = load_file(tmp_path / "ours/adapter_model.safetensors")
    for name in shapes(load_base()):
        assert torch.equal(written[f"{name}.lora_mixer.weight"][0], tensors[f"{name}.lora_AB.weight"])


def test_biases_of_mixers_and_of_b_add_up():
    layer = "base_model.model.0"
    links = {f"{layer}.lora_mixer.0.weight": 2 * torch.eye(2), f"{layer}.lora_mixer.0.bias": torch.tensor([1.0, 3.0])}
    factors = {f"{layer}.lora_A.weight": torch.ones(2, 3), f"{layer}.lora_B.weight": torch.eye(2)}
    fields = {"r": 2, "target_modules": ["0"], "lora_bias": True}
    own = {f"{layer}.lora_B.bias": torch.tensor([10.0, 20.0])}
    _, converted = convert(factors | links | own, fields, source="theirs")
    assert converted[f"{layer}.lora_B.bias"].tolist() == [11.0, 23.0]


@pytest.mark.parametrize("part", ["lora_A", "lora_B", "lora_mixer"])
def test_an_import_that_is_not_what_was_given_is_refused(load_base, tmp_path, monkeypatch, part):
    def wrong(tensors, path, metadata):
        save_file({key: tensor * 1.02 if part in key else tensor for key, tensor in tensors.items()}, path, metadata)

    monkeypatch.setattr("moslora.adapter.importing.save_file", wrong)
    source = write(tmp_path / "theirs", foreign(load_base(), ["lora_AB.weight"]))
    with pytest.raises(MosloraError, match=f"the imported adapter is not the adapter: .*{part}.* has"):
        import_adapter(source, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


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
        "has rank 4 in lora_A.weight and no lora_B.weight",
    ),
    "mixer of another rank": (
        lambda t, n: t | {f"{n}.lora_AB.weight": torch.eye(3)},
        "has rank 4 and a mixer of shape (3, 3)",
    ),
    "a bias without its weight": (
        lambda t, n: t | {f"{n}.lora_mixer.3.bias": torch.ones(4)},
        "has a mixer's bias without its weight",
    ),
    "no A at all": (
        lambda t, n: {k: v for k, v in t.items() if "lora_A." not in k},
        "has no tensor called *.lora_A.weight or *.lora_embedding_A",
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
