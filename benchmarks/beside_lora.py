"""A training step beside PEFT's LoRA with the same shapes, in several settings: its time, and its memory.

Time is taken in rounds within one process, memory in a process for each peer.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.memory import in_own_process, peak_bytes, side_by_side
from benchmarks.results import Row, save
from benchmarks.timing import ROUNDS, interleaved, ratio

PEERS = ("none", "lora", "moslora")

Setting = dict[str, Any]


@dataclass(frozen=True)
class BesideLora:
    """What `benchmarks/NAME.py` measures: `step(peer, **setting)` makes the training step of one of PEERS.

    `none` is the frozen model, forward and backward. `facts` are written beside the figures.
    """

    name: str
    what: str
    step: Callable[..., Callable[[], None]]
    settings: Sequence[Setting]
    time_target: float
    memory_target: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    def main(self) -> None:
        """Run and print, or print what one peer takes in one setting."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--peer", choices=PEERS, help="print its peak of memory in bytes")
        parser.add_argument("--setting", type=json.loads, default=self.settings[0], help="of that peer, in JSON")
        asked = parser.parse_args()
        if asked.peer:
            print(peak_bytes(self.step(asked.peer, **asked.setting)))
            return
        for row in self.run():
            print(row)

    def run(self, *, rounds: int = ROUNDS) -> list[Row]:
        """Measure every setting; each is stored as it comes, so that a run that is cut off keeps what it has."""
        figures, rows = [], []
        for setting in self.settings:
            seconds, above = self.timed(setting, rounds=rounds), self.above_frozen(setting)
            figures.append({**setting, "seconds": seconds, "above_frozen_bytes": above})
            rows += self.rows(setting, seconds, above)
            save(self.name, {**self.facts, "figures": figures}, rows)
        return rows

    def timed(self, setting: Setting, *, rounds: int = ROUNDS) -> dict[str, list[float]]:
        """Seconds of a step of each peer, round by round."""
        steps = {peer: self.step(peer, **setting) for peer in PEERS}
        return interleaved(steps, what=f"{self.what} step, {label(setting)}", rounds=rounds)

    def above_frozen(self, setting: Setting) -> dict[str, int]:
        """Peak bytes of the peers' steps above the frozen model's."""
        module, given = f"benchmarks.{self.name}", ["--setting", json.dumps(setting)]
        peaks = side_by_side(PEERS, lambda peer: in_own_process(module, "--peer", peer, *given))
        return {peer: peaks[peer] - peaks["none"] for peer in PEERS}

    def rows(self, setting: Setting, seconds: dict[str, list[float]], above: dict[str, int]) -> list[Row]:
        """The lines of the table that a setting's figures come to."""
        rows = []
        for peer, target in (("moslora", self.time_target), ("none", None)):
            what = f"{self.what} step, {label(setting)}" + (": none" if peer == "none" else "")
            middle, low, high = ratio(seconds, peer, "lora")
            rows.append(Row(what, "PEFT LoRA", middle, target, low, high))
        what, share = f"{self.what} peak memory, {label(setting)}", above["moslora"] / above["lora"]
        return [*rows, Row(what, "PEFT LoRA", share, self.memory_target)]


def label(setting: Setting) -> str:
    """A setting in words: texts as they are, numbers with their names."""
    return ", ".join(value if isinstance(value, str) else f"{name} {value:g}" for name, value in setting.items())
