"""Pictures that several methods drew for the same requests, as one contact sheet. Imports no torch."""

from collections.abc import Mapping, Sequence
from typing import Any

from moslora.errors import DataError
from moslora.painting.requests import Picture, Request
from moslora.painting.sheet import Axis, Sheet, contact_sheet


def side_by_side(methods: Mapping[str, Sequence[Picture]], *, most_rows: int | None = None, **options: Any) -> Sheet:
    """A row for each prompt and seed, a column for each method, in their order; `options` as of `contact_sheet`.

    With `most_rows` the first seed of every prompt comes before the second of any. Raises DataError unless all methods
    drew the same requests, of which everything is the same, the noise too; and without any.
    """
    requests = _shared_requests(methods)
    chosen = sorted(requests, key=lambda place: _turn(place, requests))[:most_rows]
    places = sorted(chosen)
    by_place = {method: {_place(one.request): one for one in pictures} for method, pictures in methods.items()}
    has_seeds = len({number for number, _ in places}) < len(places)
    rows = Axis(
        tuple(requests[place].prompt for place in places),
        notes=tuple(f"seed {seed}" for _, seed in places) if has_seeds else (),
    )
    grid = [[by_place[method][place].image for method in methods] for place in places]
    return contact_sheet(grid, columns=Axis(tuple(methods)), rows=rows, **options)


def _shared_requests(methods: Mapping[str, Sequence[Picture]]) -> dict[tuple[int, int], Request]:
    found = {name: {_place(one.request): one.request for one in pictures} for name, pictures in methods.items()}
    if not found or not all(found.values()):
        raise DataError(f"{len(found)} methods with nothing drawn make no sheet; draw the same prompts with each")
    first = next(iter(found))
    for name, requests in found.items():
        different = [place for place in {**requests, **found[first]} if requests.get(place) != found[first].get(place)]
        if different:
            number, seed = min(different)
            raise DataError(
                f"{name} and {first} did not draw the same: {len(different)} of {len(found[first])} pictures differ in"
                f" what was asked for, first prompt {number} with seed {seed}; draw both with the same settings"
            )
    return found[first]


def _place(request: Request) -> tuple[int, int]:
    return request.number, request.seed


def _turn(place: tuple[int, int], requests: Mapping[tuple[int, int], Request]) -> tuple[int, int]:
    """How many pictures of its prompt come before, and the number of the prompt."""
    number, seed = place
    return sum(other == number and earlier < seed for other, earlier in requests), number
