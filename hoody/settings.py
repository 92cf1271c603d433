"""
Every setting, once: its name, default, reader and help.

The command line (L{hoody.tap.Options}), the C{HOODY_...} variables and the
list printed at start are all made from L{Settings}.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from typing import Any

import psycopg2
from attrs import Attribute, field, fields, frozen
from psycopg2.extensions import make_dsn, parse_dsn

from hoody.containers.spec import FIRST_ID, RANGE
from hoody.probes import Probe
from hoody.units import duration, size

_BLOCK = IPv4Network("198.18.0.0/15")
MAX_DURATION = 30 * 86400


def _count(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 9 or int(text) < least:
            raise ValueError(f"give a whole number of at least {least}")
        return int(text)

    return read


def _seconds(least: float) -> Callable[[str], float]:
    """A duration that a timer can be set to."""

    def read(text: str) -> float:
        seconds = duration(text)
        if not least <= seconds <= MAX_DURATION:
            raise ValueError(f"give at least {least:g} s and at most 30d")
        return seconds

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise ValueError(f"give one of {', '.join(choices)}")
        return text

    return read


def _domain(text: str) -> str:
    name = text.lower().rstrip(".")
    if not re.fullmatch(r"([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9-]{1,63})*", name):
        raise ValueError("give a host name, such as hoody.localhost")
    return name


def _dsn(text: str) -> str:
    """A DSN that libpq can read; what it says of one that it cannot has the password in it."""
    try:
        plain = "@" not in parse_dsn(text).get("host", "")
    except psycopg2.Error:
        plain = False
    if not plain:
        raise ValueError(
            "give a DSN such as postgresql://user@host/name, or host=... dbname=..., with"
            " special characters of a password percent-encoded"
        )
    return text


def _ancestors(text: str) -> str:
    """As Content-Security-Policy's frame-ancestors has it."""
    if text == "none":
        return "'none'"
    for source in text.split():
        if not re.fullmatch(r"\*|https?://[A-Za-z0-9.*-]+(:[0-9*]+)?", source):
            raise ValueError("give none, *, or origins such as https://status.example.com")
    return text


def _network(text: str) -> IPv4Network:
    try:
        network = IPv4Network(text)
    except ValueError as error:
        raise ValueError("give an IPv4 network such as 198.18.0.0/15") from error
    if network.prefixlen > 28:
        raise ValueError("give a network of at least 16 addresses, such as 198.18.0.0/15")
    return network


def _ids(text: str) -> int:
    number = _count(RANGE)(text) if len(text) < 10 else 0
    if not number or number % RANGE:
        raise ValueError(f"give a multiple of {RANGE}, such as {FIRST_ID}, below 1000000000")
    return number


