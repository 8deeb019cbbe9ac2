"""What a vision-language model's run works on: conversations whose pictures are counted in tokens before any opens.

A row holds token ids, in which each picture has as many places as the model gives it, and labels on the answers; the
pictures themselves are opened when a batch is made.
"""

from collections.abc import Hashable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median_high
from typing import Any

from moslora.data import easy_vqa
from moslora.data.chat import chat_example
from moslora.data.conversations import Conversation, Read, read_conversations
from moslora.data.fields import unused_fields, without_fields
from moslora.data.images import ImageHeader
from moslora.data.messages import SAMPLE_FIELDS
from moslora.data.picture_template import PictureTemplate
from moslora.data.references import IMAGE_FIELDS, MARKER
from moslora.data.source import load_samples
from moslora.data.tokens import IGNORED, Example
from moslora.data.vision_tasks import VisionTask, vision_task
from moslora.data.vocabulary import Vocabulary
from moslora.errors import DataError
from moslora.runs.material import Material, Samples, Sources, TestSet, groups_of, in_batches, split
from moslora.runs.processors import picture_text, placeholder
from moslora.runs.vision_settings import VisionDataSettings, VisionEvaluationSettings, VisionRecipe

BUILT_IN = {
    "easy-vqa": partial(easy_vqa.conversations, "train"),
    "easy-vqa-balanced": partial(easy_vqa.conversations, "train", is_balanced=True),
    "easy-vqa-open": partial(easy_vqa.conversations, "train", is_open=True),
    "easy-vqa-captions": partial(easy_vqa.captions, "train"),
}


def read_sources(recipe: VisionRecipe) -> Sources:
    """Read the conversations of every source, and the tasks' questions; no picture is opened yet."""
    data = recipe.data
    return Sources({name: _samples(name, data) for name in data.sources}, load_test_sets(recipe.evaluation))


def _samples(name: str, data: VisionDataSettings) -> Samples:
    if name in BUILT_IN:
        return BUILT_IN[name]()[: data.limit]
    return load_samples(name, split="train", limit=data.limit, folder=data.folder, built_in=[*BUILT_IN])


def load_test_sets(settings: VisionEvaluationSettings) -> list[TestSet]:
    """The questions of the tasks. Raises DataError for a set that is not there."""
    tasks = [vision_task(name) for name in settings.tasks]
    found = [TestSet(task, task.read(_test_file(task, settings), limit=settings.limit)) for task in tasks]
    for test_set in found:
        _check_markers(test_set)
    return found


def _check_markers(test_set: TestSet) -> None:
    """A text that holds the marker itself would stand for a picture that is not there."""
    for question in test_set.samples:
        if question.content.count(MARKER) != len(question.images):
            raise DataError(
                f"task {test_set.task.name}: question {question.index}: its text contains {MARKER}, which stands for a"
                " picture; reword it, or take the question out"
            )


def _test_file(task: VisionTask, settings: VisionEvaluationSettings) -> Path:
    if settings.data is None:
        if task.name in BUILT_IN:
            return easy_vqa.folder("test")
        raise DataError(f"task {task.name}: say where it is with evaluation.data (--data): {task.file}")
    folder = Path(settings.data).expanduser()
    found = [path for path in (folder / task.name, *sorted(folder.glob(f"{task.name}.*"))) if path.exists()]
    if folder.is_file() and len(settings.tasks) == 1:
        return folder
    if not found:
        raise DataError(f"task {task.name}: nothing of that name in {folder}; put it there ({task.file})")
    return found[0]


