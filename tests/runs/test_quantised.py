from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("bitsandbytes")

from moslora.adapter.methods import METHODS, known_options
from moslora.errors import ConfigError
from moslora.records import RunRecord
from moslora.runs.adapters import open_adapter
from moslora.runs.exporting import fold_adapter, merge_adapter


@pytest.mark.parametrize("quantize", ["nf4", "int8"])
def test_a_quantised_base_trains_folds_and_merges_into_a_chosen_dtype(
    quantize: str, tmp_path: Path, train: Callable[..., RunRecord]
):
    record = train(model={"quantize": quantize}, training={"gradient_checkpointing": True})
    assert record.status == "finished"
    opened = open_adapter(tmp_path / "run")
    assert fold_adapter(opened, tmp_path / "folded").drift.is_within
    with pytest.raises(ConfigError, match=r"merging does not quantise again: choose the dtype .* with --dtype"):
        merge_adapter(opened, tmp_path / "merged", dtype=None)
    export = merge_adapter(opened, tmp_path / "merged", dtype="float32")
    assert RunRecord.load(tmp_path / "run" / "run.json").exports["merged"].startswith("verified: ")
    assert export.drift.max_difference < 0.05 * export.drift.largest_output


QUANTISABLE = [(name, kind) for name, method in METHODS.items() for kind in method.quantised_bases if name != "moslora"]


@pytest.mark.parametrize(("method", "quantize"), QUANTISABLE)
def test_every_method_that_says_so_trains_and_merges_on_a_quantised_base(
    method: str, quantize: str, tmp_path: Path, train: Callable[..., RunRecord]
):
    shared = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}
    adapter = {**dict.fromkeys(shared), **known_options(method, shared), "method": method}
    train(model={"quantize": quantize}, adapter=adapter, evaluation={"tasks": []})
    export = merge_adapter(open_adapter(tmp_path / "run"), tmp_path / "merged", dtype="float32")
    assert export.drift.max_difference < 0.05 * export.drift.largest_output
