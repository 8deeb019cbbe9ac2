"""A LLaVA model built from its parts: a language model, a vision tower and a projector, with processor and tokenizer.

The folder is what transformers' `LlavaForConditionalGeneration` loads, and is proved (`assembling_proof`) before it
takes its place.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from moslora.adapter.projectors import Projector, read_projector
from moslora.errors import ConfigError, unknown_name
from moslora.files import check_new_folder, new_folder
from moslora.runs.assembling_proof import PROBE, fingerprints, prove
from moslora.runs.image_processors import PADDINGS, pixel_size, reshaped
from moslora.runs.ingredients import IMAGE_TOKEN, LanguagePart, TowerPart, load_language, load_tower
from moslora.runs.picture_readers.llava import class_tokens
from moslora.runs.processors import image_tokens

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
STRATEGIES = ("default", "full")


@dataclass(frozen=True)
class AssemblyPlan:
    """How the parts are joined; what is None follows from the vision tower. Raises ConfigError for unknown names."""

    feature_layer: int = -2  # which hidden state of the tower the projector reads
    strategy: str | None = None  # default drops the first feature (the class token), full keeps all
    image_size: int | None = None  # side in pixels
    pad: str = "square"  # pictures that are not square: padded with the mean colour, cropped, or as the tower's own
    dtype: str = "bfloat16"
    seed: int = 0  # of a new projector
    chat_template: str | None = None  # in place of the language model's own

    def __post_init__(self) -> None:
        allowed: dict[str, Any] = {"strategy": STRATEGIES, "pad": PADDINGS, "dtype": DTYPES}
        for name, names in allowed.items():
            value = getattr(self, name)
            if value is not None and value not in names:
                raise unknown_name(name, value, names)


@dataclass(frozen=True)
class Assembled:
    """What was built: sizes in parameters and pixels, and the tokens that a picture costs."""

    folder: str
    language: str
    vision: str
    projector: str
    language_parameters: int
    vision_parameters: int
    projector_parameters: int
    image_token: str
    image_token_id: int
    new_rows: int  # of the embedding, for the image token
    image_size: int
    patch_size: int
    tokens_per_picture: int
    feature_layer: int
    strategy: str
    padding: str
    dtype: str

    def to_dict(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self)


def assemble(
    language: str,
    vision: str,
    *,
    folder: str | Path,
    projector: str | Path | None = None,
    tokenizer: str | None = None,
    plan: AssemblyPlan | None = None,
) -> Assembled:
    """Build a LLaVA model in `folder` (new or empty) from two models and a projector's file, on the CPU, verified.

    Without `projector` a new one is drawn, whose outputs on noise have the embeddings' standard deviation. Raises
    ConfigError and CheckpointError for parts that cannot be read or do not fit, OutputError for a folder that is not
    empty, DriftError where the saved model is not its parts.
    """
    plan = plan or AssemblyPlan()
    check_new_folder(folder)
    given = None if projector is None else read_projector(projector)
    dtype = DTYPES[plan.dtype]
    tower = load_tower(vision, dtype=dtype)
    strategy, side = _strategy(tower, plan), _side(tower, plan)
    text = load_language(language, dtype=dtype, tokenizer=tokenizer)
    if given:
        given.check_sizes(vision=tower.config.hidden_size, language=text.width, source=str(projector))
    probe = text.text_logits(PROBE)
    number, new_rows = text.add_image_token()
    if plan.chat_template is not None:
        text.tokenizer.chat_template = plan.chat_template
    config = _config(text, tower, strategy=strategy, number=number, plan=plan, given=given)
    processor = _processor(text, tower, config=config, side=side, pad=plan.pad)
    tokens = config.image_seq_length = image_tokens(processor, width=side, height=side)
    _check_room(config.text_config, tokens)
    model = _joined(config, text, tower=tower, projector=given, plan=plan, side=side)
    counts = _parameters(model)
    with new_folder(folder) as staged:
        model.save_pretrained(staged)
        processor.save_pretrained(staged)
        right = fingerprints(model)
        del model, text, tower  # one copy of the weights in memory at a time
        prove(staged, right, probe=probe, config=config)
    return Assembled(
        folder=str(folder),
        language=language,
        vision=vision,
        projector=f"new, seed {plan.seed}" if projector is None else str(projector),
        **counts,
        image_token=IMAGE_TOKEN,
        image_token_id=number,
        new_rows=new_rows,
        image_size=side,
        patch_size=config.vision_config.patch_size,
        tokens_per_picture=tokens,
        feature_layer=plan.feature_layer,
        strategy=strategy,
        padding=plan.pad,
        dtype=plan.dtype,
    )


def _parameters(model: Any) -> dict[str, int]:
    """The numbers of parameters of each part, under the names of `Assembled`; a tied head counts once."""
    inside = model.model
    counts = {
        name: sum(tensor.numel() for tensor in part.parameters())
        for name, part in {"vision": inside.vision_tower, "projector": inside.multi_modal_projector}.items()
    }
    whole = sum(tensor.numel() for tensor in model.parameters())
    return {f"{name}_parameters": count for name, count in counts.items()} | {
        "language_parameters": whole - sum(counts.values())
    }


def _strategy(tower: TowerPart, plan: AssemblyPlan) -> str:
    has_class_token = class_tokens(tower.config) > 0
    if plan.strategy == "default" and not has_class_token:
        raise ConfigError(
            f"strategy default drops the first feature, and a tower of type '{tower.config.model_type}' has no class"
            " token there: set strategy to full, or leave it out"
        )
    return plan.strategy or ("default" if has_class_token else "full")


def _side(tower: TowerPart, plan: AssemblyPlan) -> int:
    """The side in pixels of the pictures that the tower gets."""
    config = tower.config
    if config.model_type != "dinov2":
        if plan.image_size not in (None, config.image_size):
            raise ConfigError(
                f"image size {plan.image_size} does not fit: the vision tower has positions for {config.image_size} x"
                f" {config.image_size} pixels; leave it out, or give a tower made for that size"
            )
        return config.image_size
    own = pixel_size(tower.image_processor) or (config.image_size,)
    side = plan.image_size or own[0]
    if side < 1 or side % config.patch_size:
        raise ConfigError(f"image size {side} is not a multiple of the vision tower's patches of {config.patch_size}")
    return side


def _config(
    text: LanguagePart, tower: TowerPart, *, strategy: str, number: int, plan: AssemblyPlan, given: Projector | None
) -> Any:
    layers = tower.config.num_hidden_layers
    if not -layers - 1 <= plan.feature_layer <= layers:
        raise ConfigError(
            f"feature layer {plan.feature_layer} does not exist: the vision tower has {layers} layers (allowed:"
            f" {-layers - 1} to {layers}, 0 for its embeddings)"
        )
    for part in (text.model.config, tower.config):
        part._name_or_path = ""  # a place on this machine
    return LlavaConfig(
        vision_config=tower.config,
        text_config=text.model.config,
        image_token_index=number,
        vision_feature_select_strategy=strategy,  # pyright: ignore[reportArgumentType] - one of STRATEGIES
        vision_feature_layer=plan.feature_layer,
        projector_hidden_act=given.activation if given and given.activation else "gelu",
        multimodal_projector_bias=given is None or given.has_bias,
        tie_word_embeddings=text.model.config.tie_word_embeddings,
        dtype=DTYPES[plan.dtype],
    )


def _processor(text: LanguagePart, tower: TowerPart, *, config: Any, side: int, pad: str) -> LlavaProcessor:
    images = tower.image_processor
    if pad != "own":
        images = reshaped(images, pad=pad, side=side)
    elif pixel_size(images) != (side, side):
        raise ConfigError(
            f"the vision tower's own processor does not give pictures of {side} x {side} pixels: set pad to square or"
            " crop"
        )
    return LlavaProcessor(
        images,
        text.tokenizer,
        patch_size=tower.config.patch_size,
        num_additional_image_tokens=class_tokens(tower.config),
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        image_token=IMAGE_TOKEN,
    )


def _check_room(text_config: Any, tokens: int) -> None:
    positions = getattr(text_config, "max_position_embeddings", None)
    if positions is not None and tokens >= positions:
        raise ConfigError(
            f"a picture becomes {tokens} tokens and the language model has {positions} positions: give a tower with"
            " larger patches or smaller pictures, or another language model"
        )


def _joined(
    config: Any, text: LanguagePart, *, tower: TowerPart, projector: Projector | None, plan: AssemblyPlan, side: int
) -> Any:
    """The whole model, made of the parts themselves."""
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    language = text.model.base_model
    if type(language) is not type(model.model.language_model):
        raise ConfigError(
            f"the language model's class {type(language).__name__} is not the one that LLaVA models hold for"
            f" '{config.text_config.model_type}' ({type(model.model.language_model).__name__}): give another one"
        )
    middle = LlavaMultiModalProjector(config)
    if projector is None:
        _draw(middle, text, tower=tower, plan=plan, side=side)
    else:
        middle.load_state_dict(projector.tensors)
    model.model.language_model, model.lm_head = language, text.model.get_output_embeddings()
    model.model.vision_tower, model.model.multi_modal_projector = tower.model, middle.to(DTYPES[plan.dtype])
    model.generation_config = text.model.generation_config
    model.tie_weights()
    return model.eval()


@torch.no_grad()
def _draw(
    middle: LlavaMultiModalProjector, text: LanguagePart, *, tower: TowerPart, plan: AssemblyPlan, side: int
) -> None:
    """Fill a projector at random, scaled so that the features of noise are as large as the words' embeddings."""
    generator = torch.Generator().manual_seed(plan.seed)
    for layer in (middle.linear_1, middle.linear_2):
        layer.weight.normal_(0, layer.in_features**-0.5, generator=generator)
        layer.bias.zero_()
    noise = torch.randn((1, 3, side, side), generator=generator)
    features = middle(tower.features(noise, layer=plan.feature_layer).float())
    middle.linear_2.weight *= text.model.get_input_embeddings().weight.float().std() / features.std()
