"""Multiple-choice questions: the paper's generating protocol, and scoring by the answers' log-probabilities.

A candidate is the response `the correct answer is LABEL`, its score the sum of its tokens' log-probabilities after the
prompt. Candidates share most of their tokens, and a forward pass scores every continuation of every position it
reads, so a question needs one pass for each continuation that none of the others contains: one in all if the labels
differ in their last token only. What all prompts start with is run once for the whole task (`shared_prefix.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from moslora.adapter.twin import accepts
from moslora.data.probing import sees_left_padding
from moslora.data.prompts import NONE, build_prompt, prompt_ids, response_ids
from moslora.data.tasks import RESPONSE_START, Task, check_answers
from moslora.data.tokens import pad_token_id
from moslora.errors import DataError
from moslora.evaluation.generating import check_positions, check_tokens, generated_texts
from moslora.evaluation.inference import evaluation_mode, input_device, left_padded, length_batches
from moslora.evaluation.scores import Answer, agreement
from moslora.evaluation.shared_prefix import SharedPrefix, shared_prefix
from moslora.launch import gathered

__all__ = ["Answer", "agreement", "score_by_generation", "score_by_log_probability"]

CPU_TOKENS = 384  # of one forward pass there: more leave the processor's caches between layers, and take longer each

Samples = Sequence[Mapping[str, Any]]
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class _Row:
    """One row of a forward pass: a prompt, and a continuation that scores some of its question's candidates."""

    question: int
    prompt: list[int]
    continuation: Tokens
    candidates: dict[str, Tokens]

    @property
    def ids(self) -> list[int]:
        return [*self.prompt, *self.continuation]


def score_by_log_probability(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    samples: Samples,
    *,
    task: Task,
    prompt_style: str,
    batch_size: int = 16,
    progress: bool = True,
) -> list[Answer]:
    """Answer each question with the most probable of its allowed labels, the first one on a tie.

    The answers come in the samples' order; `scores` hold each candidate's log-probability, without an end token. The
    model's mode is restored. `batch_size` is the most rows of a forward pass; a CPU gets fewer long ones, and a model
    that sees masked padding only rows of one length. `progress` shows a bar on stderr.

    Raises DataError for a sample with a bad field, labels that the tokenizer cannot tell apart, or a question longer
    than the model's positions.
    """
    check_answers(samples, task, source=f"task '{task.name}'")
    candidates, pad = _candidate_tokens(task, tokenizer), pad_token_id(tokenizer)
    prompts = prompt_ids(_asked(samples, prompt_style), tokenizer, style=prompt_style)
    check_tokens(model, tokenizer, prompts)
    rows: list[_Row] = []
    for index, (sample, prompt) in enumerate(zip(samples, prompts, strict=True)):
        allowed = {label: candidates[label] for label in task.allowed_labels(sample["instruction"])}
        rows += _rows(index, prompt, allowed)
    check_positions(model, [len(row.ids) for row in rows], [row.question for row in rows])
    found: list[tuple[int, dict[str, float]]] = []
    with evaluation_mode(model):
        prefix = shared_prefix(model, prompts)
        for batch in length_batches(
            rows,
            batch_size,
            length=lambda row: len(row.ids) - prefix.length,
            progress=progress,
            most_tokens=CPU_TOKENS if input_device(model).type == "cpu" else None,
            is_padded=not sees_left_padding(model),
        ):
            scored = _score_rows(model, batch, prefix=prefix, pad=pad)
            found += [(row.question, one) for row, one in zip(batch, scored, strict=True)]
    scores: list[dict[str, float]] = [{} for _ in samples]
    for question, one in gathered(found):
        scores[question] |= one
    return [_scored_answer(index, sample, task, scores[index]) for index, sample in enumerate(samples)]


def _candidate_tokens(task: Task, tokenizer: PreTrainedTokenizerBase) -> dict[str, Tokens]:
    all_ids = response_ids([RESPONSE_START + label for label in task.labels], tokenizer)
    labels: dict[Tokens, str] = {}
    for label, ids in zip(task.labels, all_ids, strict=True):
        same = labels.setdefault(tuple(ids), label)
        if same != label or not ids:
            raise DataError(
                f"task '{task.name}': the tokenizer gives the labels '{same}' and '{label}' the same tokens; "
                "use the tokenizer that belongs to the model"
            )
    return {label: ids for ids, label in labels.items()}


