"""All timers of the reactor, taken to another time at once."""

from __future__ import annotations

from twisted.internet.base import DelayedCall, ReactorBase
from twisted.internet.task import LoopingCall


def move(reactor: ReactorBase, seconds: float) -> None:
    """
    Have all timers fire so much later, or earlier if negative; not while timers are being
    fired, when the reactor goes by a moment that it has already taken.

    C{IDelayedCall.delay} would look for each among all of them in order to make it earlier: of
    10,000, seconds long. Those that were cancelled are moved too, or the others would no
    longer be in the order in which they are kept.
    """
    for call in (*reactor._pendingTimedCalls, *reactor._newTimedCalls):
        call.time += seconds
        if not call.cancelled:
            _keep_beat(call, seconds)


def _keep_beat(call: DelayedCall, seconds: float) -> None:
    """
    What is done again and again reckons from its start. If its work goes on just now it is
    no timer, and comes at another time, once, but within its interval.
    """
    looping = call.func
    if isinstance(looping, LoopingCall) and looping.starttime is not None:
        looping.starttime += seconds
