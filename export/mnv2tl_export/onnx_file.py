"""Judge an ONNX file before a runtime sees it: ours, whole, and without a way out of itself.

The file may come from anybody. What is allowed is what `mnv2tl export` writes: operators of ONNX's
own set that are in `OPERATORS`, no functions or sparse tensors, and all numbers inside of the file.
The only sub-graph is the body of a loop that runs once at most: how often is the `Sign` of a sum. A
file without our metadata may have any operator of ONNX's own set, and no sub-graph; `foreign` runs
it in a process with little memory. Field numbers are those of onnx/onnx.proto, onnx 1.23.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mnv2tl.errors import ArtifactError, show
from mnv2tl_export.bundle import check_content
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.protobuf import read_fields, read_integers, read_message, read_text

MAX_BYTES = 256 * 2**20
_MAX_BATCH = 1024
OPERATORS = frozenset(
    {
        *("Abs", "Add", "Cast", "Clip", "Concat", "Conv", "Div", "Flatten", "Floor", "Gather"),
        *("Gemm", "GlobalAveragePool", "Identity", "Less", "Loop", "MatMul", "Max", "Mul"),
        *("Range", "ReduceMax", "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Round"),
        *("Shape", "Sign", "Slice", "Softmax", "Split", "Squeeze", "Sub", "Transpose"),
        *("Unsqueeze", "Where"),
        # Quantised and converted files have these too, and those of earlier versions.
        *("DequantizeLinear", "Equal", "QuantizeLinear", "Min", "Pad", "ReduceMean"),
        *("ReduceMin",),
    }
)
DOMAINS = frozenset({"", "ai.onnx"})
_UINT8, _FLOAT = 2, 1
_DEFAULT_LOCATION = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxFile:
    """An ONNX file of ours that may be run."""

    path: Path
    """Where it lies."""
    content: bytes
    """The file's bytes, the same that were judged."""
    metadata: Metadata
    """What travels in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignFile:
    """An ONNX file of somebody else that may be run apart."""

    path: Path
    """Where it lies."""
    content: bytes
    """The file's bytes, the same that were judged."""
    batch: int | None
    """Pictures that it takes at once; None for any."""
    sides_px: tuple[int | None, int | None]
    """Height and width that it takes; None for any."""


@dataclass(slots=True)
class _Found:
    """What a walk through a model has met."""

    texts: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, tuple[int, list[int | None]]] = field(default_factory=dict)
    outputs: dict[str, tuple[int, list[int | None]]] = field(default_factory=dict)
    initializers: set[str] = field(default_factory=set)
    has_graph: bool = False


def read_onnx(path: Path) -> OnnxFile:
    """Read and judge a file; if a bundle.json lies beside it, the file must be the sealed one.

    Raises:
        ArtifactError: It is no .onnx file (E410), larger than `MAX_BYTES`, malformed or holds what
            is not allowed (E412), has no metadata of ours (E411), of a newer schema (E404), or
            is not the file that bundle.json names (E413).
    """
    content = _read_content(path)
    found = _judge(content, OPERATORS, path)
    try:
        metadata = Metadata.from_texts(found.texts)
    except ArtifactError as error:
        raise ArtifactError(error.code, error.message, path=path, fix=error.fix) from error
    inputs, outputs = _check_signature(found, len(metadata.class_names), path)
    if (inputs, outputs) != ("image", "probabilities"):
        message = f"expected the names image and probabilities, found {inputs!a} and {outputs!a}"
        raise ArtifactError("E412", message, path=path)
    check_content(path, content)
    return OnnxFile(path=path, content=content, metadata=metadata)


def read_foreign(path: Path, *, classes: int) -> ForeignFile:
    """Read and judge a file that `mnv2tl export` did not write.

    Args:
        path: An .onnx file from pixels uint8 (N, H, W, 3) to float32 (N, classes), whatever
            their names.
        classes: How many class names there are for it.

    Raises:
        ArtifactError: It is no .onnx file (E410), or larger than `MAX_BYTES`, malformed, or holds
            what is not allowed (E412).
    """
    content = _read_content(path, "name an .onnx file")
    found = _judge(content, None, path)
    name, _ = _check_signature(found, classes, path)
    batch, height, width, _ = found.inputs[name][1]
    if batch is not None and not 1 <= batch <= _MAX_BATCH:
        message = f"it takes {batch} pictures at once, allowed are 1 to {_MAX_BATCH}"
        raise ArtifactError("E412", message, path=path)
    return ForeignFile(path=path, content=content, batch=batch, sides_px=(height, width))


