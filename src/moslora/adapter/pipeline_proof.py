"""Whether a LoRA file does to a plain pipeline what its adapter does: by names, by numbers and by latents.

diffusers drops what it does not know with a line in the log, or without one, and warns of tensors that are there; so a
log says nothing. Asked is the pipeline: what arrived in its layers. Written against diffusers 0.42.
"""

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from moslora.adapter.importing import read_tensor_file
from moslora.adapter.pipeline_names import FACTORS, Naming, format_of, naming_for, with_text_model
from moslora.adapter.proving import compare_factors, lora_layers_of
from moslora.adapter.tensors import Comparison
from moslora.adapter.twin import base_of, uncompiled
from moslora.adapter.verification import Drift, coarsest_dtype, measure_drift
from moslora.errors import ConfigError, DriftError, NoEffectError

LOADED = "moslora_export"  # no layer's name holds it, so that no reader takes a layer for the adapter
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
DENOISERS = ("unet", "transformer")
PROBE_PIXELS = 256


@dataclass(frozen=True)
class PipelineDrift(Drift):
    """How far the latents of a plain pipeline with the file are from the adapter's, as `Drift` says for outputs.

    `effect` is the largest |difference| that the adapter makes to a latent: where that is below the tolerance, the
    latents cannot tell a right file from a wrong one, and what is proved are the tensors.
    """

    effect: float


def latents_probe(
    pipe: Any,
    *,
    prompt: str = "a photo of a small red cup on a table",
    seed: int = 0,
    steps: int = 2,
    pixels: int | None = None,
    **options: Any,
) -> torch.Tensor:
    """The latents that a pipeline draws from one prompt and noise, in float32 on the CPU.

    They are (1, channels, height, width), FLUX's (1, tokens, channels). The picture is a square of `pixels`, by default
    of the pipeline's own size and 256 at most. `options` go to the pipeline.
    """
    size = pixels or min(_own_pixels(pipe), PROBE_PIXELS)
    generator = torch.Generator("cpu").manual_seed(seed)
    drawn = pipe(
        prompt,
        num_inference_steps=steps,
        height=size,
        width=size,
        generator=generator,
        output_type="latent",
        **options,
    )
    return drawn.images.float().cpu()


def prove_pipeline_lora(
    model: nn.Module,
    path: str | Path,
    *,
    load_pipeline: Callable[[], Any],
    probe: Callable[[Any], torch.Tensor] = latents_probe,
    adapter_name: str = "default",
    allow_drift: bool = False,
) -> PipelineDrift:
    """Load a LoRA file into a plain pipeline and compare it with the adapter it was made of, three ways.

    Arguments and errors are those of `save_pipeline_lora`. The pipeline is plain again afterwards.
    """
    tensors, model = read_tensor_file(Path(path)), uncompiled(model)

    @contextmanager
    def arriving(proof: Comparison, pipe: Any) -> Iterator[None]:
        try:
            load_quietly(proof, path, pipe, adapter_name=LOADED)
            _prove_tensors(proof, tensors, pipe, model=model, adapter_name=adapter_name)
            yield
        finally:
            pipe.unload_lora_weights()

    what = "the file in plain diffusers"
    return prove_export(model, load_pipeline(), arriving, what=what, probe=probe, allow_drift=allow_drift)


def prove_export(
    model: nn.Module,
    pipe: Any,
    arriving: Callable[[Comparison, Any], AbstractContextManager[None]],
    *,
    what: str,
    probe: Callable[[Any], torch.Tensor],
    allow_drift: bool,
) -> PipelineDrift:
    """Draw with an adapter and with what was exported of it, which `arriving` puts into the plain pipeline and proves.

    `what` names the export in messages; the errors are those of `save_pipeline_lora`.
    """
    proof = Comparison(what)
    check_is_plain(pipe)
    base = probe(pipe)
    with wearing(pipe, model):
        expected = probe(pipe)
    require_effect(base, expected)
    dtypes = [coarsest_dtype(model), *(coarsest_dtype(part) for part in parts_of(pipe).values())]
    with arriving(proof, pipe):
        found = probe(pipe)
    drift = measure_drift(_features_last(expected), _features_last(found), dtypes=dtypes, tensors=proof.result())
    if torch.equal(found, base):
        raise DriftError(f"{what} changes no latent, and the adapter does: nothing was written")
    if not allow_drift:
        drift.require(what)
    effect = (expected - base).abs().max().item()
    return PipelineDrift(**vars(drift), effect=effect)


def require_effect(base: torch.Tensor, adapted: torch.Tensor) -> None:
    """Raise NoEffectError where a pipeline with an adapter drew number for number what it draws without."""
    if torch.equal(base, adapted):
        raise NoEffectError(
            f"the adapter changes none of {base.numel()} latents: it was never trained (B starts at zero), or it is"
            " not active; train it, or load it again"
        )


@contextmanager
def wearing(pipe: Any, model: nn.Module) -> Iterator[Any]:
    """The pipeline with the parts of `model`, adapter and all, in evaluation mode; its own come back afterwards."""
    model = uncompiled(model)
    parts = {name: part for name, part in base_of(model).named_children() if name in parts_of(pipe)}
    own = {name: getattr(pipe, name) for name in parts}
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        for name, part in parts.items():
            setattr(pipe, name, part)
        yield pipe
    finally:
        for name, part in own.items():
            setattr(pipe, name, part)
        for module, mode in modes.items():
            module.training = mode


