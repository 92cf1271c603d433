"""Who wants to know how something goes that somebody else has asked for."""

from __future__ import annotations

import msgspec
from attrs import define, field

from hoody.protocols import sse
from hoody.protocols.request import Request
from hoody.protocols.sse import EventStream


@define(eq=False)
class Onlookers:
    """By what it is, in any words."""

    _streams: dict[str, set[EventStream]] = field(factory=dict, init=False)

    async def watch(self, request: Request, subject: str) -> None:
        """Tell them of the one that goes on, or of the next, to its end."""
        stream = EventStream.open(request, newest_only=True)
        together = self._streams.setdefault(subject, set())
        together.add(stream)
        await stream.ended
        together.discard(stream)
        if not together and self._streams.get(subject) is together:
            del self._streams[subject]

    def tell(self, subject: str, name: str, data: object) -> None:
        """What they do not take at once they are not told."""
        for stream in self._streams.get(subject, ()):
            if stream.clear:
                stream.write(sse.encode(None, msgspec.json.encode(data), name))

    def end(self, subject: str, name: str, data: object) -> None:
        """That was the last."""
        for stream in self._streams.pop(subject, ()):
            stream.write(sse.encode(None, msgspec.json.encode(data), name))
            stream.close()
