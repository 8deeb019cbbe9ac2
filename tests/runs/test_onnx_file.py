from pathlib import Path

import pytest
import torch

from moslora.errors import CheckpointError
from moslora.runs.onnx_file import read_weights


def field(number: int, value: int | str | bytes) -> bytes:
    """A field of a protocol-buffer message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


def stored(name: str, tensor: torch.Tensor, *, packed: bool = False, data_type: int = 1) -> bytes:
    """An initialiser of a graph."""
    sizes = b"".join(map(varint, tensor.shape))
    dims = field(1, sizes) if packed else b"".join(field(1, size) for size in tensor.shape)
    return field(5, dims + field(2, data_type) + field(8, name) + field(9, tensor.numpy().tobytes()))


def node(name: str, operator: str, *inputs: str) -> bytes:
    return field(1, b"".join(field(1, one) for one in inputs) + field(2, "out") + field(3, name) + field(4, operator))


def written(folder: Path, *parts: bytes) -> Path:
    """A model whose graph has these parts, behind fields of the forms that are skipped."""
    skipped = field(1, 8) + bytes([0x51, *range(8)]) + bytes([0x5D, *range(4)]) + field(2, "pytorch")
    (folder / "model.onnx").write_bytes(skipped + field(7, b"".join(parts)))
    return folder / "model.onnx"


def test_tensors_keep_their_names_shapes_and_values(tmp_path: Path):
    bias, scale = torch.randn(300), torch.randn(2, 1, 3)
    weights = read_weights(written(tmp_path, stored("norm.bias", bias), stored("scale", scale, packed=True)))
    assert weights.keys() == {"norm.bias", "scale"}
    assert torch.equal(weights["norm.bias"], bias)
    assert torch.equal(weights["scale"], scale)


def test_a_matrix_gets_the_name_of_the_layer_that_multiplies_with_it(tmp_path: Path):
    key, query = torch.randn(3, 2), torch.randn(3, 2)
    file = written(
        tmp_path,
        node("/encoder/layer.0/key/MatMul", "MatMul", "x", "onnx::MatMul_1"),
        node("/encoder/layer.0/query/MatMul", "MatMul", "x", "onnx::MatMul_2"),
        node("/encoder/layer.0/attention/MatMul", "MatMul", "k", "q"),
        node("/encoder/layer.0/key/Add", "Add", "y", "onnx::MatMul_2"),
        stored("onnx::MatMul_2", query),
        stored("onnx::MatMul_1", key),
    )
    weights = read_weights(file)
    assert weights.keys() == {"encoder.layer.0.key.weight", "encoder.layer.0.query.weight"}
    torch.testing.assert_close(torch.nn.functional.linear(torch.eye(3), weights["encoder.layer.0.key.weight"]), key)
    assert torch.equal(weights["encoder.layer.0.query.weight"], query.T)


def test_whole_numbers_are_left_out(tmp_path: Path):
    file = written(tmp_path, stored("axes", torch.arange(4), data_type=7), stored("bias", torch.ones(1)))
    assert read_weights(file).keys() == {"bias"}


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kept: int):
    file = written(tmp_path, stored("bias", torch.ones(5)))
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(CheckpointError) as caught:
        read_weights(file)
    assert str(caught.value).startswith(f"{file} cannot be read as an ONNX model (")
    assert str(caught.value).endswith("): install its package again")


def test_a_tensor_of_another_length_than_its_shape_is_refused(tmp_path: Path):
    short = field(5, field(1, 3) + field(2, 1) + field(8, "bias") + field(9, bytes(8)))
    with pytest.raises(CheckpointError, match=r"'bias' has 8 bytes for the shape \[3\]"):
        read_weights(written(tmp_path, short))


@pytest.mark.parametrize("content", [b"not a model", b'{"a": 1}', field(7, 5)])
def test_another_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "other.onnx").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as an ONNX model"):
        read_weights(tmp_path / "other.onnx")
