"""Self-contained pages from templates: one style sheet, one script, no network, written in one step."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

import jinja2
from markupsafe import Markup

from selfimprove.app import units
from selfimprove.app.report import text
from selfimprove.errors import RunError

_TEMPLATES = Path(__file__).parent / "templates"
_FILTERS: Mapping[str, Callable[..., object]] = {
    "flops": units.flops,
    "decimal": text.decimal,
    "signed": text.signed,
    "p": text.p_text,
    "moment": text.moment,
    "breakable": text.breakable,
    "percent": text.percent,
    "quoted": shlex.quote,
}


def fill(template: str, filters: Mapping[str, Callable[..., object]], **values: object) -> str:
    """A template as text, with style sheet and script inside; every value is escaped.

    Args:
        template: its file name.
        filters: of this template, beside those of all.
        values: what it names.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({**_FILTERS, **filters})
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    policy = content_policy(style, script)
    return environment.get_template(template).render(
        style=Markup(style), script=Markup(script), policy=policy, **values
    )


def content_policy(style: str, script: str) -> str:
    """A content security policy that admits exactly our style sheet and script, and no network at all."""

    def source(content: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {source(style)}; script-src {source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def write_page(path: Path, page: str, what: str) -> Path:
    """Write a page in one step: a reader sees the old one or the new one.

    Args:
        path: of the file.
        page: its text.
        what: the page's name in a message, for example ``report``.

    Raises:
        RunError: the page cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        draft.write_text(page, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        remedy = f"free space or make the folder writable ({error.strerror})"
        raise RunError(f"write the {what}", str(path), "a writable folder with free space", remedy) from error
    return path
