"""Events as sentences."""

from __future__ import annotations

from hoody.audit.events import Event
from hoody.units import size_in_words

_SAYINGS = {
    "project.created": "Project {name} was created",
    "project.updated": "Project {name} was changed",
    "project.deleted": "Project {name} was deleted",
    "token.created": "Token {name} was issued",
    "token.revoked": "Token {name} was revoked",
    "pipe.completed": "A transfer through {name} completed",
    "pipe.failed": "A transfer through {name} failed",
    "container.created": "Container {name} was created",
    "container.started": "Container {name} started",
    "container.stopped": "Container {name} stopped",
    "container.paused": "Container {name} fell asleep",
    "container.resumed": "Container {name} was resumed",
    "container.woken": "Container {name} woke up",
    "container.deleted": "Container {name} was deleted",
    "container.failed": "Container {name} failed",
    "container.copied": "Container {name} was copied",
    "container.snapshot.created": "Snapshot {name} was taken",
    "container.snapshot.restored": "Snapshot {name} was restored",
    "container.snapshot.deleted": "Snapshot {name} was deleted",
    "container.snapshot.expired": "Snapshot {name} expired",
    "container.snapshot.renamed": "Snapshot {name} got another alias",
    "cron.entry.created": "Cron entry {name} was made",
    "cron.entry.updated": "Cron entry {name} was changed",
    "cron.entry.deleted": "Cron entry {name} was deleted",
    "cron.entry.expired": "Cron entry {name} expired",
    "cron.run.started": "Cron ran {name}",
    "cron.run.finished": "Cron finished {name}",
    "cron.run.failed": "Cron failed at {name}",
    "cron.run.skipped": "Cron skipped {name}",
    "cron.run.missed": "Cron missed {name}",
}


def sentence(event: Event) -> str:
    """What happened."""
    said = _SAYINGS.get(event.event_type, f"{event.event_type} {{name}}")
    return said.replace("{name}", str(event.data.get("alias") or event.resource_id))


def details(event: Event) -> str:
    """What else there is to say, in a few words."""
    data = event.data
    words = []
    if "bytes" in data:
        words.append(size_in_words(int(data["bytes"])))
    if data.get("receivers", 1) != 1:
        words.append(f"to {data['receivers']} receivers")
    if data.get("changed"):
        words.append("its " + ", ".join(data["changed"]))
    if data.get("scopes"):
        words.append("for " + ", ".join(data["scopes"]))
    if data.get("container"):
        named = f"{data['name']} " if data.get("alias") and data.get("name") else ""
        words.append(f"{named}of {data['container']}")
    if data.get("schedule"):
        words.append(str(data["schedule"]))
    if data.get("undo"):
        words.append(f"what was there is {data['undo']}")
    if data.get("error"):
        words.append(str(data["error"]))
    return "; ".join(words)
