"""C{twistd hoody}: its options, and the service they make."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, cast

from attrs import Attribute
from twisted.application.service import IService
from twisted.internet import reactor
from twisted.internet.base import ReactorBase
from twisted.internet.endpoints import serverFromString
from twisted.python import usage

from hoody import __version__
from hoody.process import begin_without
from hoody.service import Hoody
from hoody.settings import Settings, declared, flag, has_secret, variable


def _parameter(attribute: Attribute[Any]) -> list[object]:
    default = attribute.metadata["shown"] or attribute.default
    return [flag(attribute), None, None, f"{attribute.metadata['doc']}. [default: {default}]"]


class Options(usage.Options):
    """
    The command line, made from L{Settings}. What it leaves out is looked for
    in the environment.

    @ivar settings: the outcome, once parsed.
    """

    synopsis = "[options]"
    longdesc = (
        "Serves pipes at http://localhost:8080/api/v1/pipe/PATH: PUT a stream on one side,"
        " GET it on the other. Every option is also read from the environment, as"
        " HOODY_LISTEN, HOODY_PIPE_TTL and so on (several listeners with spaces between)."
    )
    optParameters = [_parameter(a) for a in declared() if a.name != "listen"]

    settings: Settings

    def __init__(self, environment: Mapping[str, str] = os.environ, program: str = "") -> None:
        """@param program: what the command line begins with, for what is said of it."""
        super().__init__()
        self._program = program or f"{sys.argv[0]} hoody"
        self._environment = environment
        self._listen: list[str] = []

    def opt_listen(self, endpoint: str) -> None:
        """
        Where to listen: a Twisted endpoint, such as tcp:8080,
        ssl:443:privateKey=KEY:certKey=CERT or haproxy:tcp:8080. May be given
        more than once. [default: tcp:8080:interface=127.0.0.1]
        """
        self._listen.append(endpoint)

    def opt_version(self) -> None:
        """Print hoody's version, and exit."""
        print(f"hoody {__version__}")
        sys.exit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Twisted would print all of the help before the sentence that matters, and
        before 26.10 say with its exit status that all is well.
        """
        try:
            super().parseOptions(options)
        except usage.UsageError as error:
            sys.exit(f"{self._program}: {error}; --help lists the options")

    def postOptions(self) -> None:
        """Read what was given, and refuse what cannot work, before anything starts."""
        chosen: dict[str, Any] = {
            a.name: self._value(a) for a in declared() if self._given(a) is not None
        }
        self.settings = Settings(**chosen)
        for endpoint in self.settings.listen:
            try:
                serverFromString(reactor, endpoint)
            except Exception as error:
                raise usage.UsageError(
                    f"--listen: {endpoint!r} is not an endpoint ({error});"
                    " give one such as tcp:8080:interface=127.0.0.1"
                ) from error
        if self.settings.public_listeners and not self.settings.pipe_auth:
            raise usage.UsageError(
                f"--listen: {self.settings.public_listeners[0]!r} can be reached from other"
                " machines; say --pipe-auth=open to let everybody use pipes there, or"
                " --pipe-auth=token"
            )

    def hide_secrets(self) -> None:
        """
        Everybody on the machine can read a command line, and only we our environment: where
        a password is on it, begin anew without. To be called before anything is opened.
        """
        if has_secret(self.settings.database):
            begin_without(self.settings.database, HOODY_DATABASE=self.settings.database)

    def _given(self, attribute: Attribute[Any]) -> tuple[str, str] | None:
        """Where a setting was given, and as what."""
        if attribute.name == "listen" and self._listen:
            return "--listen", "\n".join(self._listen)
        text = None if attribute.name == "listen" else self[flag(attribute)]
        if text is not None:
            return "--" + flag(attribute), cast(str, text)
        text = self._environment.get(variable(attribute))
        return (variable(attribute), text) if text else None

    def _value(self, attribute: Attribute[Any]) -> object:
        given = self._given(attribute)
        assert given is not None
        where, text = given
        if attribute.name == "listen":
            return tuple(text.split("\n") if where == "--listen" else text.split())
        try:
            return attribute.metadata["read"](text)
        except ValueError as error:
            shown = "what was given" if attribute.name == "database" else repr(text)
            raise usage.UsageError(f"{where}: {shown} will not do; {error}") from error


def makeService(options: Options) -> IService:
    """The whole server, not yet started."""
    options.hide_secrets()
    return Hoody(cast(ReactorBase, reactor), options.settings)
