"""Orders in which groups stay together, or batches hold samples that are alike, drawn anew each epoch."""

from moslora.training.grouping import AlikeSampler, GroupSampler

GROUPS = [position % 5 for position in range(20)]


def test_every_sample_comes_once_and_groups_are_not_divided() -> None:
    order = list(GroupSampler(GROUPS, seed=1))
    assert sorted(order) == list(range(20))
    names = [GROUPS[position] for position in order]
    assert all(len(set(names[start : start + 4])) == 1 for start in range(0, 20, 4))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        sampler = GroupSampler(GROUPS, seed=seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed, epoch in ((1, 0), (1, 1), (2, 0))}) >= 2
    assert order(1, 0) != order(1, 1)


LENGTHS = [(position % 3 == 0, 10 + position * 37 % 101) for position in range(200)]


def batches_of(alike: list[tuple[bool, int]], size: int, epoch: int = 0) -> list[list[int]]:
    sampler = AlikeSampler(alike, batch_size=size, seed=5)
    sampler.set_epoch(epoch)
    order = list(sampler)
    assert sorted(order) == list(range(len(alike)))
    return [order[start : start + size] for start in range(0, len(order), size)]


def test_a_batch_is_of_one_kind_but_for_one_at_the_end() -> None:
    kinds = [{LENGTHS[position][0] for position in batch} for batch in batches_of(LENGTHS, 8)]
    assert all(len(found) == 1 for found in kinds[:-2])  # 67 of one kind and 133 of the other: 3 and 5 are left over
    assert {True} in kinds
    assert {False} in kinds


def test_lengths_are_alike_in_a_batch_and_batches_come_in_no_order_of_lengths() -> None:
    batches = [[LENGTHS[position][1] for position in batch] for batch in batches_of(LENGTHS, 8)[:-2]]
    spread = [max(lengths) - min(lengths) for lengths in batches]
    assert sum(spread) / len(spread) < 30  # of 100
    means = [sum(lengths) / len(lengths) for lengths in batches]
    assert means not in (sorted(means), sorted(means, reverse=True))


def test_batches_alike_are_a_function_of_seed_and_epoch() -> None:
    assert batches_of(LENGTHS, 8) == batches_of(LENGTHS, 8)
    members = [{frozenset(batch) for batch in batches_of(LENGTHS, 8, epoch)} for epoch in (0, 1)]
    assert len(members[0] & members[1]) < 3  # other batches, and not the same ones in another order


def test_fewer_samples_than_a_batch_are_one_batch() -> None:
    assert len(batches_of(LENGTHS[:5], 8)) == 1
