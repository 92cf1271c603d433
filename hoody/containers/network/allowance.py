"""How much those may have done who must not keep the server from its work."""

from __future__ import annotations

from attrs import define, field


@define(eq=False)
class Allowance:
    """
    How much may be done by now: C{rate} a second, and C{burst} of what was not used.
    """

    rate: float
    burst: float
    _left: float = field(init=False)
    _counted: float | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._left = self.burst

    def wait(self, now: float) -> float:
        """In how many seconds one more may be done; 0 if at once."""
        if self._counted is not None:
            gained = max(0.0, now - self._counted) * self.rate
            self._left = min(self.burst, self._left + gained)
        self._counted = now
        return max(0.0, (1 - self._left) / self.rate)

    def take(self) -> None:
        self._left -= 1
