"""The text encoders' own schooling: what a prompt says and what its concept looks like, before any picture is drawn.

SDXL's encoders come trained from CLIP. Fresh ones tell prompts apart by a few percent of their vectors' length, and a
UNet trained with those learns backgrounds and nothing else for thousands of steps (measured with `told_wrong`).
"""

import functools
import random

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTokenizer

from making.emoji_parts import MAX_TOKENS, embedded
from making.emoji_scenes import random_scene, told_clauses, trained_names
from moslora.emoji import sprites
from moslora.emoji.scenes import BACKGROUNDS, COUNTS, PLACES, SIZES

STEPS, BATCH, RATE = 1_500, 64, 1e-3
# A look is a sprite of so many pixels a side: its colours on black, and where it is.
_LOOK = 6
_VALUES = {
    "concept": tuple(trained_names()),
    "background": tuple(BACKGROUNDS),
    "place": tuple(PLACES),
    "size": tuple(SIZES),
    "style": sprites.STYLES,
    "count": COUNTS,
}


def school(parts: nn.ModuleDict, vocabulary: CLIPTokenizer, *, seed: int, steps: int = STEPS) -> float:
    """Train both encoders in place; returns the share of the last ten batches' told parts that are read rightly."""
    torch.manual_seed(seed)
    device = next(parts.parameters()).device
    first = parts["text_encoder"].config.hidden_size
    width = first + parts["text_encoder_2"].config.hidden_size
    views = {"pooled": width - first, "first": first, "second": width - first}
    heads = nn.ModuleDict({view: _Heads(size) for view, size in views.items()}).to(device)
    trained = [parts["text_encoder"], parts["text_encoder_2"], heads]
    weights = [weight for part in trained for weight in part.parameters()]
    optimizer = torch.optim.AdamW(weights, RATE, weight_decay=0.01, fused=True)
    falling = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    right = []
    for step in range(steps):
        draw = random.Random(f"words {seed} {step}")
        told = [_told(draw, seed) for _ in range(BATCH)]
        tokens = vocabulary(
            [prompt for prompt, _, _ in told], padding="max_length", max_length=MAX_TOKENS, return_tensors="pt"
        )
        hidden, pooled = embedded(parts, tokens.input_ids.to(device))
        # Whatever follows a prompt's end has read all of it.
        seen = {"pooled": pooled, "first": hidden[:, -1, :first], "second": hidden[:, -1, first:]}
        wanted = {name: torch.tensor([values[name] for _, values, _ in told], device=device) for name in _VALUES}
        looks = torch.stack([look for _, _, look in told]).to(device)
        found = [heads[view](seen[view], wanted, looks) for view in views]
        sum(loss for loss, _ in found).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        falling.step()
        optimizer.zero_grad()
        right.append(sum(share for _, share in found) / len(found))
    return sum(right[-10:]) / len(right[-10:])


class _Heads(nn.Module):
    """Reads a vector: each part of a scene as one of its values, and the look of its concept."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in _VALUES.items()})
        self.look = nn.Linear(width, 4 * _LOOK**2)

    def forward(self, seen: torch.Tensor, wanted: dict[str, torch.Tensor], looks: torch.Tensor) -> tuple:
        read = {name: head(seen) for name, head in self.parts.items()}
        loss = sum(F.cross_entropy(read[name], wanted[name]) for name in read)
        right = torch.cat([(read[name].argmax(-1) == wanted[name])[wanted[name] >= 0] for name in read])
        return loss + 10 * F.mse_loss(self.look(seen), looks), right.float().mean().item()


def _told(draw: random.Random, seed: int) -> tuple[str, dict[str, int], torch.Tensor]:
    """A prompt, the index of each value that it tells (-100: not told), and the look of what it names."""
    scene = random_scene(draw.randrange(10**6), seed)
    clauses = told_clauses(draw)
    is_told = {name: name in clauses or name in ("concept", "count") for name in _VALUES}
    values = {name: _VALUES[name].index(getattr(scene, name)) if is_told[name] else -100 for name in _VALUES}
    return scene.prompt(clauses=clauses), values, _look(scene.concept, scene.style)


@functools.cache
def _look(concept: str, style: str) -> torch.Tensor:
    small = sprites.sprite(concept, style).resize((_LOOK, _LOOK))
    values = torch.from_numpy(np.asarray(small).astype(np.float32) / 255)
    return torch.cat([values[..., :3] * values[..., 3:], values[..., 3:]], dim=-1).flatten()
