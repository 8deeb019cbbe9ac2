"""An order of training samples in which those of a group follow one another, the groups shuffled anew each epoch."""

from collections.abc import Hashable, Iterator, Sequence

import torch
from torch.utils.data import Sampler


class GroupSampler(Sampler[int]):
    """Positions of samples, group by group, the same ones for the same seed and epoch.

    `groups` names each sample's group. A group lies in one batch where the batch size is a multiple of its size.
    """

    def __init__(self, groups: Sequence[Hashable], *, seed: int) -> None:
        members: dict[Hashable, list[int]] = {}
        for position, group in enumerate(groups):
            members.setdefault(group, []).append(position)
        self.groups, self.count, self.seed, self.epoch = list(members.values()), len(groups), seed, 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        for number in torch.randperm(len(self.groups), generator=generator).tolist():
            yield from self.groups[number]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn; the Trainer calls it, also when it resumes."""
        self.epoch = epoch
