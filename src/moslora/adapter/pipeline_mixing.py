"""Several LoRA files on one pipeline, each by a weight: a style and a subject, say.

The update of a layer is the sum of weight · B·A over the files. Each file is proved to have arrived; a weight of 0 is
the pipeline without that file, bit for bit, and nothing is ever written into the base weights.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch

from moslora.adapter.importing import read_tensor_file
from moslora.adapter.pipeline_names import format_of
from moslora.adapter.pipeline_proof import check_is_plain, load_quietly, naming_of, parts_of, prove_arrival
from moslora.adapter.proving import lora_layers_of
from moslora.adapter.tensors import Comparison, TensorDrift
from moslora.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class WeightedFiles:
    """LoRA files that were loaded into a pipeline by `load_weighted`.

    `loaded` has the names that the pipeline knows them by, `arrived` what was compared of each.
    """

    pipe: Any
    loaded: dict[str, str]
    arrived: dict[str, TensorDrift]

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Give each file a weight, any finite number; ConfigError unless every file has one."""
        _check_weights(weights, names=self.loaded)
        active = {self.loaded[name]: float(weight) for name, weight in weights.items() if weight != 0}
        if active:
            self.pipe.enable_lora()
            self.pipe.set_adapters(list(active), list(active.values()))
        else:
            self.pipe.disable_lora()

    def unload(self) -> None:
        """Take the files out again; the pipeline is the one that it was."""
        self.pipe.unload_lora_weights()


def load_weighted(pipe: Any, files: Mapping[str, tuple[str | Path, float]]) -> WeightedFiles:
    """Load LoRA files, in diffusers' or kohya's names, into a pipeline without adapters: a path and a weight by name.

    Raises CheckpointError for a file that cannot be read or of which not every tensor arrives, and ConfigError for a
    weight that is not finite; the pipeline is then left without any.
    """
    check_is_plain(pipe)
    _check_weights({name: weight for name, (_, weight) in files.items()}, names=files)
    # diffusers looks for an adapter's name anywhere in a layer's: by one like "b" it would take layers for missing.
    loaded = {name: f"weighted_{number}" for number, name in enumerate(files)}
    try:
        arrived = {name: _load(pipe, Path(path), adapter_name=loaded[name]) for name, (path, _) in files.items()}
        weighted = WeightedFiles(pipe, loaded, arrived)
        weighted.weigh({name: weight for name, (_, weight) in files.items()})
    except BaseException:
        pipe.unload_lora_weights()
        raise
    return weighted


class _Arrival(Comparison):
    """A comparison of a file with what a pipeline has of it."""

    def refuse(self, reason: str) -> NoReturn:
        raise CheckpointError(
            f"{self.what} does not arrive unchanged in the pipeline: {reason}; give a file for this kind of pipeline,"
            " with diffusers' names of blocks (down_blocks, not input_blocks)"
        )


def _load(pipe: Any, path: Path, *, adapter_name: str) -> TensorDrift:
    tensors = read_tensor_file(path)
    naming, proof = naming_of(pipe, format=format_of(tensors)), _Arrival(str(path))
    load_quietly(proof, path, pipe, adapter_name=adapter_name)
    prove_arrival(proof, tensors, pipe, adapter_name=adapter_name, naming=naming)
    for part, module in parts_of(pipe).items():
        for name, layer in lora_layers_of(module, adapter_name).items():
            alpha = tensors.get(f"{naming.layer(f'{part}.{name}')}.alpha")
            _check_scale(proof, f"{part}.{name}", layer.scaling[adapter_name], alpha=alpha, rank=layer.r[adapter_name])
    return proof.result()


def _check_scale(proof: Comparison, name: str, scale: float, *, alpha: torch.Tensor | None, rank: int) -> None:
    """The scale that a layer got against its own alpha; a file of diffusers' has none, its header may have one."""
    if alpha is not None and not math.isclose(scale, alpha.item() / rank, rel_tol=1e-6):
        proof.refuse(f"{name} is scaled by {scale:g} instead of {alpha.item() / rank:g}")


def _check_weights(weights: Mapping[str, float], *, names: Mapping[str, Any]) -> None:
    if set(weights) != set(names):
        raise ConfigError(f"weights are given for {_listed(weights)}: give one for each of {_listed(names)}")
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ConfigError(f"the weight of '{name}' is {weight!r}: give a finite number (1: as it was trained)")


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing"
