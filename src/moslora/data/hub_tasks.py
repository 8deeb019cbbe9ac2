"""Tasks whose questions the hub has, written as the paper's instructions (format of LLM-Adapters; see docs).

PIQA's test answers are not public: as in the paper, its validation set is the test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from moslora.data.files import Row
from moslora.data.tasks import FORMAT_LINE, RESPONSE_START
from moslora.errors import DataError

Question = tuple[str, Sequence[str], int]  # the question, its options, and which of them (from 0) is right


@dataclass(frozen=True)
class HubTask:
    """Where a task lies on the hub, and how one of its rows is read."""

    repository: str
    config: str | None
    test_split: str
    option: str  # what an option is called: `answer` makes answer1, answer2, ...
    between: str  # what stands between two options
    read: Callable[[Mapping[str, Any]], Question]

    def split(self, split: str) -> str:
        """The hub's name of `train` or `test`."""
        return self.test_split if split == "test" else split

    def sample(self, row: Mapping[str, Any], number: int) -> Row:
        """A row of the hub, the `number`-th from 1, as a sample. Raises DataError if it is not in the expected form."""
        try:
            question, options, right = self.read(row)
            labels = [f"{self.option}{index}" for index in range(1, len(options) + 1)]
            answer = labels[right]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise DataError(
                f"hub set '{self.repository}': sample {number} is not in the expected form "
                f"({type(error).__name__}: {error}); give a data folder"
            ) from error
        listed = self.between.join(f"{label.title()}: {option}" for label, option in zip(labels, options, strict=True))
        kind = "solution" if self.option == "solution" else "answer"
        instruction = (
            f"Please choose the correct {kind} to the question: {question}\n\n{listed}\n\n"
            f"{FORMAT_LINE} {'/'.join(labels)}"
        )
        return {"instruction": instruction, "input": "", "output": RESPONSE_START + answer, "answer": answer}


def _choices(question: str) -> Callable[[Mapping[str, Any]], Question]:
    def read(row: Mapping[str, Any]) -> Question:
        choices = row["choices"]
        return row[question], choices["text"], choices["label"].index(row["answerKey"])

    return read


def _piqa(row: Mapping[str, Any]) -> Question:
    if row["label"] not in (0, 1):
        raise ValueError(f"label {row['label']}")
    return row["goal"], [row["sol1"], row["sol2"]], row["label"]


HUB_TASKS = {
    "ARC-Easy": HubTask("allenai/ai2_arc", "ARC-Easy", "test", "answer", " ", _choices("question")),
    "ARC-Challenge": HubTask("allenai/ai2_arc", "ARC-Challenge", "test", "answer", " ", _choices("question")),
    "openbookqa": HubTask("allenai/openbookqa", "main", "test", "answer", " ", _choices("question_stem")),
    "piqa": HubTask("baber/piqa", None, "validation", "solution", "\n\n", _piqa),  # PIQA as files, without a script
}
