"""Pages: from a template and what stands beside it, with nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2

from hoody.later import sleep
from hoody.protocols.request import Request

TURN_SECONDS = 0.004
"""For how long at most a long page is worked on at once."""

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


def show(request: Request, template: str, **values: Any) -> None:
    """Answer with a page; see L{_begin}."""
    pieces, policy = _begin(template, **values)
    _send(request, "".join(pieces), policy)


async def show_in_turns(reactor: Any, request: Request, template: str, **values: Any) -> None:
    """As L{show}, for long ones: others have their turns meanwhile. Lists may be iterators."""
    pieces, policy = _begin(template, **values)
    made: list[str] = []
    began = reactor.seconds()
    for piece in pieces:
        made.append(piece)
        if reactor.seconds() - began > TURN_SECONDS:
            await sleep(reactor, 0)
            began = reactor.seconds()
    _send(request, "".join(made), policy)


def _begin(
    template: str,
    *,
    style: tuple[str, ...],
    script: tuple[str, ...] = (),
    frame_ancestors: str = "'none'",
    frame_src: str = "'none'",
    **values: object,
) -> tuple[Iterator[str], str]:
    """
    A page, in pieces, and its policy. What it may load is its own style and script, by
    their digests (Content Security Policy 3), and what it may talk to is this server.

    @param style: names of what is in C{static/}; so C{script}.
    @param frame_ancestors: who may show it within a page of theirs, as the policy has it.
    @param frame_src: and what may be shown within this one.
    """
    style_text, style_digest = _assets(style)
    script_text, script_digest = _assets(script)
    pieces = _templates.get_template(template).generate(
        style=style_text, script=script_text, **values
    )
    policy = (
        f"default-src 'none'; style-src {style_digest}; script-src {script_digest};"
        " connect-src 'self'; img-src data:; form-action 'self'; base-uri 'none';"
        f" frame-src {frame_src}; frame-ancestors {frame_ancestors}"
    )
    return pieces, policy


def _send(request: Request, text: str, policy: str) -> None:
    content = text.encode()
    request.setHeader(b"content-type", b"text/html; charset=utf-8")
    request.setHeader(b"content-length", b"%d" % len(content))
    request.setHeader(b"x-content-type-options", b"nosniff")
    request.setHeader(b"referrer-policy", b"no-referrer")
    request.setHeader(b"content-security-policy", policy.encode())
    request.write(content)
    request.finish()
