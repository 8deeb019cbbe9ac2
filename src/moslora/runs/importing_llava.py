"""XTuner's three folders imported as one adapter of an assembled LLaVA model, proved on the model itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForImageTextToText

from moslora.adapter.config import MosloraConfig
from moslora.adapter.importing_parts import join, read_parts
from moslora.adapter.importing_proof import prove_joined
from moslora.adapter.tensors import TensorDrift
from moslora.errors import ConfigError, DriftError
from moslora.files import check_new_folder, new_folder
from moslora.runs.assembling_proof import picture_probe
from moslora.runs.models import LOADING_ERRORS, resolve_model
from moslora.runs.origin import write_origin
from moslora.runs.picture_readers import READERS
from moslora.runs.picture_readers.llava import LlavaReader
from moslora.runs.processors import check_supported, load_processor
from moslora.runs.vision_settings import VisionDataSettings, VisionModelSettings


@dataclass(frozen=True)
class ImportedLlava:
    """The adapter that was written: what each part has, and what was compared."""

    config: MosloraConfig
    parts: dict[str, dict[str, Any]]  # layers, r, lora_alpha, lora_dropout and mixer of each
    has_projector: bool
    tensors: TensorDrift
    logit_change: float  # the largest that the adapter makes for a picture, of the base's largest logit

    def to_dict(self) -> dict[str, Any]:
        """What JSON says of it."""
        compared = {"compared_tensors": self.tensors.compared, "logit_change": self.logit_change}
        return {"parts": self.parts, "has_projector": self.has_projector, **compared}


def import_llava(source: str | Path, folder: str | Path, *, base: str) -> ImportedLlava:
    """Join the adapters in `source` (`llm_adapter`, `visual_encoder_adapter`, `projector`) and write them to `folder`.

    `base` is the LLaVA model of the same language model and vision tower (folder or hub id). The adapter is loaded
    into it, its tensors are compared with the files, and a picture is run through both. Raises CheckpointError for
    files that do not fit together or the base, ConfigError for a base that is not LLaVA's, OutputError for a folder
    that is not empty, DriftError where the loaded adapter is not what the files say.
    """
    check_new_folder(folder)
    parts, projector = read_parts(source)
    place = resolve_model(base)
    model, processor = _load(place)
    joined = join(parts, projector, model, base=place)
    probe = picture_probe(processor)
    before = _logits(model, probe)
    with new_folder(folder) as staged:
        save_file(joined.tensors, staged / "adapter_model.safetensors", metadata={"format": "pt"})
        joined.config.save_pretrained(str(staged))
        processor.save_pretrained(staged)
        write_origin(staged, prompt=VisionDataSettings.style, kind=VisionModelSettings.kind)
        adapted = PeftModel.from_pretrained(model, str(staged)).eval()
        drift = prove_joined(source, adapted, projector=projector)
        change = ((_logits(adapted, probe) - before).abs().max() / before.abs().max()).item()
        if not 0 < change < float("inf"):
            raise DriftError(
                f"the adapter changes a picture's logits by {change:g} of the largest: its tensors are untrained or"
                " damaged, or the base already holds them"
            )
    return ImportedLlava(joined.config, joined.about, projector is not None, drift, change)


def _load(place: str) -> tuple[Any, Any]:
    """The base and its processor, on the first accelerator if there is one."""
    try:
        config = AutoConfig.from_pretrained(place)
        check_supported(config)
        if not isinstance(READERS[config.model_type], LlavaReader):
            raise ConfigError(
                f"the base '{place}' is of type '{config.model_type}', and XTuner's folders are for LLaVA: give that"
                " model's folder"
            )
        processor = load_processor(place, config)
        options: dict[str, Any] = {"device_map": {"": 0}} if torch.accelerator.is_available() else {}
        model = AutoModelForImageTextToText.from_pretrained(place, use_safetensors=True, dtype="auto", **options)
    except ConfigError:
        raise
    except LOADING_ERRORS as error:
        reason = " ".join(str(error).split())[:250]
        raise ConfigError(f"the base '{place}' cannot be loaded: {reason} (give a LLaVA model's folder)") from error
    return model.eval(), processor


@torch.no_grad()
def _logits(model: Any, probe: Any) -> torch.Tensor:
    return model(**probe.to(model.device)).logits.float()
