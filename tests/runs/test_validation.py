import pytest

from moslora.errors import ConfigError
from moslora.runs.recipe import load_recipe


def message(name: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["training.learning_rat=1"],
            "recipe demo: training.learning_rat is not a setting; did you mean 'learning_rate'?"
            " (moslora settings training lists all)",
        ),
        (
            ["learning_rate=1"],
            "recipe demo: learning_rate is not a setting; did you mean 'training.learning_rate'? (allowed: kind, name,",
        ),
        (
            ["trainig.epochs=1"],
            "recipe demo: trainig is not a setting; did you mean 'training'? (allowed: kind, name, seed,",
        ),
        (["training.learning_rate=fast"], "recipe demo: training.learning_rate is 'fast' (text); allowed: a number"),
        (["training.learning_rate=0"], "recipe demo: training.learning_rate is 0; allowed: more than 0"),
        (["training.learning_rate=.nan"], "recipe demo: training.learning_rate is '.nan' (text); allowed: a number"),
        (["training.batch_size=2.5"], "recipe demo: training.batch_size is 2.5; allowed: a whole number"),
        (["training.batch_size='16'"], "recipe demo: training.batch_size is '16' (text); allowed: a whole number"),
        (["training.batch_size=true"], "recipe demo: training.batch_size is true; allowed: a whole number"),
        (["training.warmup_ratio=1.5"], "recipe demo: training.warmup_ratio is 1.5; allowed: less than 1"),
        (["data.max_length_tokens=4"], "recipe demo: data.max_length_tokens is 4; allowed: at least 8"),
        (["data.packing=yes"], "recipe demo: data.packing is 'yes' (text); allowed: true or false"),
        (["data.train="], "recipe demo: data.train: empty names no source; allowed: text that is not empty, or a list"),
        (["data.train=''"], "recipe demo: data.train: '' (text) names no source; allowed: text that is not empty"),
        (["model.revision=1234567"], "model.revision is 1234567; allowed: text (in quotes if it looks like a number)"),
        (["adapter.method=3"], "recipe demo: adapter.method is 3; allowed: text"),
        (["seed=4294967296"], "recipe demo: seed is 4294967296; allowed: less than 4294967296"),
        (["name=../up"], "recipe demo: name is '../up' (text); allowed: letters, digits, '_', '-' and '.'"),
        (
            ["training.schedule=cosin"],
            "recipe demo: training.schedule is 'cosin' (text); did you mean 'cosine'? "
            "(allowed: linear, cosine, constant)",
        ),
        (
            ["training.trackers=[tensorbord]"],
            "recipe demo: training.trackers[0] is 'tensorbord' (text); did you mean 'tensorboard'? "
            "(allowed: tensorboard, trackio, wandb)",
        ),
        (["evaluation.tasks=everyday"], "evaluation.tasks is 'everyday' (text); allowed: a list such as [a, b]"),
        (
            ["evaluation.tasks=[everyday, bolq]"],
            "recipe demo: evaluation.tasks: unknown task 'bolq'; did you mean 'boolq'? (allowed: ARC-Challenge, ",
        ),
        (["evaluation.tasks=[boolq, boolq]"], "recipe demo: evaluation.tasks: names boolq more than once"),
        (["training=fast"], "recipe demo: training is 'fast' (text); allowed: a group of settings"),
        (
            ["training.micro_batch_size=5"],
            "recipe demo: training.batch_size 8 is not a multiple of training.micro_batch_size 5",
        ),
        (
            ["training.keep_best=true"],
            "recipe demo: training.keep_best needs data.validation_samples (is 0) and "
            "training.evaluate_every_steps (is not set)",
        ),
        (["seed=-1", "training.epochs=x", "data.z=1"], "seed is -1; allowed: at least 0 (wrong too: data.z, training."),
    ],
)
def test_a_mistake_names_the_setting_its_value_and_what_is_allowed(overrides: list[str], expected: str):
    assert expected in message("demo", *overrides)


def test_keeping_the_best_needs_a_checkpoint_at_each_evaluation():
    assert "training.save_every_steps (is 160) must be training.evaluate_every_steps (80), or not set" in message(
        "commonsense-llama3-8b", "training.save_every_steps=160"
    )


def test_evaluating_while_training_needs_validation_samples():
    assert "training.evaluate_every_steps 5 needs data.validation_samples (is 0)" in message(
        "demo", "training.evaluate_every_steps=5"
    )


def test_samples_left_out_for_their_length_keep_their_former_name():
    assert load_recipe("demo", ["data.leave_out_longer=true"]) == load_recipe("demo", ["data.longer=leave_out"])
    assert load_recipe("demo", ["data.leave_out_longer=false"]) == load_recipe("demo")
    assert "leave_out_longer" not in load_recipe("demo", ["data.leave_out_longer=true"]).to_dict()["data"]
    both = message("demo", "data.leave_out_longer=true", "data.longer=cut")
    assert both == "recipe demo: data: longer is 'cut' (text) and leave_out_longer true; keep longer"
    assert "leave_out_longer is 'yes' (text); write longer: cut, leave_out or stop" in message(
        "demo", "data.leave_out_longer=yes"
    )


def test_samples_are_validated_on_in_one_way():
    given = ["data.validation_samples=5", "data.validation_share=0.1"]
    assert "data.validation_samples=5 and data.validation_share=0.1 both say what to validate on" in message(
        "demo", *given
    )
    shares = ["data.validation_samples=0", "data.validation_share=0.1", "training.evaluate_every_steps=5"]
    assert load_recipe("demo", shares).data.validation_settings == {"validation_share": 0.1}
    assert "data.validation_share is 1.0; allowed: less than 1" in message("demo", "data.validation_share=1.0")
    own = load_recipe("demo", ["data.validation_samples=0", "data.validation=own.jsonl"]).data
    assert own.validating(7).validation_settings == {"validation_samples": 7}


def test_weights_of_sources_are_numbers_above_zero():
    data = load_recipe("demo", ["data.train={a.jsonl: 2, b.jsonl: 0.5}", "data.together=null"]).data
    assert (data.sources, data.model_dump()["train"]) == (["a.jsonl", "b.jsonl"], {"a.jsonl": 2, "b.jsonl": 0.5})
    refused = "data.train: the weight of a.jsonl is {}; allowed: a number above 0"
    for given, shown in (("0", "0"), ("-1", "-1"), ("much", "'much' (text)"), ("true", "true")):
        assert refused.format(shown) in message("demo", f"data.train={{a.jsonl: {given}}}", "data.together=null")
    assert "data.train: an empty group names no source" in message("demo", "data.train={}")
    assert "data.together=group does not work with weights" in message("demo", "data.train={a.jsonl: 1}")


def test_a_column_is_given_to_a_field_that_the_format_has():
    renamed = ["data.columns={instruction: question, weight: rated}", "data.together=null"]
    assert load_recipe("demo", renamed).data.model_dump()["columns"]["instruction"] == "question"
    assert "unknown field of data.columns (data.format instruction) 'instructoin'; did you mean 'instruction'?" in (
        message("demo", "data.columns={instructoin: question}")
    )
    assert "(data.format text) 'output'" in message(
        "demo", "data.columns={output: a}", "data.format=text", "data.loss_on=sequence"
    )


def test_plain_text_has_no_response_to_learn_alone():
    assert "data.format text has none" in message("demo", "data.format=text", "data.loss_on=response")
