"""How settings are read."""

from __future__ import annotations

import pytest

from hoody.settings import Settings, is_loopback, mask
from hoody.tap import Options
from hoody.units import duration, size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("1.5s", 1.5), ("250ms", 0.25), ("5m", 300), ("2h", 7200), ("7d", 604800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5 m", "-1", "5min", "1e3", "m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="give seconds"):
        duration(text)


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("60M", 60 << 20), ("1.5GiB", 3 << 29), ("200gb", 200 * 1000**3)]
)
def test_sizes(text: str, count: int) -> None:
    assert size(text) == count


@pytest.mark.parametrize(
    ("endpoint", "loopback"),
    [
        ("tcp:8080:interface=127.0.0.1", True),
        ("tcp:8080:interface=127.1.2.3", True),
        ("tcp6:8080:interface=\\:\\:1", True),
        ("tcp:8080:interface=localhost", True),
        ("haproxy:tcp:8080:interface=127.0.0.1", True),
        ("unix:/run/hoody.sock", True),
        ("haproxy:unix:/run/hoody.sock", True),
        ("tcp:8080", False),
        ("tcp:8080:interface=0.0.0.0", False),
        ("tcp6:8080:interface=\\:\\:", False),
        ("tcp:8080:interface=10.0.0.1", False),
        ("ssl:443:privateKey=k:certKey=c", False),
        ("systemd:domain=INET:index=0", False),
    ],
)
def test_which_listeners_are_loopback(endpoint: str, loopback: bool) -> None:
    assert is_loopback(endpoint) is loopback


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://joe:secret@db/x", "user=joe password=*** dbname=x host=db"),
        ("postgresql://joe@db/x", "user=joe dbname=x host=db"),
        ("host=db password=secret user=joe", "user=joe password=*** host=db"),
        (r"password='my \' secret' host=db", "password=*** host=db"),
        ("", ""),
    ],
)
def test_passwords_are_not_shown(dsn: str, shown: str) -> None:
    assert mask("database", dsn) == shown


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://joe:se@cret@db/x", "postgres:/joe:cret@db/x", "postgres://joe:cret%zz@db/x"],
)
def test_a_dsn_that_cannot_be_read_is_refused_without_a_word_of_it(
    dsn: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        parsed(f"--database={dsn}")
    said = str(refused.value)
    assert "--database: what was given will not do; give a DSN such as" in said
    assert "cret" not in said + capsys.readouterr().out


def parsed(*arguments: str, **environment: str) -> Settings:
    options = Options(environment)
    options.parseOptions(list(arguments))
    return options.settings


def test_nothing_given_is_the_defaults() -> None:
    assert parsed() == Settings()


def test_listeners_add_up() -> None:
    settings = parsed("--listen", "tcp:0:interface=127.0.0.1", "--listen", "unix:/x")
    assert settings.listen == ("tcp:0:interface=127.0.0.1", "unix:/x")
    assert parsed(HOODY_LISTEN="unix:/a unix:/b").listen == ("unix:/a", "unix:/b")


def test_a_public_listener_must_say_who_may_use_pipes() -> None:
    with pytest.raises(SystemExit, match="say --pipe-auth=open"):
        parsed("--listen", "tcp:80")
    assert parsed("--listen", "tcp:80", "--pipe-auth", "open").pipe_auth == "open"


@pytest.mark.parametrize(
    "option", ["--peer-timeout=0", "--peer-timeout=31d", "--waiting-note=0", "--pipe-ttl=0"]
)
def test_no_timer_is_set_to_nothing_or_to_for_ever(option: str) -> None:
    with pytest.raises(SystemExit, match="give at least"):
        parsed(option)


@pytest.mark.parametrize("text", ["/mnt/btrfs", "20G"])
def test_storage_is_a_path_or_a_size(text: str) -> None:
    assert parsed("--storage", text).storage == text
