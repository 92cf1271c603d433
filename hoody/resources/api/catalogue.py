"""All that the API can be asked to do."""

from __future__ import annotations

from hoody.auth.keyring import Keyring
from hoody.interfaces import IStore
from hoody.resources.api.containers import ContainersFace
from hoody.resources.api.cron import CronFace
from hoody.resources.api.events import EventsFace
from hoody.resources.api.images import ImagesFace
from hoody.resources.api.inside import InsideFace
from hoody.resources.api.ledger import LedgerFace
from hoody.resources.api.moving import MovingFace
from hoody.resources.api.operations import Operation
from hoody.resources.api.projects import ProjectsFace
from hoody.resources.api.snapshots import SnapshotsFace
from hoody.resources.api.tokens import TokensFace


def catalogue(
    store: IStore,
    keyring: Keyring,
    events: EventsFace,
    containers: ContainersFace,
    inside: InsideFace,
    snapshots: SnapshotsFace,
    moving: MovingFace,
    images: ImagesFace,
    ledger: LedgerFace,
    cron: CronFace,
) -> list[Operation]:
    return [
        *TokensFace(keyring).operations(),
        *ProjectsFace(store).operations(),
        *containers.operations(),
        *inside.operations(),
        *snapshots.operations(),
        *moving.operations(),
        *images.operations(),
        *ledger.operations(),
        *events.operations(),
        *cron.operations(),
    ]
