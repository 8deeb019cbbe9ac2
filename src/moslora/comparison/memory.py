"""One process, many models: give back what the last one took, and let each have a peak of its own."""

import ctypes
import gc
import sys
from pathlib import Path

import torch

CLEAR_REFS = Path("/proc/self/clear_refs")  # Linux: writing 5 makes the kernel forget the process's peak


def release_memory() -> None:
    """Free models that are held by cycles of references only, and give what is free back to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux":  # glibc keeps freed memory, which would count for the next run
        getattr(ctypes.CDLL(None), "malloc_trim", lambda _kept: None)(0)


def forget_peak_memory() -> None:
    """Make `peak_memory_bytes` start from what the process holds now, where the system can (Linux, CUDA)."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")
