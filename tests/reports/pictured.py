"""Runs that answered questions about pictures, as they are left on disk; made from fixed numbers."""

import base64
import io
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from moslora.evaluation.answers import Answer
from moslora.evaluation.examples import chosen
from moslora.evaluation.recording import evaluation_record
from moslora.records import CoverageRecord, PartRecord, RunRecord

COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")
EASY = {"colour": COLOURS, "shape": SHAPES, "yes/no": ("yes", "no")}
ABILITIES = ("attribute_reasoning", "coarse_perception", "finegrained_perception (cross-instance)")
ABILITIES = (*ABILITIES, "finegrained_perception (instance-level)", "logic_reasoning", "relation_reasoning")
LETTERS = dict.fromkeys(ABILITIES, ("A", "B", "C", "D"))
QUESTIONS = 240
PARTS = [
    PartRecord(
        part="language",
        layers=16,
        adapted=14,
        quantised=14,
        ranks=[8],
        alphas=[16],
        dropouts=[0.05],
        mixers=["orthogonal"],
        parameters=120_000,
        mixer_parameters=900,
        dead=[],
    ),
    PartRecord(
        part="vision",
        layers=20,
        adapted=18,
        quantised=0,
        ranks=[4, 8],
        alphas=[8, 16],
        parameters=60_000,
        dead=[f"encoder.layers.{number}.self_attn.q_proj" for number in range(8)],
    ),
    PartRecord(part="projector", layers=2, adapted=0, quantised=0, whole_parameters=2_112),
]
RULES = {"easy-vqa": "equal to an answer; answers made alike", "mmbench": "one option's letter; all passes are right"}


def answers(kinds: dict[str, Sequence[str]], share: float, *, seed: int, unread: float = 0.02) -> list[Answer]:
    """Answers of which about so many are right; easier for the first kinds."""
    truth, draw = random.Random(0), random.Random(seed)
    found = []
    for index in range(QUESTIONS):
        place = index % len(kinds)
        kind, labels = [*kinds.items()][place]
        expected = truth.choice(labels)
        is_right = draw.random() < share * (1 - 0.3 * place / len(kinds))
        is_read = is_right or draw.random() >= unread
        other = draw.choice([label for label in labels if label != expected])
        predicted = expected if is_right else other if is_read else None
        options = 4 if kinds is LETTERS else None
        text = predicted or "I cannot see it"
        found.append(
            Answer(index, expected, predicted, is_right, kind=kind, text=text, options=options, is_read=is_read)
        )
    return found


def write_pictured_run(folder: Path, *, share: float = 0.85, seed: int = 1, method: str = "moslora") -> RunRecord:
    """A finished run of two tasks, with its controls and examples."""
    (folder / "answers").mkdir(parents=True)
    record = RunRecord(
        status="finished",
        recipe={
            "name": "pictures",
            "kind": "vision_language",
            "model": {"path": "llava"},
            "adapter": {"method": method},
        },
        seed=seed,
        steps=200,
        coverage=CoverageRecord(adapted=22, total=30, parts=PARTS),
    )
    for task, kinds in (("easy-vqa", EASY), ("mmbench", LETTERS)):
        given = {"before": (0.1, seed + 10), "after": (share, seed), "picture blanked": (0.35, seed + 20)}
        given |= {"question removed": (0.3, seed + 30)} if kinds is LETTERS else {}
        found = {when: answers(kinds, *numbers[:1], seed=numbers[1]) for when, numbers in given.items()}
        for when, own in found.items():
            asked: dict[str, Any] = {"task": task, "when": when, "scoring": "generation", "prompt": "chat"}
            record.evaluations.append(evaluation_record(own, wall_seconds=1.0, rule=RULES[task], **asked))
            lines = "".join(json.dumps(answer.to_dict()) + "\n" for answer in own)
            (folder / "answers" / f"{task}-{when.replace(' ', '-')}-generation.jsonl").write_text(lines)
        _write_examples(folder / "answers" / f"{task}-examples.json", found["after"], found["picture blanked"])
    record.save(folder / "run.json")
    return record


def _write_examples(path: Path, after: list[Answer], blanked: list[Answer]) -> None:
    examples = [_example(one, blanked[one.index]) for one in chosen(after)]
    path.write_text(json.dumps({"when": "after", "examples": examples}))


def _example(answer: Answer, other: Answer) -> dict[str, Any]:
    question = f"What is the {answer.kind}?"
    if answer.options:
        question += "\nA. a cat\nB. a dog\nC. a ship\nD. a house"
    return {
        "index": answer.index,
        "kind": answer.kind,
        "question": question,
        "expected": answer.expected,
        "given": _given(answer),
        "controls": {"picture blanked": _given(other)},
        "pictures": [_picture(answer)],
    }


def _given(answer: Answer) -> dict[str, Any]:
    return {"predicted": answer.predicted, "text": answer.text, "is_correct": answer.is_correct}


def _picture(answer: Answer) -> dict[str, Any]:
    size = (64, 64) if not answer.options else (160, 90)
    image = Image.new("RGB", size, "white")
    colour = answer.expected if answer.expected in COLOURS else "teal"
    ImageDraw.Draw(image).ellipse((12, 16, 44, 48), fill=colour)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    content = base64.b64encode(stream.getvalue()).decode()
    return {"media_type": "image/png", "width": size[0], "height": size[1], "content": content}
