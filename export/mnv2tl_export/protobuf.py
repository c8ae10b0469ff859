"""Read the fields of a protobuf message, as far as an ONNX file has to be judged before it runs.

The package onnx is not part of a deployment, and onnxruntime would already build the model. Only
the wire format is known here: https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10

Field = tuple[int, int | memoryview]
"""Number of a field, and its value: an integer, or the bytes of a text, message or list."""


def read_fields(message: memoryview) -> Iterator[Field]:
    """Yield the fields of a message in order, without copying their bytes.

    Those of fixed size are left out: each is a single number, which nobody judges. Readers in C++
    pass over one that stands where they expect a text; it must not be taken for that text here.

    Raises:
        ValueError: The bytes are no message.
    """
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        if key >> 32:
            # Readers in C++ cut it to 32 bits, and would see another field.
            raise ValueError("the number of a field is too large")
        number, kind = key >> 3, key & 7
        if number == 0:
            raise ValueError("a field has the number 0")
        if kind == _VARINT:
            value, at = _read_varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _read_varint(message, at)
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise ValueError(f"a field has the wire type {kind}")
        if size > len(message) - at:
            raise ValueError("a field is longer than the message")
        if kind == _BYTES:
            yield number, message[at : at + size]
        at += size


def read_integers(value: int | memoryview) -> Iterator[int]:
    """Yield the integers of a repeated field, packed or not.

    Raises:
        ValueError: The bytes are no integers.
    """
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        integer, at = _read_varint(value, at)
        yield integer


def read_text(value: int | memoryview) -> str:
    """Return the text of a field.

    Raises:
        ValueError: It is no text in UTF-8.
    """
    return str(read_message(value), "utf-8")


def read_message(value: int | memoryview) -> memoryview:
    """Return the bytes of a field.

    Raises:
        ValueError: It is a number.
    """
    if isinstance(value, int):
        raise ValueError("a field is a number where bytes are expected")
    return value


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return an integer and where it ends."""
    value = 0
    for shift in range(_MAX_VARINT_BYTES):
        if at >= len(message):
            raise ValueError("the message ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")
