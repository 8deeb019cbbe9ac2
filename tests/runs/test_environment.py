import os

import torch

from moslora.runs.environment import describe_machine, describe_versions, peak_memory_bytes


def test_versions_are_those_of_the_installed_libraries():
    versions = describe_versions()
    assert versions["torch"] == torch.__version__
    assert {"python", "transformers", "peft", "accelerate"} <= set(versions)


def test_the_machine_is_described():
    machine = describe_machine()
    assert machine["cores"] == os.cpu_count()
    assert isinstance(machine["memory_bytes"], int)
    assert machine["memory_bytes"] > 2**28
    assert machine["cpu"]


def test_peak_memory_is_at_least_what_was_just_held():
    held = torch.ones(50_000_000, dtype=torch.uint8)
    assert peak_memory_bytes() > held.numel()
