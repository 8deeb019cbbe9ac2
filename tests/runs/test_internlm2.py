"""InternLM2's layout converted to Llama's, against InternLM2's own formulas written out in float64."""

import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import import_protobuf

from moslora.adapter.fused import split_rows
from moslora.errors import CheckpointError, ConfigError, MosloraError
from moslora.runs.assembling import AssemblyPlan, assemble
from moslora.runs.ingredients import load_language, load_tokenizer
from moslora.runs.internlm2 import load_internlm2

FIELDS: dict[str, Any] = {
    "architectures": ["InternLM2ForCausalLM"],
    "auto_map": {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"},
    "model_type": "internlm2",
    "vocab_size": 50,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1_000_000,
    "rope_scaling": None,
    "bias": False,
    "tie_word_embeddings": False,
    "pad_token_id": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
Write = Callable[..., Path]


def random_tensors(fields: dict[str, Any]) -> dict[str, torch.Tensor]:
    """A fused InternLM2 checkpoint, drawn at random."""
    generator = torch.Generator().manual_seed(0)
    hidden, wide = fields["hidden_size"], fields["intermediate_size"]
    rows = (fields["num_attention_heads"] + 2 * fields["num_key_value_heads"]) * hidden // fields["num_attention_heads"]
    shapes = {
        "model.tok_embeddings.weight": (50, hidden),
        "model.norm.weight": (hidden,),
        "output.weight": (50, hidden),
    }
    for number in range(fields["num_hidden_layers"]):
        place = f"model.layers.{number}"
        shapes |= {
            f"{place}.attention.wqkv.weight": (rows, hidden),
            f"{place}.attention.wo.weight": (hidden, hidden),
            f"{place}.feed_forward.w1.weight": (wide, hidden),
            f"{place}.feed_forward.w3.weight": (wide, hidden),
            f"{place}.feed_forward.w2.weight": (hidden, wide),
            f"{place}.attention_norm.weight": (hidden,),
            f"{place}.ffn_norm.weight": (hidden,),
        }
        if fields["bias"]:
            shapes |= {f"{place}.attention.wqkv.bias": (rows,), f"{place}.attention.wo.bias": (hidden,)}
    return {name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A folder with a fused checkpoint, `fields` of its configuration changed."""

    def make(tensors: dict[str, torch.Tensor] | None = None, **fields: Any) -> Path:
        changed = FIELDS | fields
        (tmp_path / "config.json").write_text(json.dumps(changed))
        save_file(random_tensors(changed) if tensors is None else tensors, tmp_path / "model.safetensors")
        (tmp_path / "modeling_internlm2.py").write_text("raise SystemExit('code of the folder ran')\n")
        return tmp_path

    return make


def reference(tensors: dict[str, torch.Tensor], fields: dict[str, Any], ids: torch.Tensor) -> torch.Tensor:
    """InternLM2's logits (N, V) for tokens (N,), in float64, head by head."""
    weights = {name: tensor.double() for name, tensor in tensors.items()}
    heads, groups = fields["num_attention_heads"], fields["num_key_value_heads"]
    size, shared = fields["hidden_size"] // heads, heads // groups
    x = weights["model.tok_embeddings.weight"][ids]
    for number in range(fields["num_hidden_layers"]):
        place = f"model.layers.{number}"
        fused = normed(x, weights[f"{place}.attention_norm.weight"]) @ weights[f"{place}.attention.wqkv.weight"].T
        fused = fused + weights.get(f"{place}.attention.wqkv.bias", 0)
        outputs = []
        for head in range(heads):
            group = head // shared
            start = group * (shared + 2) * size  # this group's queries, then its key, then its value
            query = fused[:, start + (head % shared) * size :][:, :size]
            key = fused[:, start + shared * size :][:, :size]
            value = fused[:, start + (shared + 1) * size :][:, :size]
            scores = turned(query, fields) @ turned(key, fields).T / math.sqrt(size)
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
            outputs.append(scores.softmax(dim=-1) @ value)
        attended = torch.cat(outputs, dim=-1) @ weights[f"{place}.attention.wo.weight"].T
        x = x + attended + weights.get(f"{place}.attention.wo.bias", 0)
        inner = normed(x, weights[f"{place}.ffn_norm.weight"])
        gate, up = (inner @ weights[f"{place}.feed_forward.{name}.weight"].T for name in ("w1", "w3"))
        x = x + (gate * gate.sigmoid() * up) @ weights[f"{place}.feed_forward.w2.weight"].T
    head = weights["model.tok_embeddings.weight" if fields["tie_word_embeddings"] else "output.weight"]
    return normed(x, weights["model.norm.weight"]) @ head.T


def normed(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x / (x.pow(2).mean(dim=-1, keepdim=True) + FIELDS["rms_norm_eps"]).sqrt() * weight


def turned(x: torch.Tensor, fields: dict[str, Any]) -> torch.Tensor:
    """Rotary positions with InternLM2's linear and dynamic scaling; x (N, head size)."""
    length, size = x.shape
    base, stretch, scaling = float(fields["rope_theta"]), 1.0, fields["rope_scaling"] or {}
    longest = fields["max_position_embeddings"]
    if scaling.get("type") == "linear":
        stretch = scaling["factor"]
    elif scaling.get("type") == "dynamic" and length > longest:
        factor = scaling["factor"]
        base *= (factor * length / longest - (factor - 1)) ** (size / (size - 2))
    frequencies = base ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.outer(torch.arange(length, dtype=torch.float64) / stretch, frequencies)
    first, second = x[:, : size // 2], x[:, size // 2 :]
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"bias": True},
        {"num_key_value_heads": 6},
        {"num_key_value_heads": 1},
        {"tie_word_embeddings": True},
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 10_000, "rope_scaling": {"type": "dynamic", "factor": 3.0}},
    ],
    ids=str,
)
def test_the_converted_model_computes_internlm2s_logits(write: Write, fields: dict[str, Any]):
    changed = FIELDS | fields
    tensors = random_tensors(changed)
    model = load_internlm2(str(write(tensors, **fields)), dtype=torch.float64)
    for length in (9, 60):  # within the trained positions, and beyond them
        ids = torch.randint(0, 50, (length,), generator=torch.Generator().manual_seed(length))
        with torch.no_grad():
            found = model(input_ids=ids[None]).logits[0]
        expected = reference(tensors, changed, ids)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)  # transformers turns in float32


