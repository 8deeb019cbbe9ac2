"""The benchmarks of a step beside PEFT's LoRA, on tiny blocks."""

import json
from dataclasses import replace
from typing import Any

import pytest
from peft import PeftModel

from benchmarks import results, subject
from benchmarks.beside_lora import PEERS, label
from benchmarks.subject import SUBJECT
from moslora.adapter.layers import mixer_layers

TINY: list[dict[str, Any]] = [{**setting, "rank": 2, "shape": "tiny"} for setting in SUBJECT.settings]


def test_a_setting_is_timed_and_weighed_and_its_figures_are_stored(monkeypatch, tmp_path):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    setting = TINY[-1]
    rows = replace(SUBJECT, settings=[setting]).run(rounds=2)
    words = "float32, attention and convolutions, rank 2, tiny"
    assert [(row.what, row.target) for row in rows] == [
        (f"SDXL blocks step, {words}", 0.95),
        (f"SDXL blocks step, {words}: none", None),
        (f"SDXL blocks peak memory, {words}", 0.7),
    ]
    assert [row for _, row in results.load_rows()] == rows
    (figures,) = json.loads((tmp_path / "subject.json").read_text())["figures"]
    assert {peer: len(seconds) for peer, seconds in figures["seconds"].items()} == dict.fromkeys(PEERS, 2)
    assert figures["above_frozen_bytes"]["none"] == 0


@pytest.mark.parametrize("setting", TINY, ids=label)
def test_a_step_trains_the_adapters_of_both_peers_on_the_same_layers(setting, monkeypatch):
    models: dict[str, PeftModel] = {}
    make = subject.get_peft_model
    for peer in ("lora", "moslora"):
        monkeypatch.setattr(subject, "get_peft_model", lambda *given, peer=peer: models.setdefault(peer, make(*given)))
        step = subject.step(peer, **setting)
        before = {name: value.clone() for name, value in models[peer].named_parameters() if "lora_B" in name}
        step()
        after = dict(models[peer].named_parameters())
        assert all(not after[name].equal(value) for name, value in before.items())
    trained = {peer: models[peer].get_nb_trainable_parameters()[0] for peer in models}
    adapted = mixer_layers(models["moslora"])
    assert len(adapted) == {"attention": 32, "attention and convolutions": 37}[setting["layers"]]
    assert trained["moslora"] - trained["lora"] == len(adapted) * setting["rank"] ** 2
