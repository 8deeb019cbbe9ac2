"""Tasks of lm-evaluation-harness, by name or by the path of one's YAML file: its own code asks and scores.

Written for lm_eval 0.4.13. The package is optional, and none of it is imported before such a task is asked for.
"""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata, util
from typing import Any

from torch import nn
from transformers import PreTrainedTokenizerBase

from moslora.data.prompts import CHAT
from moslora.data.task_names import HARNESS
from moslora.errors import ConfigError, DataError, MissingDependencyError, suggestion
from moslora.evaluation.answers import Answer
from moslora.evaluation.inference import evaluation_mode

METRICS = ("acc", "exact_match")  # that are right or wrong by question, the first that a task has


@dataclass(frozen=True)
class HarnessTask:
    """A task that the harness has loaded; `manager` is what loaded it."""

    name: str
    manager: Any
    loaded: Any

    @property
    def rule(self) -> str:
        """What gives an answer credit."""
        return f"lm-evaluation-harness {metadata.version('lm_eval')}"


def load_harness_task(spec: str, *, name: str, limit: int | None) -> tuple[HarnessTask, list[int]]:
    """The task, and the numbers of its first `limit` questions.

    Raises MissingDependencyError without the package, ConfigError for an unknown name or a group of tasks, DataError
    for data that cannot be had.
    """
    if util.find_spec("lm_eval") is None:
        raise MissingDependencyError(
            f'the task {HARNESS}:{spec} needs lm-evaluation-harness: pip install "moslora[harness]"'
        )
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    manager = import_module("lm_eval.tasks").TaskManager()
    try:
        tasks = manager.load([spec])["tasks"]
    except KeyError as error:
        raise ConfigError(
            f"lm-evaluation-harness has no task '{spec}'{suggestion(spec, manager.all_tasks)} (lm_eval ls tasks lists"
            " them, and the path of a YAML file is one too)"
        ) from error
    except (OSError, ValueError, ConnectionError) as error:
        raise DataError(f"{HARNESS}:{spec} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if len(tasks) != 1:
        names = ", ".join(f"{HARNESS}:{one}" for one in [*tasks][:5])
        raise ConfigError(f"{HARNESS}:{spec} is {len(tasks)} tasks; name each ({names}, …)")
    (loaded,) = tasks.values()
    return HarnessTask(name, manager, loaded), [*range(len(loaded.eval_docs))][:limit]


def score_harness_task(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    count: int,
    *,
    task: HarnessTask,
    prompt: str,
    batch_size: int,
) -> list[Answer]:
    """The answers to the first `count` questions, as the harness asks and scores them; its seeds are not set.

    Through the chat template if `prompt` says so. Raises DataError for a task without a metric that is right or wrong.
    """
    harness: Any = import_module("lm_eval.models.huggingface").HFLM
    evaluate: Any = import_module("lm_eval.evaluator").simple_evaluate
    unseeded: dict[str, Any] = dict.fromkeys(("random_seed", "numpy_random_seed", "torch_random_seed"))
    with evaluation_mode(model):
        found = evaluate(
            model=harness(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=batch_size),
            tasks=[task.loaded],
            task_manager=task.manager,
            limit=count,
            bootstrap_iters=0,
            apply_chat_template=prompt == CHAT,
            **unseeded,
        )
    (samples,) = found["samples"].values()
    first = [one for one in samples if one["filter"] == samples[0]["filter"]]
    metric = next((name for name in METRICS if name in first[0]["metrics"]), None)
    if metric is None:
        raise DataError(
            f"{task.name}: its metrics ({', '.join(first[0]['metrics'])}) are none of {', '.join(METRICS)}, by which an"
            " answer is right or wrong; choose another task"
        )
    return [_answer(one, metric) for one in sorted(first, key=lambda one: one["doc_id"])]


def _answer(sample: Mapping[str, Any], metric: str) -> Answer:
    replies: Sequence[Any] = sample["filtered_resps"]
    is_choice = not isinstance(replies[0], str)
    scores = [float(reply[0]) for reply in replies] if is_choice else []
    predicted = str(scores.index(max(scores))) if is_choice else str(replies[0])
    return Answer(
        int(sample["doc_id"]),
        str(sample["target"]),
        predicted,
        float(sample[metric]) == 1,
        text=None if is_choice else str(replies[0]),
        scores={str(number): score for number, score in enumerate(scores)} if is_choice else None,
        options=len(scores) or None,
    )