def test_weights_come_from_pickles_of_tensors_too(write: Write):
    folder = write()
    (folder / "model.safetensors").unlink()
    tensors = random_tensors(FIELDS)
    names = sorted(tensors)
    torch.save({name: tensors[name] for name in names[:5]}, folder / "pytorch_model-00001-of-00002.bin")
    torch.save({name: tensors[name] for name in names[5:]}, folder / "pytorch_model-00002-of-00002.bin")
    model = load_internlm2(str(folder), dtype=torch.float32)
    assert torch.equal(model.model.embed_tokens.weight, tensors["model.tok_embeddings.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model.layers.1.attention.wqkv.weight": torch.zeros(79, 48)},
            "wqkv.weight has 79 rows and 6 heads in 2 groups",
        ),
        (
            {"model.layers.1.attention.wk.weight": torch.zeros(8, 8)},
            "attention.wk.weight is not a tensor of an InternLM2",
        ),
        ({"model.norm.weight": None}, "missing keys model.norm.weight; get a fresh copy of the model"),
        (
            {"model.layers.2.ffn_norm.weight": torch.zeros(48)},
            "unexpected keys model.layers.2.post_attention_layernorm",
        ),
        ({"output.weight": torch.zeros(51, 48)}, "mismatched keys .*lm_head.weight"),
    ],
)
def test_weights_that_are_not_the_configurations_are_refused(write: Write, change: dict[str, Any], message: str):
    tensors = random_tensors(FIELDS) | change
    folder = write({name: tensor for name, tensor in tensors.items() if tensor is not None})
    with pytest.raises(CheckpointError, match=message):
        load_internlm2(str(folder), dtype=torch.float32)


def test_other_scalings_are_refused(write: Write):
    folder = write(rope_scaling={"type": "yarn", "factor": 2.0})
    with pytest.raises(
        ConfigError, match=r"rope_scaling of type 'yarn' cannot be converted \(allowed: linear, dynamic"
    ):
        load_language(str(folder), dtype=torch.float32)


def test_rows_are_split_by_group():
    fused = torch.arange(20)[:, None]  # head size 2, two groups of 3 queries, a key and a value
    rows = split_rows(fused, heads=6, groups=2, size=2, name="wqkv")
    assert rows["q_proj"].flatten().tolist() == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    assert rows["k_proj"].flatten().tolist() == [6, 7, 16, 17]
    assert rows["v_proj"].flatten().tolist() == [8, 9, 18, 19]


PIECES = [
    "▁a",
    "▁ab",
    "bc",
    "abc",
    "▁abc",
    "cd",
    "▁the",
    "th",
    "e",
    "he",
    "▁t",
    "aa",
    "aaa",
    "▁",
    "a",
    "b",
    "c",
    "d",
    "t",
    "h",
]


