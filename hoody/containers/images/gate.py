"""
The only way from skopeo to a network: a proxy that looks where it leads.

A registry says itself where its tokens and blobs are, by names that may lead to one
address when we look, and to another afterwards. So it is not enough to look at the name of
the registry before: skopeo gets a network namespace in which there is nothing but this,
and what is connected to is the very address that was looked at.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Mapping

from attrs import define, field

from hoody.containers.images.references import HTTPS, is_public
from hoody.errors import CallerError, Unavailable

_MOST_HEAD = 16 * 1024
_SECONDS = 30
"""To connect, and for a head to come."""
_PIECE = 64 * 1024
_CONNECT = re.compile(rb"CONNECT ([A-Za-z0-9.:\[\]-]{1,255}):([0-9]{1,5}) HTTP/1\.[01]\r\n")


class _No(Exception):
    """It does not lead there."""


@define
class Gate:
    """
    CONNECT (RFC 9110, section 9.3.6), and nothing else: so it is TLS, or it does not come
    through.

    @ivar ports: to which it leads.
    @ivar most: bytes that may come through.
    @ivar known: names with an address and port of their own, private or not: for tests.
    @ivar count: bytes that came through.
    @ivar refused: why it did not lead somewhere.
    """

    ports: frozenset[int]
    most: int
    known: Mapping[str, tuple[str, int]]
    count: int = field(default=0, init=False)
    refused: list[str] = field(factory=list, init=False)

    async def check(self, host: str, port: int) -> None:
        """
        Look at once where a name leads, for a better sentence than skopeo's.

        @raise CallerError: if it does not lead there.
        """
        try:
            if host not in self.known:
                await _addresses(host, port)
        except _No as no:
            raise CallerError(f"reference: {no}; images come from public registries.") from None
        except OSError as error:
            raise Unavailable(f"{host} cannot be found just now: {error.strerror}.") from None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of skopeo's."""
        try:
            async with asyncio.timeout(_SECONDS):
                there = await self._connect(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await self._pass(reader, writer, *there)
        except _No as no:
            self.refused.append(str(no))
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError):
            writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
        except asyncio.CancelledError:
            pass  # skopeo was ended; asyncio would call it an error that nobody looked at
        finally:
            writer.close()

    async def _connect(self, head: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        match = _CONNECT.match(head)
        if match is None or len(head) > _MOST_HEAD:
            raise _No("it does not speak TLS")
        host, port = match[1].decode().strip("[]").lower(), int(match[2])
        if host in self.known:
            return await asyncio.open_connection(*self.known[host])
        if port not in self.ports:
            raise _No(f"{host}:{port} is another port than {HTTPS}")
        last: OSError | None = None
        for address in await _addresses(host, port):
            try:
                return await asyncio.open_connection(address, port)
            except OSError as error:
                last = error
        raise last or OSError

    async def _pass(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        """Until either side ends."""
        ways = [
            asyncio.ensure_future(self._one_way(reader, far_writer)),
            asyncio.ensure_future(self._one_way(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            far_writer.close()

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_PIECE):
            self.count += len(data)
            if self.count > self.most:
                self.refused.append("the image is larger than one may be")
                return
            writer.write(data)
            await writer.drain()


async def _addresses(host: str, port: int) -> list[str]:
    """All that a name leads to; one that is not public spoils all."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(place[0]) for *_, place in found]
    for address in addresses:
        if not is_public(address):
            raise _No(f"{host} leads to {address}, which is not an address of the Internet")
    return addresses
