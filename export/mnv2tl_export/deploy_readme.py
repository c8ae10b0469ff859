"""Write a bundle's README: what the files take and give, and programs that use them.

The text is `bundle_readme.md` beside this module; its programs are run by the tests as they stand
in the README.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mnv2tl_export.markdown import escape_markdown, fill, make_row, show_share
from mnv2tl_export.metadata import Metadata
from mnv2tl_export.parity import Parity

_LINE_LENGTH = 100


def write_readme(
    metadata: Metadata, artifacts: Sequence[Mapping[str, Any]], parities: Sequence[Parity]
) -> str:
    """Return the text of README.md, equal for equal arguments.

    Args:
        metadata: What travels in the artifacts.
        artifacts: `format`, `path`, `bytes`, `sha256` and `passed` of each, as in bundle.json;
            those that did not pass are left out.
        parities: What the gate found, in the same order.
    """
    published = [
        (artifact, parity)
        for artifact, parity in zip(artifacts, parities, strict=True)
        if artifact["passed"]
    ]
    onnx = [artifact for artifact, _ in published if artifact["path"].endswith(".onnx")]
    formats = {artifact["format"] for artifact, _ in published}
    parts = {
        "onnx": bool(onnx),
        "int8": "onnx-int8" in formats,
        "savedmodel": "savedmodel" in formats,
    }
    names = metadata.class_names
    values = {
        "classes": len(names),
        "image_px": metadata.image_px,
        "artifact_rows": "\n".join(_describe(*pair) for pair in published),
        "temperature": _describe_temperature(metadata.temperature),
        "accuracy": _describe_accuracy(metadata.val_accuracy),
        "model": onnx[0]["path"] if onnx else "",
        "sha256_lines": "\n".join(f"{each['sha256']}  {each['path']}" for each in onnx),
        "javascript_names": _wrap(json.dumps(name) for name in names),
        "cpp_names": _wrap(map(quote_cpp, names)),
        "class_rows": "\n".join(
            make_row(str(n), escape_markdown(each)) for n, each in enumerate(names)
        ),
        "weights_name": escape_markdown(metadata.base_weights["name"]),
        "weights_licence": escape_markdown(metadata.base_weights["licence"]),
        "versions": ", ".join(f"{name} {each}" for name, each in sorted(metadata.versions.items())),
    }
    return fill("bundle_readme.md", parts=parts, values=values)


def quote_cpp(text: str) -> str:
    r"""Return a C++ literal of a text in UTF-8, in plain ASCII.

    >>> print(quote_cpp('say "é"'))
    "say \"\303\251\""
    """
    # Three octal digits end by themselves; a question mark could begin a trigraph.
    return '"' + "".join(map(_quote_byte, text.encode("utf-8"))) + '"'


def _quote_byte(byte: int) -> str:
    character = chr(byte)
    if character in '"\\?':
        return "\\" + character
    return character if " " <= character <= "~" else f"\\{byte:03o}"


def _wrap(literals: Iterable[str]) -> str:
    """Return literals in lines, each with a comma behind it."""
    lines = [""]
    for literal in literals:
        if lines[-1] and len(lines[-1]) + len(literal) + 4 > _LINE_LENGTH:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else '  '}{literal},"
    return "\n".join(lines)


def _describe(artifact: Mapping[str, Any], parity: Parity) -> str:
    figures = parity.figures
    return make_row(
        f"`{artifact['path']}`",
        artifact["format"],
        f"{artifact['bytes']:,}",
        show_share(figures["val_accuracy"], figures["val_accuracy_interval"]),
        f"{figures['max_abs_diff']:.1g}",
        f"{figures['pixels_max_abs_diff']:g}",
    )


def _describe_temperature(temperature: float | None) -> str:
    if temperature is None:
        return "The probabilities are not calibrated: no temperature is in the graph."
    return (
        f"Logits are divided by {temperature:.4g}, the temperature that gave the validation "
        "pictures the least log loss."
    )


def _describe_accuracy(val_accuracy: Mapping[str, Any]) -> str:
    share = show_share(val_accuracy["accuracy"], val_accuracy["interval"])
    return (
        f"Validation accuracy: {share}, of {val_accuracy['images']:,} pictures that the training "
        "did not learn from, though the best epoch was chosen by them."
    )