def write_pieces(folder: Path, *, dummy_prefix: bool = False, kind: int = 2, **settings: Any) -> None:
    """A SentencePiece model with byte pieces and an unused one, and the settings beside it."""
    model = import_protobuf().ModelProto()
    model.trainer_spec.model_type = kind
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.add_dummy_prefix = dummy_prefix
    for name, piece_type in [("<unk>", 2), ("<s>", 3), ("</s>", 3), *((f"<0x{n:02X}>", 6) for n in range(256))]:
        model.pieces.add(piece=name, score=0.0, type=piece_type)
    for number, name in enumerate(PIECES):
        model.pieces.add(piece=name, score=-float(number), type=1)
    model.pieces.add(piece="[UNUSED_TOKEN_1]", score=-1000.0, type=1)
    model.pieces.add(piece="[WHOLE]", score=0.0, type=4)  # user-defined: never taken apart
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    added = {"279": {"content": "<|im_start|>", "special": True, "normalized": False}}
    fields = {"added_tokens_decoder": added, "chat_template": "{{ messages }}"} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))


def merged(text: str, *, dummy_prefix: bool) -> list[int]:
    """SentencePiece's BPE as it is defined: of all neighbours, join the pair whose piece has the best score."""
    numbers = {name: 259 + number for number, name in enumerate(PIECES)}
    parts = list((" " if dummy_prefix and text else "") + text)
    parts = [part.replace(" ", "▁") for part in parts]
    while True:
        pairs = [(numbers[a + b], place) for place, (a, b) in enumerate(pairwise(parts)) if a + b in numbers]
        if not pairs:
            break
        _, place = min(pairs)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    found: list[int] = []
    for part in parts:
        found += [numbers[part]] if part in numbers else [3 + byte for byte in part.encode()]
    return found


@pytest.mark.parametrize("dummy_prefix", [False, True])
def test_the_tokenizer_joins_pieces_as_sentencepiece_does(write: Write, dummy_prefix: bool):
    folder = write()
    write_pieces(folder, dummy_prefix=dummy_prefix)
    tokenizer = load_tokenizer(str(folder))
    generator = torch.Generator().manual_seed(0)
    letters = "abcdthe  é€"
    for _ in range(200):
        drawn = torch.randint(0, len(letters), (12,), generator=generator)
        text = "".join(letters[number] for number in drawn)
        ids = tokenizer.encode(text)
        assert ids == [1, *merged(text, dummy_prefix=dummy_prefix)], text
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_special_tokens_take_the_places_of_unused_pieces_and_survive_saving(write: Write, tmp_path: Path):
    folder = write()
    write_pieces(folder, add_bos_token=False, pad_token={"content": "</s>"})
    tokenizer = load_tokenizer(str(folder))
    tokenizer.save_pretrained(tmp_path / "saved")
    for each in (tokenizer, AutoTokenizer.from_pretrained(tmp_path / "saved")):
        assert each.encode("<|im_start|>abc[WHOLE]</s>") == [279, *merged("abc", dummy_prefix=False), 280, 2]
        assert (each.bos_token_id, each.eos_token_id, each.pad_token_id, len(each)) == (1, 2, 2, 281)
        assert each.chat_template == "{{ messages }}"


def test_tokenizers_that_cannot_be_converted_are_refused(write: Write):
    folder = write()
    with pytest.raises(
        ConfigError, match=r"there is no .*tokenizer.model: give a folder with a tokenizer with --token"
    ):
        load_tokenizer(str(folder))
    write_pieces(folder, kind=1)
    with pytest.raises(ConfigError, match="is not a BPE model: give a converted tokenizer with --tokenizer"):
        load_tokenizer(str(folder))
    (folder / "tokenizer.model").write_bytes(b"\xff\xff\xff")
    with pytest.raises(MosloraError, match=re.escape("tokenizer.model is damaged")):
        load_tokenizer(str(folder))


def test_a_llava_model_of_internlm2_is_assembled_without_its_code(
    write: Write, tmp_path: Path, tower_folder: Callable[[str], Path]
):
    folder = write(vocab_size=300, tensors=random_tensors(FIELDS) | resized(300))
    write_pieces(folder)
    made = assemble(
        str(folder), str(tower_folder("clip")), folder=tmp_path / "llava", plan=AssemblyPlan(dtype="float32")
    )
    assert (made.image_token_id, made.new_rows, made.tokens_per_picture) == (281, 0, 16)
    fields = json.loads((tmp_path / "llava" / "config.json").read_text())
    assert fields["text_config"]["model_type"] == "llama"
    assert "auto_map" not in json.dumps(fields)


def resized(rows: int) -> dict[str, torch.Tensor]:
    names = ("model.tok_embeddings.weight", "output.weight")
    return {name: torch.randn(rows, 48, generator=torch.Generator().manual_seed(1)) for name in names}
