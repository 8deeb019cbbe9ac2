"""The machine and the libraries a number was measured with."""

import os
import platform
import sys
from importlib import metadata
from pathlib import Path

import torch

LIBRARIES = ("moslora", "torch", "transformers", "peft", "accelerate", "datasets", "tokenizers", "bitsandbytes")


def describe_versions() -> dict[str, str]:
    """Python and the installed libraries the numbers depend on."""
    versions = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            versions[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return versions


def describe_machine() -> dict[str, str | int | float | None]:
    """Platform, processor, cores, memory in bytes, accelerator."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else None
    return {
        "platform": platform.platform(terse=True),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": pages,
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def peak_memory_bytes() -> int:
    """The largest memory this process has held: on the accelerator where there is one, else of the whole process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
