"""All that the API can be asked to do."""

from __future__ import annotations

from hoody.auth.keyring import Keyring
from hoody.interfaces import IStore
from hoody.resources.api.events import EventsFace
from hoody.resources.api.operations import Operation
from hoody.resources.api.projects import ProjectsFace
from hoody.resources.api.tokens import TokensFace


def catalogue(store: IStore, keyring: Keyring, events: EventsFace) -> list[Operation]:
    return [
        *TokensFace(keyring).operations(),
        *ProjectsFace(store).operations(),
        *events.operations(),
    ]