def rows_of(recipe: VisionRecipe, sources: Sources, processor: Any, *, vocabulary: Vocabulary) -> Material:
    """The conversations as rows. Raises DataError for a sample that cannot be used, unless `data.skip_bad`."""
    data = recipe.data
    vocabulary.check_padding()
    rows: list[dict[str, Any]] = []
    groups: list[Hashable] = []
    remarks: list[str] = []
    for name, read in sources.samples.items():
        samples, template = without_fields(read, data.ignore), chat_template(processor)
        found = read_conversations(samples, source=name, image_folder=_image_folder(name, data), skip_bad=data.skip_bad)
        kept, left_out, cut = _rows(found, data, processor, template)
        vocabulary.check([row["input_ids"] for _, row in kept], place=f"{name}: sample")
        own_groups = groups_of(read, data.together, source=name)
        rows += [row for _, row in kept]
        groups += [own_groups[_number(conversation)] for conversation, _ in kept]
        remarks += [*found.remarks, *_left_out(name, found.left_out + left_out)]
        longer = f"{cut} sample was" if cut == 1 else f"{cut} samples were"
        remarks += [f"{name}: {longer} longer than data.max_length_tokens and cut"] if cut else []
        remarks += _unused(samples, data, template, source=name)
    trained, held_out = split(groups, data)
    chosen, validation = [rows[i] for i in trained], [rows[i] for i in held_out]
    remarks.append(_sizes(rows, placeholder(processor)[1]))
    remarks.append(f"learned from the first sample: {_learned(chosen[0], processor.tokenizer)}")
    of_rows = of_validation = None
    alike: list[tuple[Hashable, int]] | None = None
    if data.together is None:
        alike = [(bool(row["images"]), len(row["input_ids"])) for row in chosen]
    else:
        of_rows = in_batches([groups[i] for i in trained], size=recipe.training.batch_size, seed=recipe.seed)
        of_validation = [groups[i] for i in held_out]
    pictured = sum(bool(row["images"]) for row in chosen) / len(chosen)
    return Material(chosen, of_rows, validation, sources.test_sets, remarks, of_validation, pictured, alike)


def chat_template(processor: Any) -> PictureTemplate:
    """The tokenizer's chat template. Raises DataError without one."""
    if not processor.tokenizer.chat_template and not processor.chat_template:
        raise DataError(
            "the model has no chat template: give its folder one (chat_template.jinja), or assemble it from a chat"
            " model"
        )
    if not processor.tokenizer.chat_template:
        processor.tokenizer.chat_template = processor.chat_template
    return PictureTemplate(processor.tokenizer, processor.image_token)


def question_ids(text: str, processor: Any, *, headers: Sequence[ImageHeader]) -> list[int]:
    """A user's turn with `<image>` for each picture as token ids, up to where the answer starts."""
    template = chat_template(processor).showing(_pictures(headers, processor, place="question"))
    messages = [{"role": "user", "content": text}]
    return template.ids(messages, place="question", add_generation_prompt=True)


def _pictures(headers: Sequence[ImageHeader], processor: Any, *, place: str) -> list[str]:
    try:
        return [picture_text(processor, width=one.width, height=one.height) for one in headers]
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


def _image_folder(name: str, data: VisionDataSettings) -> str | None:
    if data.image_folder is not None or name in BUILT_IN:
        return data.image_folder
    path = Path(name).expanduser()
    return str(path if path.is_dir() else path.parent) if path.exists() else None


def _rows(
    found: Read, data: VisionDataSettings, processor: Any, template: PictureTemplate
) -> tuple[list[tuple[Conversation, dict[str, Any]]], list[tuple[str, str]], int]:
    """The rows with their conversations, the samples left out, and how many rows were cut."""
    kept, left_out, count_cut = [], [], 0
    for conversation in found.conversations:
        try:
            row, is_cut = _row(conversation, data, processor, template)
        except DataError as error:
            if not data.skip_bad:
                raise
            left_out.append((conversation.place, str(error).removeprefix(f"{conversation.place}: ")))
        else:
            kept.append((conversation, row))
            count_cut += is_cut
    return kept, left_out, count_cut