def parts_of(pipe: Any) -> dict[str, nn.Module]:
    """The parts of a pipeline that an adapter may change, by name: its denoiser and its text encoders."""
    parts = {name: getattr(pipe, name, None) for name in (*DENOISERS, *ENCODERS)}
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def naming_of(pipe: Any, *, format: str) -> Naming:
    """The names that a file of this format has for a pipeline; raises as `naming_for`."""
    return naming_for(parts_of(pipe), format=format)


def check_is_plain(pipe: Any) -> None:
    """Raise ConfigError for a pipeline that carries an adapter already."""
    for name, part in parts_of(pipe).items():
        if any(isinstance(module, BaseTunerLayer) for module in part.modules()):
            raise ConfigError(
                f"the {name} of this {type(pipe).__name__} carries an adapter already: give a freshly"
                " loaded one, or call its unload_lora_weights() first"
            )


def prove_arrival(
    proof: Comparison, tensors: Mapping[str, torch.Tensor], pipe: Any, *, adapter_name: str, naming: Naming
) -> None:
    """Compare a file's factors with what a pipeline's layers hold; `proof` refuses a key too many or too few."""
    arrived = arrived_tensors(pipe, adapter_name=adapter_name, naming=naming)
    sent = {with_text_model(key): tensor for key, tensor in tensors.items() if not key.endswith(".alpha")}
    proof.same_names(sent, arrived)
    for key, tensor in sent.items():
        proof.check(key, tensor, arrived[key], path=(tensor.dtype, arrived[key].dtype))


def arrived_tensors(pipe: Any, *, adapter_name: str, naming: Naming) -> dict[str, torch.Tensor]:
    """What an adapter that was loaded into a pipeline consists of there, under the names that its file has for it."""
    arrived = {}
    for name, part in parts_of(pipe).items():
        if adapter_name not in getattr(part, "peft_config", {}):
            continue
        state = get_peft_model_state_dict(part, adapter_name=adapter_name, save_embedding_layers=False)
        for key, tensor in state.items():
            layer, _, factor = f"{name}.{key}".rpartition(".lora_")
            renamed = dict(zip(FACTORS["diffusers"], naming.keys(layer), strict=True))
            arrived[renamed.get(f"lora_{factor}", f"{name}.{key}")] = tensor
    return arrived


def load_quietly(proof: Comparison, path: str | Path, pipe: Any, *, adapter_name: str) -> None:
    """Have a pipeline load a file, without what it and the libraries below say of tensors: those are compared here.

    `proof` refuses a file that diffusers does not take, with its reason.
    """
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    levels = [logger.get_verbosity() for logger in loggers]
    try:
        for logger in loggers:
            logger.set_verbosity_error()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe.load_lora_weights(str(path), adapter_name=adapter_name)
    except (KeyError, IndexError, OSError, RuntimeError, TypeError, ValueError) as error:
        proof.refuse(f"it does not load ({' '.join(str(error).split())[:300]})")
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.set_verbosity(level)


def _prove_tensors(
    proof: Comparison, tensors: Mapping[str, torch.Tensor], pipe: Any, *, model: nn.Module, adapter_name: str
) -> None:
    """Compare a file's tensors with what arrived, and what arrived with A' = M·A and scale · B of every layer."""
    naming = naming_of(pipe, format=format_of(tensors))
    ours = lora_layers_of(base_of(model), adapter_name)
    plain = {
        f"{name}.{layer}": module
        for name, part in parts_of(pipe).items()
        for layer, module in lora_layers_of(part, LOADED).items()
    }
    _check_parts(pipe, ours, plain)
    proof.same_names(ours, [name for name, layer in plain.items() if name in ours or not _is_idle(layer)])
    prove_arrival(proof, tensors, pipe, adapter_name=LOADED, naming=naming)
    for name, layer in ours.items():
        compare_factors(proof, name, layer, plain[name], adapter_name=adapter_name, loaded_name=LOADED, is_baked=True)


def _check_parts(pipe: Any, ours: Collection[str], plain: Collection[str]) -> None:
    """Raise ConfigError for parts into which a pipeline loads no adapter at all."""
    sent, arrived = ({layer.partition(".")[0] for layer in layers} for layers in (ours, plain))
    if sent - arrived:
        raise ConfigError(
            f"{type(pipe).__name__} loads no adapter into its {', '.join(sorted(sent - arrived))}, so a file would do"
            " less than the adapter: leave that part out of the adapter"
        )


def _is_idle(layer: Any) -> bool:
    """Whether a loaded layer holds zeros alone."""
    return not any(factor[LOADED].weight.count_nonzero() for factor in (layer.lora_A, layer.lora_B))


def _features_last(latents: torch.Tensor) -> torch.Tensor:
    """Latents as (…, channels): a picture's (batch, channels, height, width) turned, FLUX's tokens as they are."""
    return latents.movedim(1, -1) if latents.dim() == 4 else latents


def _own_pixels(pipe: Any) -> int:
    """The side of the pictures that a pipeline draws by itself."""
    denoiser: Any = next(part for name, part in parts_of(pipe).items() if name in DENOISERS)
    sample_size = getattr(denoiser.config, "sample_size", None) or pipe.default_sample_size
    return sample_size * pipe.vae_scale_factor
