"""What runs wrote is found where it lay, whether its file is there or in the comparison's pack."""

import gzip
from pathlib import Path

import pytest

from moslora.errors import CheckpointError
from moslora.packed import PACK, pack, read_text

TEXTS = {
    "answers/everyday-after-log_probability.jsonl": '{"index": 0, "text": "naïve"}\r\n',
    "answers/everyday-examples.json": "{}\n",
    "metrics.jsonl": "",
    "recipe.yaml": "method: lora\n",
}


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    for place in ("runs/lora-seed1", "runs/lora-seed2/dog", "tuning/lora-lr0.1"):
        for name, text in {**TEXTS, "run.json": place, "adapter/weights.bin": "w"}.items():
            path = tmp_path / place / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
    return tmp_path


def test_packed_files_read_as_before_and_all_else_stays(comparison: Path):
    assert pack(comparison) == 3 * len(TEXTS)
    assert {path.name for path in comparison.rglob("*") if path.is_file()} == {PACK, "run.json", "weights.bin"}
    assert not [*comparison.rglob("answers")]
    for name, text in TEXTS.items():
        assert read_text(comparison / "runs" / "lora-seed2" / "dog" / name) == text
    assert read_text(comparison / "runs" / "lora-seed1" / "validation.jsonl") is None
    assert read_text(comparison / "runs" / "lora-seed3" / "metrics.jsonl") is None


def test_what_a_run_writes_later_counts_and_joins_the_pack(comparison: Path):
    pack(comparison)
    before = (comparison / PACK).read_bytes()
    assert pack(comparison) == 0
    later = comparison / "runs" / "lora-seed1" / "metrics.jsonl"
    later.write_text("{}\n")
    assert read_text(later) == "{}\n"
    assert pack(comparison) == 1
    assert read_text(later) == "{}\n"
    assert read_text(later.with_name("recipe.yaml")) == TEXTS["recipe.yaml"]
    later.write_text(TEXTS["metrics.jsonl"])
    pack(comparison)
    assert (comparison / PACK).read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"{}\n"), gzip.compress(b"{}\n")[:-4]], ids=["no gzip", "no text", "cut"]
)
def test_a_damaged_pack_is_named(comparison: Path, content: bytes):
    (comparison / PACK).write_bytes(content)
    with pytest.raises(CheckpointError, match=r"cannot read the pack .*runs\.jsonl\.gz: .*; restore the file"):
        read_text(comparison / "runs" / "lora-seed9" / "metrics.jsonl")
    with pytest.raises(CheckpointError, match="cannot read the pack"):
        pack(comparison)
    assert (comparison / "runs" / "lora-seed1" / "metrics.jsonl").is_file()
