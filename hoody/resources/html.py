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
def _assets(names: tuple[str, ...]) -> tuple[str, str]:
    """Several in one, and the digest by which a policy lets it in."""
    text = "".join(map(asset, names))
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"'sha256-{digest}'" if names else "'none'"


def show(
    request: Request,
    template: str,
    *,
    style: tuple[str, ...],
    script: tuple[str, ...] = (),
    frame_ancestors: str = "'none'",
    frame_src: str = "'none'",
    **values: object,
) -> None:
    """
    Answer with a page. What it may load is its own style and script, by their digests
    (Content Security Policy 3), and what it may talk to is this server.

    @param style: names of what is in C{static/}; so C{script}.
    @param frame_ancestors: who may show it within a page of theirs, as the policy has it.
    @param frame_src: and what may be shown within this one.
    """
    style_text, style_digest = _assets(style)
    script_text, script_digest = _assets(script)
    body = _templates.get_template(template).render(style=style_text, script=script_text, **values)
    content = body.encode()
    request.setHeader(b"content-type", b"text/html; charset=utf-8")
    request.setHeader(b"content-length", b"%d" % len(content))
    request.setHeader(b"x-content-type-options", b"nosniff")
    request.setHeader(b"referrer-policy", b"no-referrer")
    policy = (
        f"default-src 'none'; style-src {style_digest}; script-src {script_digest};"
        " connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none';"
        f" frame-src {frame_src}; frame-ancestors {frame_ancestors}"
    )
    request.setHeader(b"content-security-policy", policy.encode())
    request.write(content)
    request.finish()
