"""From the characters of a text that are to be learned to its tokens.

A token belongs to the characters it stands for, a space that it starts with included. At generation a prompt is
tokenised without the answer, so the text is divided where an answer starts, as instructions and their responses are: a
line break at a header's end may else become a token with what follows, or be divided otherwise. A tokenizer that puts
something of its own before each part is given the text whole; a token that reaches over an edge is then not learned.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from moslora.data.template import Span
from moslora.data.tokens import IGNORED, Example
from moslora.errors import DataError


def labelled(text: str, spans: Sequence[Span], tokenizer: PreTrainedTokenizerBase, *, place: str) -> Example:
    """A text as token ids, with labels on the tokens that lie within spans of its characters, given in order.

    Raises DataError where a tokenizer without offsets joins what stands on both sides of an edge.
    """
    edges = {edge for span in spans for edge in span}
    if tokenizer.is_fast:
        ids, starts = _with_starts(text, [start for start, _ in spans], tokenizer)
        tokens = {edge: bisect_left(starts, edge) for edge in edges}
        after = {edge: token if starts[token] == edge else token - 1 for edge, token in tokens.items()}
    else:
        ids, tokens = _by_pieces(text, edges, tokenizer, place=place)
        after = tokens
    labels = [IGNORED] * len(ids)
    for start, end in spans:
        labels[tokens[start] : after[end]] = ids[tokens[start] : after[end]]
    return {"input_ids": ids, "labels": labels}


def _with_starts(text: str, cuts: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids, and where each token starts, the text's end last; divided at the cuts where the tokenizer allows it."""
    ids, starts = _encoded(text, tokenizer)
    divided: list[int] = []
    places: list[int] = []
    for first, upto in pairwise(sorted({0, *cuts, len(text)})):
        piece, found = _encoded(text[first:upto], tokenizer)
        divided += piece
        places += [first + start for start in found[:-1]]
    if "".join(_names(divided, tokenizer)) != "".join(_names(ids, tokenizer)):
        return ids, starts
    return divided, [*places, len(text)]


def _encoded(text: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The ids, and where each token starts: no later than the one before it ends, since offsets may leave out spaces.

    Tokens that share a character start at it.
    """
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets: list[Span] = found["offset_mapping"]  # pyright: ignore[reportAssignmentType]
    starts, covered = [], 0
    for start, end in offsets:
        starts.append(min(start, covered))
        covered = max(covered, end)
    return found["input_ids"], [*starts, len(text)]  # pyright: ignore[reportReturnType]


def _by_pieces(
    text: str, edges: Collection[int], tokenizer: PreTrainedTokenizerBase, *, place: str
) -> tuple[list[int], dict[int, int]]:
    """The ids, and the token that starts at each edge, from a tokenizer that gives no offsets."""
    ids = _ids(text, tokenizer)
    tokens, joined = {0: 0}, list[int]()
    for start, end in pairwise(sorted({0, *edges, len(text)})):
        joined += _ids(text[start:end], tokenizer)
        tokens[end] = len(joined)
    if joined == ids:
        return ids, tokens
    for edge in edges:
        upto = _ids(text[:edge], tokenizer)
        if ids[: len(upto)] != upto:
            raise DataError(
                f"{place}: the tokenizer gives no offsets, and one of its tokens straddles the edge of an answer"
                f" ({text[max(edge - 20, 0) : edge + 20]!r}); use the model's fast tokenizer, or set data.loss_on to"
                " sequence"
            )
        tokens[edge] = len(upto)
    return ids, tokens


def _ids(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]  # pyright: ignore[reportReturnType]


def _names(ids: list[int], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    return tokenizer.convert_ids_to_tokens(ids)  # pyright: ignore[reportReturnType]
