"""Samples in a training format as token ids with labels: those that a run trains on, and held-out ones."""

from transformers import PreTrainedTokenizerBase

from moslora.data.chat import chat_examples
from moslora.data.examples import SAMPLE_FIELDS, instruction_examples
from moslora.data.fields import unused_fields
from moslora.data.messages import SAMPLE_FIELDS as CHAT_FIELDS
from moslora.data.tokens import Example
from moslora.runs.language_settings import DataSettings
from moslora.runs.material import Samples


def training_examples(
    samples: Samples, data: DataSettings, tokenizer: PreTrainedTokenizerBase, *, source: str
) -> tuple[list[Example], list[str]]:
    """A source's examples, and the fields of its samples that nothing looks at."""
    read = {data.together} if data.together else set()
    if data.format == "instruction":
        full = instruction_examples(samples, tokenizer, prompt_style=data.prompt, loss_on=data.loss_on, source=source)
        return full, unused_fields(samples, read={*SAMPLE_FIELDS, *read})
    unshown: list[str] = []
    full = chat_examples(samples, tokenizer, loss_on=data.loss_on, source=source, unshown=unshown)
    return full, [*unused_fields(samples, read={*CHAT_FIELDS, *read}), *(f"{name} of messages" for name in unshown)]
