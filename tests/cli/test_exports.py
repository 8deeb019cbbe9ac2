import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import Result

from moslora.records import RunRecord

Moslora = Callable[..., Result]
Refused = Callable[..., str]


def test_folding_a_run_writes_plain_lora_and_prints_how_to_load_it(finished: Path, moslora: Moslora):
    result = moslora("fold", finished)
    folded = finished / "folded"
    first, of_tensors, of_outputs, of_tokens, explanation, line = result.stdout.splitlines()
    assert first == f"folded into plain LoRA: {folded}"
    assert re.fullmatch(
        r"verified: tensors of 4 layers differ by at most \S+e-0[78] of their largest number, as rounding to float32"
        " explains",
        of_tensors,
    )
    assert of_outputs.startswith("verified: logits differ by ")
    assert re.fullmatch(r"the likeliest token is the same at 100 % of \d+ positions", of_tokens)
    assert explanation == "load it with plain PEFT, without moslora:"
    python, option, command = shlex.split(line)
    assert (python, option) == ("python", "-c")
    code = f"import sys; {command}; assert 'moslora.adapter' not in sys.modules; print(type(model).__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "PeftModelForCausalLM\n"
    assert not any("mixer" in key for key in load_file(folded / "adapter_model.safetensors"))
    record = RunRecord.load(finished / "run.json")
    assert record.artifacts == {"adapter": "adapter", "folded": "folded"}
    assert record.exports == {"folded": f"{of_tensors}; {of_outputs}; {of_tokens}"}
    assert record.told[-1] == f"folded: {record.exports['folded']}"


def test_merging_a_run_writes_a_full_model_of_the_chosen_dtype(tmp_path: Path, finished: Path, moslora: Moslora):
    out = tmp_path / "elsewhere" / "model"
    result = moslora("merge", finished, "--output", out, "--dtype", "bfloat16")
    assert result.stdout.startswith(f"merged into a full model: {out}\nverified: ")
    merged = AutoModelForCausalLM.from_pretrained(out, dtype="auto")
    assert merged.dtype == torch.bfloat16
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert RunRecord.load(finished / "run.json").artifacts["merged"] == str(out)


@pytest.mark.parametrize("command", ["fold", "merge"])
def test_exports_give_the_adapters_logits(
    command: str, tmp_path: Path, finished: Path, moslora: Moslora, model_folder: Path
):
    out = tmp_path / "out"
    report = json.loads(moslora(command, finished, "--output", out, "--json").stdout)
    assert report["folder"] == str(out)
    assert report["verified"]
    assert 0 <= report["difference"] <= report["tolerance"] < report["largest_output"]
    assert report["difference"] <= report["max_difference"]
    assert report["tensors"]["layers"] == 4
    assert 0 < report["tensors"]["difference"] < 1e-5
    ids = torch.arange(3, 40)[None]
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), str(finished / "adapter"))
    base = AutoModelForCausalLM.from_pretrained(model_folder if command == "fold" else out)
    actual = PeftModel.from_pretrained(base, str(out)) if command == "fold" else base
    with torch.no_grad():
        torch.testing.assert_close(actual(ids).logits, expected(ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("command", ["fold", "merge"])
def test_an_output_that_is_in_use_is_refused_before_the_model_is_loaded(
    command: str, finished: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("moslora.runs.adapters.load_model", lambda _settings: pytest.fail("the model was loaded"))
    assert refused(command, finished, "--output", finished) == (
        f"{finished} exists and is not an empty folder: choose another one, or remove it"
    )


def test_another_base_is_refused(tmp_path: Path, finished: Path, refused: Refused, model_folder: Path):
    model = AutoModelForCausalLM.from_pretrained(model_folder, num_hidden_layers=1, ignore_mismatched_sizes=True)
    model.save_pretrained(tmp_path / "smaller")
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path / "smaller")
    message = refused("fold", finished, "--base", tmp_path / "smaller")
    assert message.startswith(
        "this adapter was trained on another base model: num_hidden_layers 2 there, 1 here; load the base it was"
    )
    assert not (finished / "folded").exists()


def tampered(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[:-40])


def not_finite(weights: Path) -> None:
    from safetensors.torch import save_file

    tensors = load_file(weights)
    first = next(iter(tensors))
    save_file({**tensors, first: tensors[first] * float("nan")}, weights)


def pickled(weights: Path) -> None:
    torch.save(load_file(weights), weights.with_name("adapter_model.bin"))
    weights.unlink()


def without_mixers(weights: Path) -> None:
    from safetensors.torch import save_file

    save_file({key: tensor for key, tensor in load_file(weights).items() if "mixer" not in key}, weights)


@pytest.mark.parametrize("command", ["fold", "merge", "evaluate", "inspect"])
@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (tampered, "adapter_model.safetensors is damaged ("),
        (not_finite, "adapter_model.safetensors holds numbers that are not finite (base_model.model.model.layers.0"),
        (
            pickled,
            "has no adapter_model.safetensors; it has a pickle, adapter_model.bin: save it again as safetensors,",
        ),
        (
            without_mixers,
            "the checkpoint of adapter 'default' was refused: 4 tensors are missing (base_model.model.model.",
        ),
    ],
)
def test_damaged_weights_are_refused(
    command: str, damage: Callable[[Path], None], expected: str, finished: Path, refused: Refused
):
    before = (finished / "run.json").read_bytes()
    damage(finished / "adapter" / "adapter_model.safetensors")
    assert expected in refused(command, finished)
    assert (finished / "run.json").read_bytes() == before


