"""The commands on a run that answers about pictures."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText
from typer.testing import Result

from moslora.runs.adapters import load_adapted, open_adapter
from moslora.runs.processors import describe_processor


def test_a_run_about_pictures_is_trained_evaluated_and_reported(
    write_vision: Callable[..., Path], moslora: Callable[..., Result], tmp_path: Path
):
    run = tmp_path / "run"
    trained = moslora("train", write_vision(), "--output", run).stdout
    head = next(line for line in trained.splitlines() if line.startswith("kind"))
    assert head.split() == ["kind", "after", "commonest", "no", "picture"]
    assert (run / "answers" / "easy-vqa-examples.json").is_file()
    again = moslora("evaluate", run, "--limit", "6").stdout
    head = next(line for line in again.splitlines() if line.startswith("kind"))
    assert head.split() == ["kind", "evaluated", "commonest", "no", "picture"]
    fewer = moslora("evaluate", run, "--limit", "3").stdout
    head = next(line for line in fewer.splitlines() if line.startswith("kind"))
    assert head.split() == ["kind", "evaluated", "commonest"]  # the control was of other questions
    moslora("report", run)
    page = (run / "report.html").read_text()
    assert page.count("<img ") == 3
    assert "3 of the questions, evaluated again" in page


ALONE = {"adapter": {"parts": None, "projector": "only"}}


@pytest.mark.parametrize("quantize", ["none", "nf4"])
def test_a_projector_trained_alone_is_inspected_merged_and_scored(
    write_vision: Callable[..., Path],
    moslora: Callable[..., Result],
    refused: Callable[..., str],
    tmp_path: Path,
    quantize: str,
):
    run, merged = tmp_path / "run", tmp_path / "merged"
    moslora("train", write_vision(**ALONE, model={"quantize": quantize}, evaluation={"tasks": []}), "--output", run)
    found = json.loads(moslora("inspect", run, "--json").stdout)
    assert found["parameters"]["trainable"] == 2 * 32 * 32 + 2 * 32
    assert [part["part"] for part in found["parts"] if part["trained_parameters"]] == ["projector"]
    assert "is a projector that was trained alone, without an adapter to fold: merge" in refused("fold", run)
    moslora("merge", run, "--output", merged, "--dtype", "float32")
    trained = load_file(run / "projector" / "projector.safetensors")
    model = AutoModelForImageTextToText.from_pretrained(merged)
    assert all(torch.equal(model.get_parameter(name), tensor) for name, tensor in trained.items())
    asked = ("--task", "easy-vqa", "--data", tmp_path / "data", "--limit", "2")
    assert "0/2" in moslora("evaluate", merged, *asked).stdout


def test_a_folder_outside_its_run_processes_pictures_as_in_training(
    write_vision: Callable[..., Path], moslora: Callable[..., Result], refused: Callable[..., str], tmp_path: Path
):
    run, folded = tmp_path / "run", tmp_path / "folded"
    moslora("train", write_vision(model={"padding": "square"}, evaluation={"tasks": []}), "--output", run)
    moslora("fold", run, "--output", folded)
    opened = open_adapter(folded)
    _, processor = load_adapted(opened)
    assert describe_processor(processor)["padding"] == "square"
    assert opened.asked_with == "chat"
    assert refused("evaluate", folded) == "no task given: add --task, for example --task easy-vqa"


def test_a_model_of_pictures_without_a_note_is_known_by_its_type(
    llava_folder: Path, moslora: Callable[..., Result], picture_data: Path
):
    asked = ("--task", "easy-vqa", "--data", picture_data, "--limit", "2")
    assert "0/2" in moslora("evaluate", llava_folder, *asked).stdout


def test_options_that_would_do_nothing_for_pictures_are_refused(
    write_vision: Callable[..., Path], moslora: Callable[..., Result], refused: Callable[..., str], tmp_path: Path
):
    run = tmp_path / "run"
    moslora("train", write_vision(evaluation={"tasks": []}, training={"max_steps": 2}), "--output", run)
    asked = ("evaluate", run, "--task", "easy-vqa", "--data", tmp_path / "data")
    assert "there is generation alone: leave it out" in refused(*asked, "--agreement")
    assert "such a model is asked by chat alone; leave it out" in refused(*asked, "--prompt-style", "alpaca")
    written = json.loads(moslora(*asked, "--limit", "1", "--predictions", tmp_path / "out", "--json").stdout)
    assert [Path(path).is_file() for path in written["predictions"]] == [True]


def test_prompts_about_a_picture_are_answered_with_and_without_the_adapter(
    write_vision: Callable[..., Path],
    picture_data: Path,
    moslora: Callable[..., Result],
    refused: Callable[..., str],
    tmp_path: Path,
):
    run, prompts = tmp_path / "run", tmp_path / "prompts.txt"
    moslora("train", write_vision(evaluation={"tasks": []}, training={"max_steps": 2}), "--output", run)
    prompts.write_text("Is it red?\nWhat colour is the shape in the middle?\n")
    picture = next(picture_data.rglob("*.png"))
    how = ("generate", run, "--image", picture, "--max-new-tokens", "4")
    lines = moslora(*how, "--prompts", prompts, "--compare-base", "--json").stdout.splitlines()
    found = [json.loads(line) for line in lines]
    assert [sorted(one) for one in found] == [["answer", "base_answer", "prompt"]] * 2
    assert moslora(*how, "Is it red?").stdout == f"{found[0]['answer']}\n"
    assert "leave out system messages and chats" in refused(*how, "Is it red?", "--system", "Be terse.")
    assert "holds no chat: give a prompt" in refused("generate", run, "--chat")


@pytest.mark.parametrize("method", ["loha", "lokr", "vera", "adalora", "dora", "pissa"])
def test_the_other_methods_merge_with_the_projector_that_trained_beside_them(
    write_vision: Callable[..., Path], moslora: Callable[..., Result], tmp_path: Path, method: str
):
    parts = {part: {"target_modules": ["q_proj", "v_proj"], "r": 4} for part in ("language", "vision")}
    adapter = {"method": method, "parts": parts, "projector": "trained"}
    moslora("train", write_vision(adapter=adapter, evaluation={"tasks": []}), "--output", tmp_path / "run")
    assert "verified: logits differ by" in moslora("merge", tmp_path / "run").stdout


def test_recipes_that_ask_for_what_cannot_be_are_refused_before_weights_are_loaded(
    write_vision: Callable[..., Path], model_folder: Path, refused: Callable[..., str], tmp_path: Path
):
    asked = ("train", write_vision(), "--output", tmp_path / "run", "--set")
    said = refused(*asked, "evaluation.question_removed=true")
    assert said == "evaluation.question_removed would do nothing: no question of easy-vqa has options; set it to false"
    said = refused("inspect", write_vision(), "--set", f"model.path={model_folder}")
    assert "is a model of LlamaConfig, which AutoModelForImageTextToText does not load: check the kind of run" in said


def test_a_question_that_names_the_marker_itself_is_refused_before_weights_are_loaded(
    write_vision: Callable[..., Path], refused: Callable[..., str], picture_data: Path, tmp_path: Path
):
    path = picture_data / "easy-vqa" / "questions.json"
    path.write_text(json.dumps([["Is it red?", "yes", 0], ["What is <image> in HTML?", "a tag", 1]]))
    said = refused("train", write_vision(), "--output", tmp_path / "run")
    assert "its text contains <image>, which stands for a picture; reword it" in said
    assert said.startswith("task easy-vqa: question ")


def test_a_broken_picture_of_a_question_is_told_before_training(
    write_vision: Callable[..., Path], refused: Callable[..., str], picture_data: Path, tmp_path: Path
):
    path = picture_data / "easy-vqa" / "images" / "2.png"
    path.write_bytes(path.read_bytes()[:60])
    words = tmp_path / "data" / "few.json"
    words.write_text(json.dumps(json.loads((picture_data / "train.json").read_text())[:2]))
    said = refused("train", write_vision(data={"train": str(words)}), "--output", tmp_path / "run")
    assert said.startswith("task easy-vqa: question ")
    assert "2.png': broken or cut off" in said
    assert not (tmp_path / "run").exists()
