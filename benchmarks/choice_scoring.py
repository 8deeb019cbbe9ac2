"""How fast questions are answered: by log-probability, by the paper's protocol, and by lm-evaluation-harness.

    python -m benchmarks.choice_scoring --data PATH --adapter RUN_FOLDER --questions 200

PATH holds test/ARC-Easy.jsonl, RUN_FOLDER is what `moslora train demo` wrote. All three score one model object with
the same prompts and candidates, in turns; a ratio compares two times of one round. The harness (lm_eval) is called
where its multiple-choice tasks call it, at the fastest of its batch sizes; ours keeps the package's default.
"""

import argparse
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from benchmarks.results import Row, save
from moslora.data.prompts import build_prompt
from moslora.data.source import task_samples
from moslora.data.tasks import RESPONSE_START, task
from moslora.evaluation.choice import score_by_generation, score_by_log_probability
from moslora.evaluation.scores import Answer
from moslora.runs.adapters import load_adapted, open_adapter

TASK = task("ARC-Easy")
BATCH_SIZE = 16
HARNESS_BATCH_SIZES = (4, 8, 16)
TRIAL_QUESTIONS = 32  # to choose the harness's batch size, and to warm up
TARGETS = {"generation": 8.0, "harness": 1.2}
PEERS = {"generation": "the paper's protocol", "harness": "lm-evaluation-harness"}

Samples = Sequence[Mapping[str, Any]]
Scorer = Callable[[Samples], Any]


def main() -> None:
    arguments = parse_arguments()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    opened = open_adapter(arguments.adapter)
    settings = opened.model.model_copy(update={"dtype": arguments.dtype})
    model, tokenizer = load_adapted(type(opened)(**{**vars(opened), "model": settings}))
    samples = task_samples(TASK, arguments.data, split="test", limit=arguments.questions)
    options = {"task": TASK, "prompt_style": opened.prompt_style, "progress": False}
    harnesses = {size: harness_scorer(model, tokenizer, opened.prompt_style, size) for size in HARNESS_BATCH_SIZES}
    trials = {size: seconds(scorer, samples[:TRIAL_QUESTIONS])[0] for size, scorer in harnesses.items()}
    harness_batch_size = min(trials, key=lambda size: trials[size])
    scorers: dict[str, Scorer] = {
        "ours": lambda some: score_by_log_probability(model, tokenizer, some, batch_size=BATCH_SIZE, **options),
        "harness": harnesses[harness_batch_size],
        "generation": lambda some: score_by_generation(model, tokenizer, some, **options),
    }
    scorers["ours"](samples[:TRIAL_QUESTIONS])
    times, found = measure(scorers, samples, rounds=arguments.rounds, generation_rounds=arguments.generation_rounds)
    details = {peer: compare(found["ours"], found[peer]) for peer in times if peer != "ours"}
    rows = [row(peer, times, details[peer]) for peer in details]
    for line in rows:
        print(line)
    payload = {
        "task": TASK.name,
        "questions": len(samples),
        "prompt": opened.prompt_style,
        "dtype": arguments.dtype,
        "batch_size": BATCH_SIZE,
        "harness_batch_size": harness_batch_size,
        "harness_trial_seconds": trials,
        "accuracy": {name: sum(answer.is_correct for answer in found[name]) / len(samples) for name in times},
        "against": details,
        "seconds": times,
    }
    print(save(f"choice_scoring{'' if arguments.dtype == 'float32' else '_' + arguments.dtype}", payload, rows))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the commonsense tasks")
    parser.add_argument("--adapter", required=True, help="run folder of a trained adapter")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--generation-rounds", type=int, default=1, help="the first so many rounds also generate")
    parser.add_argument(
        "--dtype", default="float32", help="bfloat16 rounds so that near ties fall differently with every batch shape"
    )
    return parser.parse_args()


def harness_scorer(model: Any, tokenizer: Any, style: str, batch_size: int) -> Scorer:
    """Answers by the harness's log-likelihoods of the same candidates after the same prompts."""
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)

    def score(samples: Samples) -> list[Answer]:
        allowed = [TASK.allowed_labels(sample["instruction"]) for sample in samples]
        requests = [
            Instance("loglikelihood", {}, (build_prompt(sample, style=style), RESPONSE_START + label), index)
            for index, (sample, labels) in enumerate(zip(samples, allowed, strict=True))
            for label in labels
        ]
        likelihoods = iter(harness.loglikelihood(requests, disable_tqdm=True))
        answers = []
        for index, (sample, labels) in enumerate(zip(samples, allowed, strict=True)):
            scores = {label: next(likelihoods)[0] for label in labels}
            predicted = max(scores, key=lambda label: scores[label])
            expected = sample["answer"]
            answers.append(Answer(index, expected, predicted, predicted == expected, scores=scores))
        return answers

    return score


def measure(
    scorers: Mapping[str, Scorer], samples: Samples, *, rounds: int, generation_rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[Answer]]]:
    """The seconds of each scorer in each round, whose order turns, and its last answers."""
    times: dict[str, list[float]] = {}
    found: dict[str, list[Answer]] = {}
    for number in range(max(rounds, generation_rounds)):
        names = [name for name in scorers if number < (generation_rounds if name == "generation" else rounds)]
        for name in names if number % 2 == 0 else reversed(names):
            taken, found[name] = seconds(scorers[name], samples)
            times.setdefault(name, []).append(taken)
            print(f"round {number + 1}: {name} {taken:.2f} s", flush=True)
    return times, found


def seconds(scorer: Scorer, samples: Samples) -> tuple[float, list[Answer]]:
    started = time.perf_counter()
    answers = scorer(samples)
    return time.perf_counter() - started, answers


def compare(ours: Sequence[Answer], theirs: Sequence[Answer]) -> dict[str, Any]:
    """The share of answers alike among the questions the peer answered; a text without a label is counted apart."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if b.predicted is not None]
    return {
        "agreement": sum(a.predicted == b.predicted for a, b in pairs) / len(pairs) if pairs else None,
        "without_answer": 1 - len(pairs) / len(theirs),
        "largest_score_difference": score_difference(pairs),
    }


def row(peer: str, times: Mapping[str, list[float]], details: Mapping[str, Any]) -> Row:
    """How many times faster than the peer we are, in the median of the rounds, with what the answers have in common."""
    ratios = [other / ours for other, ours in zip(times[peer], times["ours"], strict=False)]
    alike = "none answered" if details["agreement"] is None else f"{details['agreement']:.1%} same answers"
    return Row(
        f"choice scoring, {TASK.name}",
        PEERS[peer],
        statistics.median(ratios),
        TARGETS[peer],
        min(ratios),
        max(ratios),
        unit="x faster",
        at_least=True,
        note=f"{alike}, {details['without_answer']:.1%} without an answer, {len(ratios)} rounds",
    )


def score_difference(pairs: Sequence[tuple[Answer, Answer]]) -> float | None:
    """The largest difference of log-probabilities relative to a question's first candidate.

    Relative, because the harness also counts the newline before the answer, the same for every candidate.
    """
    found = [
        abs((a.scores[label] - a.scores[first]) - (b.scores[label] - b.scores[first]))
        for a, b in pairs
        if a.scores and b.scores
        for first in list(a.scores)[:1]
        for label in a.scores
    ]
    return max(found, default=None)


if __name__ == "__main__":
    main()
