"""Rules by which requests are no reason to wake a container."""

from __future__ import annotations

import pytest

from hoody.probes import Probe


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("path=/healthz", "path", "/healthz"),
        (" agent=kube-probe/1.2 (x) ", "agent", "kube-probe/1.2 (x)"),
        ("header=X-Probe: yes", "header", "X-Probe: yes"),
    ],
)
def test_rules_are_read(text: str, kind: str, value: str) -> None:
    assert Probe.read(text) == Probe(kind, value)


@pytest.mark.parametrize("text", ["", "healthz", "path=", "path=healthz", "host=x", "agent="])
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="path=/healthz"):
        Probe.read(text)
