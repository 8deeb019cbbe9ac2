"""What a run has found so far, on disk after every part; and the time it may take."""

import json
import shutil
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from moslora.files import write_atomically
from moslora.runs.environment import describe_machine, describe_versions


@dataclass
class Budget:
    """The time a run may take, from now on."""

    seconds: float
    started: float = field(default_factory=time.monotonic)

    @property
    def is_spent(self) -> bool:
        return time.monotonic() - self.started >= self.seconds

    def less(self, seconds: float) -> "Budget":
        """The same without its last `seconds`, which are kept for something else."""
        return Budget(self.seconds - seconds, self.started)


class Record:
    """The JSON file of a run: written again, atomically, after every change, so a run cut off keeps what it has."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.found: dict[str, Any] = {
            "name": "gpu",
            "date": datetime.now(UTC).date().isoformat(),
            "card": describe_card(settings["device"]),
            "machine": describe_machine(),
            "versions": describe_versions(),
            "settings": settings,
            "is_complete": False,
            "checks": [],
            "steps": [],
            "left_out": [],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        self.save()

    def add(self, part: str, entry: dict[str, Any] | str) -> None:
        self.found[part].append(entry)
        self.save()

    def leave_out(self, what: str, why: str) -> None:
        print(f"left out: {what} ({why})", flush=True)
        self.add("left_out", f"{what}: {why}")

    def finish(self) -> None:
        self.found["is_complete"] = True
        self.save()

    def save(self) -> None:
        write_atomically(self.path, json.dumps(self.found, indent=1) + "\n")


def reason(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


def describe_card(device: str) -> dict[str, Any]:
    """Name, memory, compute capability, CUDA and driver; on a CPU only that it is one."""
    if device == "cpu":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(device)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "driver": driver_version(),
    }


def driver_version() -> str | None:
    """The driver's version as nvidia-smi gives it; None where there is no such program."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return found[0] if found else None
