"""What a browser posts, read strictly: few bytes, known fields, each once."""

from collections.abc import Sequence
from urllib.parse import parse_qsl

from starlette.requests import Request

from moslora.judging.study import RefusedError

MOST_BYTES = 4096


async def read_form(request: Request, *, fields: Sequence[str]) -> dict[str, str]:
    """The fields of a form, all of them and no others. Raises RefusedError for anything else, and for large bodies."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise RefusedError(413, "That is more than a form of this page holds; nothing was kept.")
    try:
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), errors="strict")
    except ValueError as error:
        raise RefusedError(400, "This form cannot be read; nothing was kept.") from error
    found = dict(pairs)
    missing = [name for name in fields if name not in found]
    if missing or len(pairs) != len(fields):
        raise RefusedError(400, "Answer every question, each once; nothing was kept.")
    return found