def stopped(run: Path) -> None:
    """Leave of a finished run what one that was killed after its last checkpoint leaves."""
    record = RunRecord.load(run / "run.json")
    record.artifacts, record.status, record.evaluations = {}, "running", []
    record.save(run / "run.json")
    shutil.rmtree(run / "adapter")


@pytest.mark.parametrize("command", ["fold", "merge", "evaluate", "inspect", "generate"])
def test_of_a_run_that_was_killed_the_newest_checkpoint_is_used_and_said_so(
    command: str, finished: Path, moslora: Moslora
):
    stopped(finished)
    given = ("Say a.", "--max-new-tokens", "2") if command == "generate" else ()
    result = moslora(command, finished, *given)
    place = finished / "step-4"
    assert f"this run stopped at step 4 of 4: using what it had learned by then, in {place}; to fin" in result.stderr
    assert result.stdout
    if command in ("fold", "merge"):
        assert (place / {"fold": "folded", "merge": "merged"}[command]).is_dir()
    assert RunRecord.load(finished / "run.json").status == "running"


@pytest.mark.parametrize("command", ["fold", "merge", "evaluate", "inspect"])
def test_a_run_without_adapter_and_checkpoint_says_how_to_finish_it(command: str, finished: Path, refused: Refused):
    stopped(finished)
    shutil.rmtree(finished / "checkpoints")
    assert refused(command, finished) == (
        f"the run {finished} has no trained adapter yet: finish it with `moslora train "
        f"{finished / 'recipe.yaml'} --output {finished} --resume`"
    )


def test_plain_lora_has_nothing_to_fold_but_merges(
    tmp_path: Path, refused: Refused, moslora: Moslora, tiny_llama: torch.nn.Module, model_folder: Path
):
    from peft import get_peft_model

    lora, merged = tmp_path / "lora", tmp_path / "merged"
    adapted = get_peft_model(tiny_llama, LoraConfig(target_modules=["q_proj"], init_lora_weights=False))  # type: ignore[arg-type]
    adapted.save_pretrained(str(lora))
    assert refused("fold", lora, "--base", model_folder) == (
        f"{lora} is plain LoRA already: there is nothing to fold, load it with PEFT as it is"
    )
    result = moslora("merge", lora, "--base", model_folder, "--output", merged)
    assert result.stdout.startswith(f"merged into a full model: {merged}\nverified: ")
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        expected = adapted.eval()(ids).logits
        actual = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(ids).logits
    largest = expected.abs().max()  # the base is read in bfloat16 where the processor has it
    torch.testing.assert_close(actual, expected, rtol=0, atol=0.03 * largest.item())


def test_an_unknown_dtype_is_refused(finished: Path, refused: Refused):
    assert refused("merge", finished, "--dtype", "int8") == (
        "--dtype int8 is not known (allowed: float32, bfloat16, float16)"
    )