def suggest_model(path: Path) -> str:
    """Return what to give in place of a path that is no exported model, as the fix of an error."""
    folder = path.parent if path.name == "best.keras" else path
    if (folder / "run.json").is_file():
        return f"export the run first: mnv2tl export {show(folder)} --out BUNDLE"
    if (path / "bundle.json").is_file():
        files = sorted(path.glob("*.onnx"), key=lambda file: len(file.name))
        return f"give a file of the bundle: {show([*files, path / 'saved_model'][0])}"
    return (
        "use an .onnx file or saved_model that mnv2tl export wrote; evaluate takes a run folder too"
    )


def _judge(content: bytes, operators: frozenset[str] | None, path: Path) -> _Found:
    try:
        return _Walk(operators).walk_model(memoryview(content))
    except (ValueError, RecursionError) as error:
        raise ArtifactError("E412", f"not allowed or malformed: {error}", path=path) from error


def _read_content(path: Path, fix: str | None = None) -> bytes:
    """Return what a file holds; `fix` is what to do where it is none of the right kind."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path), re.IGNORECASE):
        raise ArtifactError("E410", "an address is not opened", path=path, fix="name a file")
    if path.suffix.lower() != ".onnx" or not path.is_file():
        what = "no such file" if not path.exists() else "unsupported model type"
        raise ArtifactError("E410", what, path=path, fix=fix or suggest_model(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ArtifactError("E412", f"cannot be read: {error.strerror}", path=path) from error
    if len(content) > MAX_BYTES:
        raise ArtifactError("E412", f"larger than {MAX_BYTES:,} bytes", path=path)
    return content


def _check_signature(found: _Found, classes: int, path: Path) -> tuple[str, str]:
    """Return the names of the one input and the one output, if their types and shapes are right."""
    inputs = {name: each for name, each in found.inputs.items() if name not in found.initializers}
    if len(inputs) == len(found.outputs) == 1:
        ((name, (kind, sides)),) = inputs.items()
        ((output, (output_kind, output_sides)),) = found.outputs.items()
        takes_pixels = kind == _UINT8 and len(sides) == 4 and sides[3] == 3
        if takes_pixels and output_kind == _FLOAT and output_sides[1:] == [classes]:
            return name, output
    message = "expected one input, uint8 (N, H, W, 3), and one output, float32 "
    raise ArtifactError("E412", message + f"(N, {classes})", path=path)


class _Walk:
    """Goes through a model once.

    Args:
        operators: Those that are allowed; None for all of ONNX's own set.
    """

    def __init__(self, operators: frozenset[str] | None) -> None:
        self.operators = operators
        self.found = _Found()
        self.made: set[str] = set()
        """Names of what nodes give."""
        self.sums: set[str] = set()
        """Those of a single number each; the count of a loop may not be empty."""
        self.signs: set[str] = set()
        """Those of a single -1, 0 or 1 each."""

    def walk_model(self, message: memoryview) -> _Found:
        """Return what is in a model; a `ValueError` says what is not allowed."""
        for number, value in read_fields(message):
            match number:
                case 7:
                    self.found.has_graph = True
                    self.walk_graph(read_message(value))
                case 8:
                    _check_domain(_text_of(read_message(value), 1), "operator set")
                case 14:
                    entry = read_message(value)
                    self.found.texts[_text_of(entry, 1)] = _text_of(entry, 2)
                case 20 | 25:
                    raise ValueError("training parts and functions are not allowed")
        if not self.found.has_graph:
            raise ValueError("there is no graph")
        if not self.made.isdisjoint(self.found.initializers | self.found.inputs.keys()):
            raise ValueError("a node gives what is there before")
        return self.found

    def walk_graph(self, message: memoryview) -> None:
        """Judge all that is in a graph, and keep what `found` names."""
        for number, value in read_fields(message):
            match number:
                case 1:
                    self._check_node(read_message(value))
                case 5:
                    self.found.initializers.add(_check_tensor(read_message(value)))
                case 11:
                    name, info = _read_value_info(read_message(value))
                    self.found.inputs[name] = info
                case 12:
                    name, info = _read_value_info(read_message(value))
                    self.found.outputs[name] = info
                case 15:
                    raise ValueError("sparse tensors are not allowed")

    def _check_node(self, message: memoryview) -> None:
        operator = _text_of(message, 4)
        inputs, outputs = _texts_of(message, 1), _texts_of(message, 2)
        for domain in _texts_of(message, 7):
            _check_domain(domain, "operator")
        attributes = list(_messages(message, 5))
        bodies = [body for each in attributes for body in _read_attribute(each)]
        if bodies and (self.operators is None or operator != "Loop"):
            raise ValueError("sub-graphs are not allowed")
        if self.operators is None:
            return
        if operator not in self.operators:
            raise ValueError(f"the operator {operator!a} is not allowed")
        given = {name for name in outputs if name}
        if not given.isdisjoint(self.made):
            raise ValueError("two nodes give the same")
        self.made |= given
        first = given.intersection(outputs[:1])
        match operator:
            case "ReduceSumSquare":
                names = {_text_of(attribute, 1) for attribute in attributes}
                if len(inputs) == 1 and names <= {"keepdims"}:  # over all axes
                    self.sums |= first
            case "Sign" if not self.sums.isdisjoint(inputs[:1]):
                self.signs |= first
            case "Loop":
                if self.signs.isdisjoint(inputs[:1]):
                    raise ValueError("a loop that may run more than once is not allowed")
                for body in bodies:
                    # What a body has inside is not seen outside.
                    _Walk(self.operators - {"Loop"}).walk_graph(body)


def _read_attribute(message: memoryview) -> list[memoryview]:
    """Return the graph of an attribute, if it holds one, once its tensors are judged."""
    graphs = []
    for number, value in read_fields(message):
        if number == 6:
            graphs.append(read_message(value))
        if number == 11:
            raise ValueError("sub-graphs are not allowed")
        if number in (22, 23):
            raise ValueError("sparse tensors are not allowed")
        if number in (5, 10):
            _check_tensor(read_message(value))
    return graphs


def _check_tensor(message: memoryview) -> str:
    """Return the name of a tensor whose numbers are in the file."""
    name = ""
    for number, value in read_fields(message):
        if number == 8:
            name = read_text(value)
        if number == 13 or (number == 14 and value != _DEFAULT_LOCATION):
            raise ValueError("external data is not allowed")
    return name


def _check_domain(domain: str, what: str) -> None:
    if domain not in DOMAINS:
        raise ValueError(f"the {what} domain {domain!a} is not allowed")


def _read_value_info(message: memoryview) -> tuple[str, tuple[int, list[int | None]]]:
    """Return name, element type and sides (None where any size is taken) of an input or output."""
    name, kind = _text_of(message, 1), 0
    sides: list[int | None] = []
    for tensor in _messages(message, 2, 1):
        for number, value in read_fields(tensor):
            if number == 1:
                kind = next(read_integers(value), 0)
        for side in _messages(tensor, 2, 1):
            values = [value for number, value in read_fields(side) if number == 1]
            sides.append(next(read_integers(values[-1]), None) if values else None)
    return name, (kind, sides)


def _messages(message: memoryview, *numbers: int) -> Iterator[memoryview]:
    """Yield the messages that lie at a path of field numbers."""
    for number, value in read_fields(message):
        if number == numbers[0]:
            inner = read_message(value)
            if len(numbers) == 1:
                yield inner
            else:
                yield from _messages(inner, *numbers[1:])


def _text_of(message: memoryview, number: int) -> str:
    """Return the last text field of this number, empty if there is none."""
    texts = _texts_of(message, number)
    return texts[-1] if texts else ""


def _texts_of(message: memoryview, number: int) -> list[str]:
    return [read_text(value) for each, value in read_fields(message) if each == number]
