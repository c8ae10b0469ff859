"""Turn a figure of matplotlib into SVG that lies in a page.

The page's security policy allows no style attributes and its colours follow the reader's choice of
light or dark; so styles become attributes, and ink takes the colour of the text around it.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

INK = "#010203"
"""Draw in this colour what shall have that of the text."""
# Okabe and Ito's colours, which colour-blind readers tell apart.
BLUE, ORANGE = "#0072b2", "#d55e00"
PALETTE = (BLUE, ORANGE, "#00835f", "#b0578d", "#2b8fc6", "#a87800", "#5f6670")
"""Colours of things side by side, as the page's `k0` to `k6`."""
_COLOURS = {INK: "currentColor"} | {each: f"var(--k{n})" for n, each in enumerate(PALETTE)}
"""Colour of the figure -> colour of the page, which depends on light or dark."""

_STYLE: Any = {
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "figure.facecolor": "none",
    "font.size": 11.5,
    "grid.alpha": 0.2,
    "grid.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
_SIZE = re.compile(r"([\d.]+)px")
_KEPT = {"fill", "stroke", "opacity", "clip-path", "text-anchor", "font-size"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart as the page holds it."""

    name: str
    """Unlike that of every other chart of the page; letters and hyphens."""
    title: str
    """What it shows, in a few words."""
    description: str
    """What it shows, in sentences, for those who do not see it."""
    view_box: str
    """Of the SVG element."""
    body: Markup
    """Content of the SVG element."""


def style() -> Any:
    """Return a context in which a figure is drawn for `make_chart`."""
    return mpl.rc_context(_STYLE)


def make_chart(figure: Figure, *, name: str, title: str, description: str) -> Chart:
    """Return a figure that was drawn within `style`, as a chart; call it within `style` too."""
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())  # noqa: S314 - matplotlib's own
    for element in root.iter():
        _clean(element, name)
    parts = [each for each in root if each.tag not in ("metadata", "title")]
    body = "".join(ET.tostring(part, encoding="unicode") for part in parts)
    return Chart(
        name=name,
        title=title,
        description=description,
        view_box=root.attrib["viewBox"],
        body=Markup(body),  # noqa: S704 - serialised by ElementTree, which escapes all text
    )


def _clean(element: ET.Element, prefix: str) -> None:
    """Drop name spaces and styles, make names unlike those of other charts, free the ink."""
    element.tag = element.tag.rpartition("}")[2]
    for child in list(element):
        if child.tag.endswith("}style"):
            element.remove(child)
    attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    attributes |= _split_style(attributes.pop("style", ""))
    for key, value in attributes.items():
        if key == "id":
            attributes[key] = f"{prefix}-{value}"
        elif key == "href":
            attributes[key] = value.replace("#", f"#{prefix}-")
        elif key == "clip-path":
            attributes[key] = value.replace("url(#", f"url(#{prefix}-")
        else:
            attributes[key] = _COLOURS.get(value, value)
    element.attrib.clear()
    element.attrib.update(attributes)


def _split_style(text: str) -> dict[str, str]:
    """Return the declarations of a style attribute that are attributes of SVG too."""
    found = {}
    for declaration in text.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            size = _SIZE.search(value)
            key, value = "font-size", size[1] if size else ""
        if value and (key in _KEPT or key.startswith(("stroke-", "fill-"))):
            found[key] = value
    return found
