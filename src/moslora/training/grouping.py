"""Orders of training samples, shuffled anew each epoch: groups that stay together, or batches of samples alike.

Both are functions of a seed and the epoch alone, so that a resumed run, and every process of several, has the same one.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

import torch
from torch.utils.data import Sampler

WINDOW = 50  # batches that are sorted by length at once; of fewer samples, a quarter of them


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


class AlikeSampler(Sampler[int]):
    """Positions of samples in batches of one kind and of like lengths, the same ones for the same seed and epoch.

    `alike` holds each sample's kind and its length in tokens. `batch_size` counts the samples of an optimiser step,
    over all devices. What fills no batch comes last, so that only one batch of an epoch may hold several kinds.
    """

    def __init__(self, alike: Sequence[tuple[Hashable, int]], *, batch_size: int, seed: int) -> None:
        self.alike, self.batch_size, self.seed, self.epoch = alike, batch_size, seed, 0

    def __len__(self) -> int:
        return len(self.alike)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        members: dict[Hashable, list[int]] = defaultdict(list)
        for position in torch.randperm(len(self.alike), generator=generator).tolist():
            members[self.alike[position][0]].append(position)
        batches = [batch for shuffled in members.values() for batch in self._batches(shuffled)]
        whole = [batch for batch in batches if len(batch) == self.batch_size]
        for number in torch.randperm(len(whole), generator=generator).tolist():
            yield from whole[number]
        for batch in batches:
            yield from batch if len(batch) < self.batch_size else ()

    def _batches(self, shuffled: list[int]) -> Iterator[list[int]]:
        window = self.batch_size * max(1, min(WINDOW, len(shuffled) // (4 * self.batch_size)))
        for first in range(0, len(shuffled), window):
            by_length = sorted(shuffled[first : first + window], key=lambda position: self.alike[position][1])
            for start in range(0, len(by_length), self.batch_size):
                yield by_length[start : start + self.batch_size]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is drawn; the Trainer calls it, also when it resumes."""
        self.epoch = epoch
