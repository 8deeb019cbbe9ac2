import json
import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from moslora.errors import CheckpointError
from moslora.records import (
    RESUMED,
    ComparisonRecord,
    CoverageRecord,
    EvaluationRecord,
    Parameters,
    PartRecord,
    RunRecord,
    Score,
    Scored,
)

SCORE = {"correct": 3, "total": 4, "accuracy": 0.75, "low": 0.3, "high": 0.95}


def make_record() -> RunRecord:
    evaluation = EvaluationRecord(
        task="everyday", when="after", scoring="log_probability", by_kind={"is-a": Score(**SCORE)}, **SCORE
    )
    return RunRecord(
        recipe={"name": "demo", "training": {"learning_rate": 1e-3}},
        seed=42,
        parameters=Parameters(trainable=10, total=100, mixer=2),
        machine={"cpu": "x86", "cores": 2, "accelerator": None},
        wall_seconds={"train": 1.5},
        evaluations=[evaluation],
        artifacts={"adapter": "adapter"},
    )


def test_a_saved_record_is_loaded_as_it_was(tmp_path: Path):
    record = make_record()
    record.save(tmp_path / "run.json")
    assert RunRecord.load(tmp_path / "run.json") == record


def test_a_new_record_runs_and_knows_its_time_in_utc():
    record = make_record()
    assert record.status == "running"
    assert abs((datetime.now(UTC) - record.created).total_seconds()) < 60
    assert json.loads(record.model_dump_json())["created"].endswith("Z")


def test_a_loss_that_is_not_a_number_survives_as_valid_json(tmp_path: Path):
    record = make_record()
    record.train_loss = math.nan
    record.save(tmp_path / "run.json")
    assert json.loads((tmp_path / "run.json").read_text())["train_loss"] == "NaN"
    loss = RunRecord.load(tmp_path / "run.json").train_loss
    assert loss is not None
    assert math.isnan(loss)


def test_a_wrong_status_is_refused_when_it_is_set():
    record = make_record()
    with pytest.raises(ValidationError, match="running"):
        record.status = "done"  # type: ignore[assignment]


def test_more_correct_answers_than_questions_are_refused():
    with pytest.raises(ValidationError, match="5 correct answers out of 4"):
        Score(**{**SCORE, "correct": 5})


def test_a_missing_record_says_which_folder_to_give(tmp_path: Path):
    with pytest.raises(
        CheckpointError, match=r"no run record at .*run\.json; give the folder that `moslora train` wrote"
    ):
        RunRecord.load(tmp_path / "run.json")


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("{", "the whole file"),
        ("", "the whole file"),
        ('{"recipe": {}}', "seed"),
        ('{"recipe": {}, "seed": 1, "sed": 2}', "sed"),
        ('{"recipe": {}, "seed": 1, "evaluations": [{"task": 3}]}', "evaluations.0.correct"),
    ],
)
def test_a_damaged_record_names_the_file_and_the_field(tmp_path: Path, content: str, field: str):
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(CheckpointError) as caught:
        RunRecord.load(path)
    assert f"{path} is not a run record of moslora" in str(caught.value)
    assert f": {field}: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_that_is_a_folder_is_an_error(tmp_path: Path):
    with pytest.raises(CheckpointError, match="cannot read the run record"):
        RunRecord.load(tmp_path)


def test_what_most_records_have_no_use_for_is_written_only_where_it_is_set():
    plain = json.loads(make_record().model_dump_json())["evaluations"][0]
    assert not {"scored", "unread"} & plain.keys()
    assert plain["agreement"] is None  # what older versions wrote is still written
    record = make_record()
    record.evaluations[0].unread = 0
    assert json.loads(record.model_dump_json())["evaluations"][0]["unread"] == 0
    comparison = ComparisonRecord(plan={}, baseline="lora", tasks=["vqa"], arms=[])
    assert "scored" not in comparison.model_dump()
    comparison.scored = {"vqa": Scored(is_counted=False, units=4, answers=4)}
    assert ComparisonRecord.model_validate_json(comparison.model_dump_json()) == comparison


def test_parts_are_written_only_for_a_model_made_of_parts(tmp_path: Path):
    record = make_record()
    record.coverage = CoverageRecord(adapted=1, total=2)
    assert json.loads(record.model_dump_json())["coverage"] == {"adapted": 1, "total": 2, "experts_left_out": []}
    part = PartRecord(part="vision", layers=3, adapted=2, quantised=0, ranks=[4], alphas=[8], dead=["fc1"])
    record.coverage = CoverageRecord(adapted=1, total=2, parts=[part])
    record.save(tmp_path / "run.json")
    assert RunRecord.load(tmp_path / "run.json") == record


def test_what_former_records_told_in_notes_alone_is_a_field_now(tmp_path: Path):
    notes = ["2 samples were cut", f"{RESUMED}; versions changed: torch 1 to 2", "folded: verified: tensors; verified"]
    record = make_record().model_copy(update={"notes": notes})
    record.save(tmp_path / "run.json")
    assert not {"exports", "resumptions"} & json.loads((tmp_path / "run.json").read_text()).keys()
    found = RunRecord.load(tmp_path / "run.json")
    assert (found.resumptions, found.exports) == (1, {"folded": "verified: tensors; verified"})
    assert found.notes == notes[:2]
    assert found.told == notes
