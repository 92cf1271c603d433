"""
The page of a pipe that is being watched.

What it shows is said here first, so that it is right without scripts; C{progress.js} says
it again in the same words as things change.
"""

from __future__ import annotations

import json
from urllib.parse import quote

from attrs import frozen

from hoody.pipes import queries
from hoody.pipes.progress import Standing, State
from hoody.pipes.watching import Data, Watch
from hoody.protocols.request import Request
from hoody.protocols.sse import heartbeat
from hoody.resources import html
from hoody.resources.bots import ready_lines
from hoody.resources.urls import pipe_path, pipe_url
from hoody.units import duration_in_words, moment, size_in_words

NONE = "\N{EN DASH}"


@frozen(kw_only=True)
class Fact:
    """
    @ivar name: by which C{progress.js} finds it.
    @ivar more: said behind the value, smaller.
    """

    name: str
    label: str
    value: str
    more: str = ""


def show_dashboard(
    request: Request, watch: Watch, now: float, *, embed_in: str, bearer: bool
) -> None:
    """
    Answer with the page.

    @param bearer: whether whoever watches needs a token.
    """
    embedded = b"embed=1" in request.query.split(b"&")
    data = watch.flat()
    name = watch.path.removeprefix(request.pipe_space)
    url = pipe_url(request, name)
    meter = watch.meter or (watch.former if watch.is_over else None)
    history, step = (meter.history, meter.step) if meter is not None else ([], 1.0)
    html.show(
        request,
        "progress.html",
        style=("look.css", "controls.css", "progress.css"),
        script=("words.js", "copy.js", "progress.js"),
        frame_ancestors=embed_in if embedded else "'none'",
        path=watch.path,
        lines=ready_lines(
            watch.path,
            f"{url}?progress",
            'curl -H "Authorization: Bearer $TOKEN"' if bearer else "curl",
            watch.result,
        ),
        stream=f"{pipe_path(request, name)}?progress&ping=1{_capability(request)}",
        beat=heartbeat(request.site.stream_timeout),
        embedded=embedded,
        state=data["state"],
        headline=headline_of(data),
        sentence=sentence_of(watch.standing, data),
        percent=data["percent"],
        facts=facts_of(watch.standing, data, now),
        plot=points_of(history),
        now=_script_safe({**data, "history": history, "step": step}),
        title=title_of(watch.path, data),
        as_of=f"{moment(now):%H:%M:%S}",
    )


def title_of(path: str, data: Data) -> str:
    """What stands in a tab, the most telling first."""
    first = {
        State.IDLE: "Nobody here",
        State.WAITING: "Waiting",
        State.STREAMING: "On its way" if data["percent"] is None else f"{_int(data['percent'])}%",
        State.COMPLETE: "Done",
        State.FAILED: "Failed",
    }[_state(data)]
    return f"{first} · {path}"


def headline_of(data: Data) -> str:
    """The one thing to be seen from across the room."""
    state = _state(data)
    if state is State.STREAMING and data["percent"] is not None:
        return f"{data['percent']:.1f}%"
    if state is State.STREAMING:
        return size_in_words(_int(data["bytes"]))
    return {
        State.IDLE: "Nobody here yet",
        State.WAITING: "Waiting",
        State.COMPLETE: "Done",
        State.FAILED: "It broke off",
    }[state]


def sentence_of(standing: Standing, data: Data) -> str:
    """What it means."""
    missing = standing.wanted - standing.active
    match _state(data):
        case State.IDLE:
            return "The page will show it when somebody sends or receives here."
        case State.WAITING if not standing.has_sender:
            return f"{_receivers(standing.active)} here; the sender is still to come."
        case State.WAITING:
            return f"The sender is here; {_receivers(missing)} still to come."
        case State.STREAMING:
            return f"Streaming to {_receivers(standing.active)}."
        case State.COMPLETE:
            seconds = _int(data["duration"]) / 1000
            return f"{size_in_words(_int(data['bytes']))} in {duration_in_words(seconds)}."
        case State.FAILED:
            return str(data["error"])


def _receivers(count: int) -> str:
    return "1 receiver" if count == 1 else f"{count} receivers"


def facts_of(standing: Standing, data: Data, now: float) -> list[Fact]:
    """The figures below."""
    match _state(data):
        case State.STREAMING:
            return _of_what_runs(standing, data, now)
        case State.COMPLETE | State.FAILED:
            return _of_what_was(data)
        case _:
            return [
                Fact(name="sender", label="Sender", value="here" if standing.has_sender else NONE),
                Fact(
                    name="receivers",
                    label="Receivers",
                    value=str(standing.active),
                    more=f"of {standing.wanted}" if standing.wanted else "",
                ),
            ]


def _of_what_runs(standing: Standing, data: Data, now: float) -> list[Fact]:
    total, eta = data["totalBytes"], data["etaSec"]
    return [
        Fact(
            name="bytes",
            label="Transferred",
            value=size_in_words(_int(data["bytes"])),
            more=f"of {size_in_words(_int(total))}" if total is not None else "",
        ),
        Fact(name="speed", label="Speed", value=f"{data['mbps']:.1f} MB/s"),
        Fact(
            name="eta",
            label="Left",
            value=NONE if eta is None else _about(_int(eta)),
            more="" if eta is None else f"until {moment(now + _int(eta)):%H:%M} UTC",
        ),
        Fact(
            name="receivers",
            label="Receivers",
            value=str(standing.active),
            more=f"of {standing.wanted}",
        ),
        Fact(name="elapsed", label="Elapsed", value=_clock(_int(data["elapsedSec"]))),
    ]


def _of_what_was(data: Data) -> list[Fact]:
    total = data["totalBytes"]
    more = ""
    if total is not None and data["bytes"] != total:
        more = f"of {size_in_words(_int(total))}"
    finished = str(data["finishedAt"])
    facts = [
        Fact(
            name="bytes", label="Transferred", value=size_in_words(_int(data["bytes"])), more=more
        ),
        Fact(name="speed", label="On average", value=f"{data['mbps']:.1f} MB/s"),
        Fact(name="elapsed", label="Took", value=_clock(_int(data["durationSec"]))),
        Fact(name="receivers", label="Receivers", value=str(data["receivers"])),
        Fact(
            name="finished",
            label="Ended",
            value=f"{finished[11:16]} UTC",
            more=finished[:10],
        ),
    ]
    if data["digest"]:
        facts.append(Fact(name="digest", label="Digest", value=str(data["digest"])))
    return facts


def points_of(history: list[int]) -> str:
    """A plot's line, 100 wide and 30 high, as SVG's C{points}; empty if there is none to draw."""
    if len(history) < 2:
        return ""
    top, last = max(*history, 1), len(history) - 1
    return " ".join(
        f"{100 * place / last:.1f},{30 - 28 * speed / top:.1f}"
        for place, speed in enumerate(history)
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _about(seconds: int) -> str:
    """A time that is left, no finer than it is known."""
    if seconds < 60:
        return f"{seconds} s"
    minutes = (seconds + 30) // 60
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _capability(request: Request) -> str:
    """That by which the page was opened opens its stream, too."""
    given = queries.parse(request.query).get("cap")
    return f"&cap={quote(given[0], safe='')}" if given else ""


def _state(data: Data) -> State:
    return State(str(data["state"]))


def _int(value: object) -> int:
    assert isinstance(value, (int, float))
    return int(value)


def _script_safe(data: Data) -> str:
    """JSON that may stand in a script element, whatever it says."""
    return json.dumps(data).replace("<", "\\u003c")
