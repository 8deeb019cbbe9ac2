"""The chat template that a recipe chooses: one that comes with the package or a file, and a system message for it.

It becomes the tokenizer's own, which is saved with what is trained: whatever is done with that later, by this program
or by others, speaks in the same way.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from moslora.data.marks import Marks
from moslora.data.messages import Chat
from moslora.data.template import ChatTemplate
from moslora.errors import ConfigError, DataError, suggestion

SAVED_NAME = "chat_template.jinja"  # as transformers calls it

_FOLDER = resources.files("moslora.data") / "chat_templates"
_QUESTION, _ANSWER = {"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}
_FUNCTION = {"name": "look_up", "description": "?", "parameters": {"type": "object", "properties": {}}}
_CALL = {"type": "function", "id": "123456789", "function": {"name": "look_up", "arguments": {}}}


def known_templates() -> list[str]:
    """The names of the templates that come with the package."""
    return sorted(Path(file.name).stem for file in _FOLDER.iterdir())


def template_text(name_or_path: str) -> str:
    """A known template, or that of a file. Raises ConfigError for what is neither, naming the known ones."""
    known = known_templates()
    if name_or_path in known:
        return (_FOLDER / f"{name_or_path}.jinja").read_text(encoding="utf-8")
    try:
        return Path(name_or_path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "is not a readable file"
        raise ConfigError(
            f"data.chat_template '{name_or_path}' {reason}{suggestion(name_or_path, known)} (known ones:"
            f" {', '.join(known)}; or the path of a Jinja file)"
        ) from error


def choose_template(
    tokenizer: PreTrainedTokenizerBase, *, template: str | None = None, system: str | None = None
) -> list[str]:
    """Give the tokenizer a template, by its name or path, and a system message for chats that bring none.

    The token that a chosen template ends answers with becomes the tokenizer's end token. Returns what a reader of the
    record should know. Raises ConfigError for a template that is not there, DataError for one that takes no system
    message.
    """
    notes: list[str] = []
    if template is not None:
        tokenizer.chat_template = template_text(template)
        notes = _end_answers(tokenizer)
    if system is not None and tokenizer.chat_template:
        opening: dict[str, Any] = {"role": "system", "content": system}
        ChatTemplate(tokenizer).check_shows(Chat([opening, _QUESTION, _ANSWER]), place="data.system")
        own: Any = tokenizer.chat_template
        named = own if isinstance(own, dict) else {"": own}
        opened = {name: _opened(text, system) for name, text in named.items()}
        tokenizer.chat_template = opened if isinstance(own, dict) else opened[""]  # pyright: ignore[reportAttributeAccessIssue]
    return notes


def shows_tools(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer's own template shows the tools of a chat, the calls of them, and what came of these."""
    if not tokenizer.chat_template:
        return False
    template, place = ChatTemplate(tokenizer), "a chat with tools"
    calling = {"role": "assistant", "content": "", "tool_calls": [_CALL]}
    found = {"role": "tool", "content": "!", "tool_call_id": _CALL["id"], "name": _FUNCTION["name"]}
    chat = Chat([_QUESTION, calling, found, _ANSWER], [{"type": "function", "function": _FUNCTION}])
    try:
        template.check_shows(template.fitted(chat, place=place), place=place)
    except DataError:
        return False
    return True


def take_saved(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Give the tokenizer the template and the end token that were saved with what was trained, if they were."""
    path = folder / SAVED_NAME
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    own: Any = tokenizer.chat_template
    tokenizer.chat_template = {**own, "default": text} if isinstance(own, dict) else text  # pyright: ignore[reportAttributeAccessIssue]
    settings = folder / "tokenizer_config.json"
    end = json.loads(settings.read_bytes()).get("eos_token") if settings.is_file() else None
    end = end.get("content") if isinstance(end, dict) else end
    if end and end != tokenizer.eos_token:
        tokenizer.eos_token = end


def _opened(template: str, system: str) -> str:
    """A template that puts a system message before chats that bring none."""
    message = f"{{'role': 'system', 'content': {json.dumps(system)}}}"
    return (
        "{%- if messages[0]['role'] != 'system' -%}{%- set messages = ["
        + message
        + "] + messages -%}{%- endif -%}\n"
        + template
    )


def _end_answers(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    template, place = ChatTemplate(tokenizer), "data.chat_template"
    chat = Chat([_QUESTION, _ANSWER])
    text = template.text(chat.messages, place=place)
    end = Marks(chat, template, text=text, place=place).ends.get(1, len(text))
    tail = text[end:]
    found = [token for token in template.special_texts if tail.startswith(token)]
    if not found:
        return [
            f"data.chat_template ends answers with {tail.rstrip() or 'nothing'!r}, which is not a special token of this"
            f" tokenizer, so generation will not stop there (its end token is {tokenizer.eos_token!r})"
        ]
    if found[0] == tokenizer.eos_token:
        return []
    before, tokenizer.eos_token = tokenizer.eos_token, max(found, key=len)
    return [f"answers end with {tokenizer.eos_token}, which is now the tokenizer's end token (it was {before})"]
