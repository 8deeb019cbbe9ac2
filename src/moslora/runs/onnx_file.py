"""The weights in an ONNX file, read without the package of that name.

An ONNX file is a protocol-buffer message: numbered fields, each a number or bytes. Of its schema (onnx.proto) only what
leads to the weights is read. An exporter transposes the matrices of linear layers and names them `onnx::MatMul_1966`;
the path of their layer is told by the node that multiplies with them.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import torch

from moslora.errors import CheckpointError

Value = int | memoryview

GRAPH = 7  # of a model
NODE, INITIALISER = 1, 5  # of a graph
INPUT, NODE_NAME, OPERATOR = 1, 3, 4  # of a node
DIMS, DATA_TYPE, TENSOR_NAME, RAW_DATA = 1, 2, 8, 9  # of a tensor
FLOAT = 1  # the data type

_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5  # how a field is written


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """The float32 tensors of a model, as it would name them in a state dict.

    The matrix of a `MatMul` node `/encoder/fc1/MatMul` comes as `encoder.fc1.weight`, in the orientation of `nn.Linear`
    (O, I); every other tensor keeps its name. Raises CheckpointError for a file that is cut off or no ONNX model.
    """
    try:
        return _weights(memoryview(file.read_bytes()))
    except (IndexError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} cannot be read as an ONNX model ({error}): install its package again") from error


def _weights(data: memoryview) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    layers: dict[str, str] = {}  # the name of a matrix: the path of the layer that multiplies with it
    graphs = [value for number, value in _fields(data) if number == GRAPH]
    if len(graphs) != 1:
        raise ValueError(f"{len(graphs)} graphs instead of one")
    for number, value in _fields(_bytes(graphs[0])):
        if number == INITIALISER:
            name, tensor = _tensor(_bytes(value))
            if tensor is not None:
                tensors[name] = tensor
        elif number == NODE:
            layers |= _layer(_bytes(value))
    named = {layers[name] + ".weight": tensors.pop(name).T.contiguous() for name in layers.keys() & tensors.keys()}
    return tensors | named


def _layer(node: memoryview) -> dict[str, str]:
    """{second input: path} of a MatMul node, nothing of another."""
    fields = list(_fields(node))
    inputs = [_text(value) for number, value in fields if number == INPUT]
    texts = {number: _text(value) for number, value in fields if number in (NODE_NAME, OPERATOR)}
    if texts.get(OPERATOR) != "MatMul":
        return {}
    return {inputs[1]: texts[NODE_NAME].removesuffix("/MatMul").strip("/").replace("/", ".")}


def _tensor(data: memoryview) -> tuple[str, torch.Tensor | None]:
    """Name and values; None for another type than float32."""
    fields = list(_fields(data))
    found = dict(fields)
    name = _text(found[TENSOR_NAME])
    if found.get(DATA_TYPE) != FLOAT:
        return name, None
    shape = [size for number, value in fields if number == DIMS for size in _numbers(value)]
    raw = _bytes(found[RAW_DATA])
    if len(raw) != 4 * math.prod(shape):
        raise ValueError(f"'{name}' has {len(raw)} bytes for the shape {shape}")
    return name, torch.frombuffer(bytearray(raw), dtype=torch.float32).reshape(shape)


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """The fields of a message in order: the number of each, and its value."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, form = key >> 3, key & 7
        if form == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if form not in (_EIGHT_BYTES, _BYTES, _FOUR_BYTES):
            raise ValueError(f"a field of the unknown form {form}")
        length, at = _varint(data, at) if form == _BYTES else (8 if form == _EIGHT_BYTES else 4, at)
        if at + length > len(data):
            raise ValueError("cut off")
        yield number, data[at : at + length]
        at += length


def _numbers(value: Value) -> Iterator[int]:
    """The numbers of a repeated field: one, or several in a row."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield number


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place after it."""
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message is expected")
    return value


def _text(value: Value) -> str:
    return str(_bytes(value), "utf-8")
