"""An order in which groups stay together, drawn anew each epoch."""

from moslora.training.grouping import GroupSampler

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
