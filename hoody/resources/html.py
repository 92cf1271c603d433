"""Pages: from a template and what stands beside it, with nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache
from importlib import resources

import jinja2

from hoody.protocols.request import Request

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("hoody.resources", "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


@lru_cache
def asset(name: str) -> str:
    """A style or a script, to be put into the page itself."""
    return resources.files("hoody.resources").joinpath("static", name).read_text("utf-8")


@lru_cache
def _digest(name: str) -> str:
    digest = hashlib.sha256(asset(name).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def show(request: Request, template: str, *, style: str, script: str, **values: object) -> None:
    """
    Answer with a page. What it may load is its own style and script, by their digests
    (Content Security Policy 3), and what it may talk to is this server.
    """
    body = _templates.get_template(template).render(
        style=asset(style), script=asset(script), **values
    )
    content = body.encode()
    request.setHeader(b"content-type", b"text/html; charset=utf-8")
    request.setHeader(b"content-length", b"%d" % len(content))
    request.setHeader(b"x-content-type-options", b"nosniff")
    request.setHeader(b"referrer-policy", b"no-referrer")
    policy = (
        f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)};"
        " connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    )
    request.setHeader(b"content-security-policy", policy.encode())
    request.write(content)
    request.finish()
