"""Lines for a terminal, ready to be copied: what bots and pagers are made of."""

from __future__ import annotations

import json
import shlex

from attrs import frozen

from hoody.pipes.results import Result
from hoody.units import rfc3339

_STREAM = '-H "Accept: text/event-stream"'
_ONCE = '-H "Accept: application/json"'


@frozen
class Line:
    """
    @ivar name: by which its button finds it.
    @ivar title: what it does.
    """

    name: str
    title: str
    code: str


def ready_lines(path: str, url: str, curl: str, known: Result | None) -> list[Line]:
    """
    They run in any POSIX shell, and need curl, grep and sed.

    @param url: of the spectators' view.
    @param curl: how curl is called, with a token where one is needed.
    @param known: how the last transfer ended: no bot is to tell of that.
    """
    where = shlex.quote(url)
    return [
        Line("events", "Every line of this page, as events:", f"{curl} -N {_STREAM} {where}"),
        Line("once", "The same once, as JSON:", f"{curl} {_ONCE} {where}"),
        Line(
            "slack",
            "How each transfer ends, to Slack (your webhook in $SLACK), until you stop it:",
            _slack(path, where, curl, known),
        ),
        Line("pager", "A page to somebody, once, when it is over:", _pager(where, curl, known)),
    ]


def _slack(path: str, where: str, curl: str, known: Result | None) -> str:
    # A stream that is cut off is opened again, and tells the end once more.
    last = f'-H "Last-Event-ID: 0-{known.identity}" ' if known else ""
    name = _in_replacement(path)
    done = (
        r's|^data: {"state":"complete","bytes":\([0-9]*\),.*"durationSec":\([0-9.]*\),.*|'
        rf'{{"text": "{name} is done: \1 bytes in \2 s."}}|p'
    )
    failed = (
        r's|^data: {"state":"failed",.*"error":"\(.*\)","startedAt".*|'
        rf'{{"text": "{name} broke off: \1"}}|p'
    )
    return (
        f"while :; do {curl} -sN {_STREAM} {last}{where}; sleep 2; done \\\n"
        f"  | sed -un -e {shlex.quote(done)} \\\n"
        f"    -e {shlex.quote(failed)} \\\n"
        '  | while read -r text; do [ "$text" = "$last" ] ||\n'
        '    curl -s "$SLACK" -H "Content-Type: application/json" -d "$text"; last=$text; done'
    )


def _in_replacement(path: str) -> str:
    """A path as a JSON string holds it, where sed's C{s} puts it in."""
    text = json.dumps(path)[1:-1]
    for special in "\\&|":
        text = text.replace(special, f"\\{special}")
    return text


def _pager(where: str, curl: str, known: Result | None) -> str:
    older = f""" \\\n  | grep -vF '"finishedAt": "{rfc3339(known.ended)}"'""" if known else ""
    return (
        f"until end=$({curl} -s {_ONCE} {where} \\\n"
        f"""  | grep -E '"state": "(complete|failed)"'{older}); do sleep 5; done\n"""
        'echo "page somebody: $end"'
    )
