"""Tasks about pictures: how their published files are read, and by which rule an answer is scored."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from moslora.data.vision_tasks.choice import choice_table, mmbench, seed
from moslora.data.vision_tasks.judged import mathvista, mm_vet, prediction_suffix, write_predictions, write_submission
from moslora.data.vision_tasks.question import Question, options_only, with_blank_pictures
from moslora.data.vision_tasks.scienceqa import scienceqa
from moslora.data.vision_tasks.short import easy_vqa, mme, textvqa
from moslora.errors import unknown_name

__all__ = [
    "VISION_TASKS",
    "Question",
    "VisionTask",
    "options_only",
    "prediction_suffix",
    "vision_task",
    "with_blank_pictures",
    "write_predictions",
    "write_submission",
]


@dataclass(frozen=True)
class VisionTask:
    """A task: its reader, called with a path, `image_folder` and `limit`, and how its answers are made and scored.

    `rule` is a name of `moslora.evaluation.vision`; None where another model judges. `max_new_tokens` is the longest
    answer that the reference generates.
    """

    name: str
    read: Callable[..., list[Question]]
    rule: str | None
    max_new_tokens: int
    file: str


VISION_TASKS = {
    task.name: task
    for task in (
        VisionTask("mmbench", mmbench, "letters", 5, "a table (.tsv), English"),
        VisionTask("mmbench-cn", mmbench, "letters", 5, "a table (.tsv), Chinese"),
        VisionTask("seed-image", seed, "exact-letter", 5, "SEED-Bench.json, or a table (.tsv)"),
        VisionTask("ai2d", choice_table, "letter-and-stop", 5, "a table (.tsv)"),
        VisionTask("scienceqa-image", scienceqa, "answer-is", 16, "a folder, or conversations (.json, .jsonl)"),
        VisionTask("textvqa", textvqa, "soft", 32, "TextVQA's .json, or a table (.tsv)"),
        VisionTask("mme", mme, "yes-no", 5, "a table (.tsv)"),
        VisionTask("easy-vqa", easy_vqa, "short", 8, "a folder with questions.json and images"),
        VisionTask(
            "easy-vqa-balanced",
            partial(easy_vqa, is_balanced=True),
            "short",
            8,
            "a folder with questions.json and images",
        ),
        VisionTask(
            "easy-vqa-open",
            partial(easy_vqa, is_open=True),
            "short",
            8,
            "a folder with questions.json and images",
        ),
        VisionTask("mm-vet", mm_vet, None, 512, "a table (.tsv)"),
        VisionTask("mathvista", mathvista, None, 512, "a table (.tsv)"),
    )
}


def vision_task(name: str) -> VisionTask:
    """The task of this name.

    Raises ConfigError, with the nearest name, for an unknown one.
    """
    if name not in VISION_TASKS:
        raise unknown_name("task", name, VISION_TASKS)
    return VISION_TASKS[name]
