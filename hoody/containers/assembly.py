"""The containers' part of the house, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hoody.containers import machine
from hoody.containers.cgroups import Hierarchies
from hoody.containers.fleet import Fleet
from hoody.containers.merging import Merging
from hoody.containers.network.wiring import Network
from hoody.containers.runtime import Runtime
from hoody.containers.storage import Storage
from hoody.containers.swap import CompressedSwap
from hoody.containers.workshop import Workshop
from hoody.interfaces import IStore
from hoody.process import DataDir
from hoody.settings import Settings
from hoody.units import size

STATE = Path("/run/hoody")
"""What a reboot may forget, by server."""


def make_fleet(reactor: Any, settings: Settings, data_dir: DataDir, store: IStore) -> Fleet:
    """It does nothing before it is identified and started."""
    hierarchies = Hierarchies.read()
    is_path = settings.storage.startswith("/")
    storage = Storage(
        mount=data_dir.storage,
        image=data_dir.storage_image,
        given=Path(settings.storage) if is_path else None,
        size=size(settings.storage) if settings.storage and not is_path else None,
    )
    program = machine.choose_runtime(settings.containers, hierarchies) or "runc"
    return Fleet(
        reactor=reactor,
        store=store,
        storage=storage,
        runtime=Runtime(
            reactor,
            program,
            storage,
            hierarchies,
            settings.runtime_timeout,
            settings.container_ids,
        ),
        workshop=Workshop(reactor, store, storage),
        lacks=machine.lack(settings.containers, is_path, hierarchies),
        stop_grace=settings.stop_grace,
        reclaim_after=settings.reclaim_after,
        merging=Merging(is_allowed=settings.ksm),
        swap=CompressedSwap(size(settings.zram)) if settings.zram not in ("", "off") else None,
        network=Network(reactor, settings.container_network),
    )