def _row(
    conversation: Conversation, data: VisionDataSettings, processor: Any, template: PictureTemplate
) -> tuple[dict[str, Any], bool]:
    """A conversation's row, and whether its text was cut."""
    place = conversation.place
    pictures = _pictures(conversation.headers, processor, place=place)
    shown = template.showing(pictures)
    shown.check_shows(conversation.chat, place=place)
    example = chat_example(conversation.chat, shown, loss_on="response", place=place)
    _check_pictures(example, pictures, processor, place=place)
    row: dict[str, Any] = {
        **_cut(example, data.max_length_tokens, processor, place=place),
        "images": conversation.images,
        "place": place,
    }
    if all(label == IGNORED for label in row["labels"]):
        reason = f"no answer is left in its first {data.max_length_tokens} tokens; raise data.max_length_tokens"
        if all(label == IGNORED for label in example["labels"]):
            reason = "every answer is marked as not to be learned; unmark one"
        raise DataError(f"{place}: {reason}, or leave such samples out (data.skip_bad)")
    return row, len(example["input_ids"]) > data.max_length_tokens


def _check_pictures(example: Example, pictures: Sequence[str], processor: Any, *, place: str) -> None:
    """A text that holds the image token's name itself would stand for a picture that is not there."""
    token, number = placeholder(processor)
    found, count = example["input_ids"].count(number), sum(picture.count(token) for picture in pictures)
    if found != count:
        raise DataError(
            f"{place}: its text has {found} image tokens and its pictures need {count}: the chat template drops a"
            f" picture, or the text names {token} itself"
        )


def _cut(example: Example, longest: int, processor: Any, *, place: str) -> Example:
    """The first `longest` tokens. Raises DataError where that would cut a picture."""
    ids, number = example["input_ids"], placeholder(processor)[1]
    if number in ids[longest:]:
        raise DataError(
            f"{place}: data.max_length_tokens {longest} would cut a picture (the sample has {len(ids)} tokens,"
            f" {ids.count(number)} of pictures); raise it, or leave such samples out (data.skip_bad)"
        )
    return {name: values[:longest] for name, values in example.items()}


def _number(conversation: Conversation) -> int:
    """The sample's index; places count from 1."""
    return int(conversation.place.rpartition(" ")[2]) - 1


def _left_out(source: str, found: Sequence[tuple[str, str]]) -> list[str]:
    if not found:
        return []
    first = "; ".join(f"{place.removeprefix(f'{source}: ')}: {reason}" for place, reason in found[:3])
    return [f"{source}: {len(found)} sample{'s' * (len(found) > 1)} left out ({first})"]


def _unused(samples: Samples, data: VisionDataSettings, template: PictureTemplate, *, source: str) -> list[str]:
    read = {*SAMPLE_FIELDS, *IMAGE_FIELDS} | ({data.together} if data.together else set())
    unused = [*unused_fields(samples, read=read), *(f"{name} of messages" for name in template.unshown)]
    return [f"{source}: fields not used: {', '.join(unused)}"] if unused else []


def _sizes(rows: Sequence[Mapping[str, Any]], image_token_id: int) -> str:
    """How many samples have pictures, and how many tokens they have."""
    pictures = [row["input_ids"].count(image_token_id) for row in rows if row["images"]]
    texts = [len(row["input_ids"]) - row["input_ids"].count(image_token_id) for row in rows]
    said = [
        f"{median_high(counts)} and {max(counts)} of {what}"
        for what, counts in (("pictures", pictures), ("text", texts))
        if counts
    ]
    start = f"{len(pictures)} of {len(rows)} samples have pictures"
    return f"{start}; tokens per sample, median and most: {', '.join(said)}"


def _learned(row: Mapping[str, Any], tokenizer: Any) -> str:
    """The text that carries the loss, its parts divided by `|`."""
    parts: list[list[int]] = [[]]
    for label in row["labels"]:
        if label != IGNORED:
            parts[-1].append(label)
        elif parts[-1]:
            parts.append([])
    return " | ".join(repr(str(tokenizer.decode(part))) for part in parts if part)