def _rows(question: int, prompt: list[int], candidates: dict[str, Tokens]) -> list[_Row]:
    """The fewest rows that score every candidate: one for each continuation which no longer one starts with."""
    continuations = {ids[:-1] for ids in candidates.values()}
    longest = [c for c in continuations if not any(o != c and o[: len(c)] == c for o in continuations)]
    rows = []
    for continuation in sorted(longest):
        scored = {k: ids for k, ids in candidates.items() if continuation[: len(ids) - 1] == ids[:-1]}
        rows.append(_Row(question, prompt, continuation, scored))
    return rows


def _score_rows(
    model: torch.nn.Module, rows: Sequence[_Row], *, prefix: SharedPrefix, pad: int
) -> list[dict[str, float]]:
    """The log-probabilities of each row's candidates; logits are computed only where a candidate's token follows."""
    keep = max(len(row.continuation) for row in rows) + 1
    ids = [row.ids[prefix.length :] for row in rows]
    inputs = left_padded(ids, pad=pad, device=input_device(model), prefix_length=prefix.length)
    options = prefix.as_arguments(model, rows=len(rows))
    if accepts(model, "logits_to_keep"):
        options["logits_to_keep"] = keep
    logits = model(**inputs.as_arguments(model), **options).logits[:, -keep:]
    logits = logits if logits.dtype == torch.float64 else logits.float()
    normaliser = logits.logsumexp(dim=-1).cpu()
    found: list[dict[str, float]] = []
    for number, row in enumerate(rows):
        first = keep - 1 - len(row.continuation)  # the position whose logits predict the first response token
        scores = {}
        for label, ids in row.candidates.items():
            steps = torch.arange(first, first + len(ids))
            chosen = logits[number, steps.to(logits.device), torch.tensor(ids, device=logits.device)].cpu()
            scores[label] = float((chosen - normaliser[number, steps]).sum())
        found.append(scores)
    return found


def _scored_answer(index: int, sample: Mapping[str, Any], task: Task, scores: dict[str, float]) -> Answer:
    ordered = {label: scores[label] for label in task.labels if label in scores}
    if any(score != score for score in ordered.values()):
        raise DataError(f"question {index + 1}: the model's log-probabilities are not numbers; try another dtype")
    predicted = max(ordered, key=lambda label: ordered[label])
    return _answer(index, sample, task, predicted, scores=ordered)


def score_by_generation(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    samples: Samples,
    *,
    task: Task,
    prompt_style: str,
    batch_size: int = 1,
    num_beams: int = 4,
    max_new_tokens: int = 32,
    progress: bool = True,
) -> list[Answer]:
    """The paper's protocol: beam search without sampling, and the first match of the task's pattern in the new text.

    The answers come in the samples' order, with the generated `text`; no match is a wrong answer with `predicted`
    None. The model's own generation settings (penalties, sampling) are left out. The model's mode is restored.

    Raises DataError for a sample with a bad field or a question longer than the model's positions.
    """
    check_answers(samples, task, source=f"task '{task.name}'")
    texts = generated_texts(
        model,
        tokenizer,
        prompt_ids(_asked(samples, prompt_style), tokenizer, style=prompt_style),
        num_beams=num_beams,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        progress=progress,
    )
    return [_generated_answer(index, sample, task, texts[index]) for index, sample in enumerate(samples)]


def _asked(samples: Samples, prompt_style: str) -> Samples:
    """The questions to be answered in a style; without any prompt, the answer stands on a line of its own."""
    if prompt_style != NONE:
        return samples
    return [{"instruction": f"{build_prompt(sample, style=NONE)}\n"} for sample in samples]


def _generated_answer(index: int, sample: Mapping[str, Any], task: Task, text: str) -> Answer:
    predicted = task.predicted_label(text)
    return _answer(index, sample, task, predicted, text=text, is_read=predicted is not None)


def _answer(index: int, sample: Mapping[str, Any], task: Task, predicted: str | None, **found: Any) -> Answer:
    expected, group = sample["answer"], sample.get("group")
    return Answer(
        index,
        expected,
        predicted,
        predicted == expected,
        kind=sample.get("kind"),
        options=len(task.allowed_labels(sample["instruction"])),
        group=None if group is None else str(group),
        **found,
    )
