"""Make the page of a report from its content: templates, one style sheet, no script.

Every text is escaped twice over: what cannot be printed becomes visible, then markup is disarmed.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from mnv2tl.text import figure, megabytes, percent, printable

_FOLDER = "templates"


def render(template: str, **values: Any) -> str:
    """Return the HTML of a template in the folder `templates`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mnv2tl.report", _FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_make_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "megabytes": megabytes, "percent": percent}
    css = resources.files("mnv2tl.report").joinpath(_FOLDER, "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(css.encode("utf-8")).digest()).decode("ascii")
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = environment.get_template(template)
    return page.render(css=Markup(css), policy=policy, **values)  # noqa: S704 - our own file


def _make_visible(value: Any) -> Any:
    return printable(value) if type(value) is str else value