def _registries(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if not re.fullmatch(r"[a-z0-9.-]{1,253}(:[0-9]{1,5})?", name):
            raise ValueError("give hosts, such as docker.io,registry.example.com:5000")
    return names


def _yes_no(text: str) -> bool:
    return _one_of("on", "off")(text) == "on"


def _storage(text: str) -> str:
    """A btrfs path is told from a size by its first slash."""
    if not text.startswith("/"):
        size(text)
    return text


def _age_or_off(text: str) -> float | None:
    if text == "off":
        return None
    try:
        seconds = duration(text)
    except ValueError as error:
        raise ValueError(f"give off, or {str(error).removeprefix('give ')}") from error
    if seconds < 1:
        raise ValueError("give off, or at least 1s")
    return seconds


def _size_or_off(text: str) -> int | None:
    if text == "off":
        return None
    try:
        return size(text)
    except ValueError as error:
        raise ValueError(f"give off, or {str(error).removeprefix('give ')}") from error


def default_data_dir() -> str:
    """C{/var/lib/hoody} for root, else hoody's folder under C{XDG_DATA_HOME}."""
    if os.geteuid() == 0:
        return "/var/lib/hoody"
    home = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(home, "hoody")


def _setting(default: Any, read: Callable[[str], Any], doc: str, *, shown: str = "") -> Any:
    """
    One setting.

    @param read: turns the text given into the value; a L{ValueError} from it
        says the cure.
    @param shown: the default as the help says it, where C{str(default)} would
        not do.
    """
    metadata = {"read": read, "doc": doc, "shown": shown}
    if callable(default):
        return field(factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@frozen(kw_only=True)
class Settings:
    """What an operator may choose. Durations are seconds, sizes bytes."""

    listen: tuple[str, ...] = _setting(
        ("tcp:8080:interface=127.0.0.1",),
        str,
        "Where to listen: a Twisted endpoint, such as tcp:8080 or ssl:443:privateKey=... or"
        " haproxy:tcp:8080. May be given more than once",
        shown="tcp:8080:interface=127.0.0.1",
    )
    data_dir: str = _setting(
        default_data_dir,
        os.path.abspath,
        "Where what must outlive the process is kept",
        shown="/var/lib/hoody for root, else $XDG_DATA_HOME/hoody",
    )
    database: str = _setting(
        "",
        _dsn,
        "Postgres DSN; without one an embedded Postgres is kept. A password is better given by"
        " HOODY_DATABASE or ~/.pgpass: everybody sees a command line, until we have it moved"
        " to the environment",
        shown="embedded",
    )
    database_save: bool = _setting(
        True,
        _yes_no,
        "Save the database by pg_dump before its schema changes: on or off",
        shown="on",
    )
    event_retention: float | None = _setting(
        365 * 86400.0,
        _age_or_off,
        "How long events are kept, or off for ever",
        shown="365d",
    )
    sweep: float = _setting(
        600.0, _seconds(0.1), "How often what is too old is looked for", shown="10m"
    )
    wrong_tokens: int = _setting(
        20, _count(1), "How many wrong tokens a minute an address may show"
    )
    domain: str = _setting("hoody.localhost", _domain, "The domain whose subdomains we serve")
    pipe_auth: str = _setting(
        "",
        _one_of("open", "token"),
        "Who may use pipes: open or token. A listener that is not loopback must say which",
        shown="open on loopback",
    )
    pipe_ttl: float = _setting(
        300.0,
        _seconds(0.1),
        "How long a sender or a receiver may wait for its counterpart",
        shown="5m",
    )
    peer_timeout: float = _setting(
        60.0, _seconds(1), "How soon a peer that vanished without a word is noticed", shown="60s"
    )
    waiting_note: float = _setting(
        25.0, _seconds(0.1), "How often a waiting sender is told that it still waits", shown="25s"
    )
    form_timeout: float = _setting(
        30.0, _seconds(0.1), "How long a multipart form may take to come to its file", shown="30s"
    )
    head_timeout: float = _setting(
        30.0, _seconds(0.1), "How long a request head may take to arrive", shown="30s"
    )
    idle_timeout: float = _setting(
        60.0, _seconds(0.1), "How long a connection may stay open between requests", shown="60s"
    )
    drain: float = _setting(
        30.0,
        _seconds(0),
        "How long running pipes, and then answers of containers, may go on after SIGTERM",
        shown="30s",
    )
    max_waiting: int = _setting(1000, _count(1), "How many senders and receivers may wait")
    max_waiting_per_address: int = _setting(
        100, _count(1), "How many of them from one address that is not loopback"
    )
    max_running: int = _setting(1000, _count(1), "How many pipes may run at once")
    splice: int | None = _setting(
        256 * 1024,
        _size_or_off,
        "From how many bytes on a pipe's body is moved by the kernel alone (Linux, plain"
        " HTTP/1.1), or off",
        shown="256KiB",
    )
    max_spectators: int = _setting(50, _count(1), "How many may watch one path")
    max_watched_paths: int = _setting(500, _count(1), "How many paths may be watched")
    watch_window: float = _setting(
        300.0,
        _seconds(0.1),
        "How long a spectator may wait on a path where nothing happens",
        shown="5m",
    )
    stream_timeout: float = _setting(
        60.0,
        _seconds(0.1),
        "How long a reader of server-sent events may take none of them",
        shown="60s",
    )
    result_retention: float = _setting(
        7 * 86400.0,
        _seconds(1),
        "How long the end of a path's last transfer is told",
        shown="7d",
    )
    cron_runs: int = _setting(32, _count(1), "How many commands of cron may run at once")
    cron_retry: float = _setting(
        30.0,
        _seconds(0.1),
        "How long after a run has failed it is tried again, if it is; twice that the next time",
        shown="30s",
    )
    run_retention: float = _setting(
        30 * 86400.0, _seconds(1), "How long it is told how runs of cron ended", shown="30d"
    )
    embed_in: str = _setting(
        "*",
        _ancestors,
        "Which pages may show ?progress&embed=1 in a frame: none, *, or origins with spaces"
        " between",
    )
    private_network: bool = _setting(
        False, _yes_no, "Answer Chromium's private-network preflight: on or off", shown="off"
    )
    containers: str = _setting(
        "auto",
        _one_of("auto", "off", "runc", "crun"),
        "Container runtime: auto, off, runc or crun",
    )
    storage: str = _setting(
        "",
        _storage,
        "Where containers live: a btrfs path, or a size for an image file",
        shown="auto",
    )
    runtime_timeout: float = _setting(
        30.0,
        _seconds(0.1),
        "How long each call of the container runtime may take",
        shown="30s",
    )
    stop_grace: float = _setting(
        10.0,
        _seconds(0),
        "How long a container that is stopped may take to end by itself",
        shown="10s",
    )
    reclaim_after: float = _setting(
        10.0,
        _seconds(0),
        "How long a container sleeps before its memory is taken back",
        shown="10s",
    )
    container_network: IPv4Network = _setting(  # noqa: RUF009  # as all others here
        _BLOCK,
        _network,
        "Where containers that have a way out get their addresses from; servers that share a"
        " machine need one each",
        shown="198.18.0.0/15",
    )
    container_ids: int = _setting(
        FIRST_ID,
        _ids,
        "From which number on containers have user ids of their own, 65536 each; servers that"
        " share a machine need ranges of their own, or the kernel counts what their containers"
        " have together",
        shown=str(FIRST_ID),
    )
    registries: tuple[str, ...] = _setting(
        ("docker.io", "ghcr.io", "quay.io", "registry.gitlab.com"),
        _registries,
        "The registries that images may come from, as HOST or HOST:PORT, with commas between",
        shown="docker.io,ghcr.io,quay.io,registry.gitlab.com",
    )
    probes: tuple[Probe, ...] = _setting(
        (),
        lambda text: tuple(Probe.read(rule) for rule in text.split(",")),
        "Requests that neither wake a container nor keep it awake: path=/healthz,"
        " agent=kube-probe, header=NAME or header=NAME:VALUE, with commas between",
        shown="none",
    )
    ksm: bool = _setting(
        False,
        _yes_no,
        "Switch KSM on, for the whole machine, once a container of a dense project runs: on or"
        " off",
        shown="off",
    )
    zram: str = _setting(
        "",
        lambda text: text if text == "off" else str(size(text)),
        "Size of a compressed swap in memory, or off",
        shown="off",
    )
    log_format: str = _setting("text", _one_of("text", "json"), "How to log: text or json")
    debug_blocking: float = _setting(
        0.0,
        _seconds(0),
        "Report with a stack what holds the reactor longer than this",
        shown="off",
    )

    @property
    def public_listeners(self) -> list[str]:
        """The listeners that others than this machine can reach."""
        return [endpoint for endpoint in self.listen if not is_loopback(endpoint)]


def is_loopback(endpoint: str) -> bool:
    """
    Whether an endpoint string can be reached only from this machine. When in
    doubt, no.
    """
    if re.match(r"(haproxy:)?unix:", endpoint):
        return True
    given = re.search(r"interface=((?:\\:|[^:])+)", endpoint)
    if given is None:
        return False
    host = given[1].replace("\\:", ":")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def flag(attribute: Attribute[Any]) -> str:
    """A setting's name on the command line, without the dashes."""
    return attribute.name.replace("_", "-")


def variable(attribute: Attribute[Any]) -> str:
    """A setting's environment variable."""
    return "HOODY_" + attribute.name.upper()


def declared() -> Iterator[Attribute[Any]]:
    """The settings in the order of the help."""
    yield from fields(Settings)


def mask(name: str, value: object) -> object:
    """A setting's value as it may be shown: a DSN without its password."""
    if name != "database" or not value:
        return value
    return make_dsn(**{**parse_dsn(str(value)), **dict.fromkeys(_secrets(str(value)), "***")})


def has_secret(dsn: str) -> bool:
    """Whether a DSN is not for everybody's eyes."""
    return bool(dsn) and bool(_secrets(dsn))


def _secrets(dsn: str) -> set[str]:
    return {"password", "sslpassword"} & set(parse_dsn(dsn))
