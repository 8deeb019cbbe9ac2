"""The proof that an adapter reaches the picture: the same requests drawn with it and without it must differ."""

from collections.abc import Sequence

import torch

from moslora.errors import CheckpointError
from moslora.painting.drawing import Drawn

ROUNDING = 1e-5  # what sums in another order change in float32, as a share; in 16 bits, one unit in the last place


def reach(drawn: Sequence[Drawn], base_drawn: Sequence[Drawn]) -> float:
    """How far an adapter moves the latents: root mean square of the differences, as a share of that of the base's.

    Both must answer the same requests in the same order, at least one; else ValueError.
    """
    if not drawn or [one.request for one in drawn] != [one.request for one in base_drawn]:
        raise ValueError(
            f"{len(drawn)} and {len(base_drawn)} pictures were not drawn from the same requests; draw the same ones"
            " twice"
        )
    with_it, without = (_joined(pictures) for pictures in (drawn, base_drawn))
    return float((with_it - without).norm() / without.norm())


def check_reaches(drawn: Sequence[Drawn], base_drawn: Sequence[Drawn]) -> float:
    """Refuse an adapter that changes no picture by more than rounding does; the reach of another one.

    Raises CheckpointError with the reach found, and ValueError as `reach` does.
    """
    found = reach(drawn, base_drawn)
    allowed = max(ROUNDING, torch.finfo(drawn[0].latents.dtype).eps)
    if found <= allowed:
        request = drawn[0].request
        raise CheckpointError(
            f"the adapter changes nothing: with it and without it the latents of '{request.prompt}', seed"
            f" {request.seed}, differ by {found:.1e} of their size (an effect is above {allowed:.1e}); check that it"
            " was trained, that its weight is not 0, and that its keys name parts of this pipeline"
        )
    return found


def _joined(pictures: Sequence[Drawn]) -> torch.Tensor:
    return torch.cat([one.latents.double().flatten() for one in pictures])
