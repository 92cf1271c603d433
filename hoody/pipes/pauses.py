"""
A pause is a counted reason, not a flag: who paused need not know who else did.

The habit is that of C{tubes.kit.Pauser}.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IPushProducer


@define(eq=False)
class Pauses:
    """Pauses C{producer} while at least one reason holds."""

    producer: IPushProducer
    _reasons: set[Pause] = field(factory=set, init=False)

    def __bool__(self) -> bool:
        """Whether anything holds the producer back."""
        return bool(self._reasons)

    def hold(self) -> Pause:
        """One more reason to pause."""
        pause = Pause(self)
        self._reasons.add(pause)
        if len(self._reasons) == 1:
            self.producer.pauseProducing()
        return pause

    def _release(self, pause: Pause) -> None:
        if pause in self._reasons:
            self._reasons.remove(pause)
            if not self._reasons:
                self.producer.resumeProducing()


@define(eq=False)
class Pause:
    """One reason. Releasing it twice counts once."""

    _pauses: Pauses

    def release(self) -> None:
        """This reason is gone."""
        self._pauses._release(self)
