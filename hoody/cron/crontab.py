"""
A user's crontab as text, as crontab(5) of Debian has it.

What is made through the API stands in it too: a line with its id and, for eyes, its name; behind
it the job, or, when it is disabled, the job as a comment::

    # hoody:0b0e8f6e-8a0c-4c5e-9d51-6f3c1c9d5a10 the nightly state
    55 2 * * * curl -X POST "$SNAP_URL"

Variables (C{NAME=value}) are for the raw jobs behind them, and are not expanded; those that have
an id have variables and time zone of their own. Some mean something:

  - C{CRON_TZ} is the time zone in which the times of the raw jobs behind it are; the commands do
    not get it.
  - C{SHELL} has to be C{/bin/sh}, which runs all commands: another would be promised in vain.
  - C{MAILTO} is a variable like others. No mail is sent; what a job says is kept with its run.

C{%} is a plain character, not a line break as in Debian's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from attrs import field, frozen

from hoody.cron.schedules import InvalidSchedule, InvalidTimezone, Schedule, zone

MOST_JOBS = 1000
MOST_COMMAND = 4096
MOST_VARIABLES = 100
MOST_ENVIRONMENT = 128 << 10
"""Bytes of all variables of a job: what the kernel takes as one (execve(2))."""
"""That each job could have a copy of."""
SHELL = "/bin/sh"

_ID = re.compile(r"#[ \t]*hoody:([^ \t]+).*")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_DISABLED = re.compile(r"#[ \t]*([0-9*@].*)")
_VARIABLE = re.compile(r"([^\s=0-9*@#][^\s=]*)[ \t]*=[ \t]*(.*)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'")
# Tabs are blanks; half a character has no bytes.
_BAD = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\ud800-\udfff]")


class InvalidCrontab(ValueError):
    """
    A sentence for who wrote it: in which line what is wrong, and the cure.

    @ivar line: its number, from 1.
    @ivar field: C{schedule}, C{command}, C{timezone}, C{id}, C{environment} or C{crontab}.
    """

    def __init__(self, line: int, field: str, sentence: str) -> None:
        super().__init__(f"Line {line}: {sentence}")
        self.line = line
        self.field = field


@frozen
class Remark:
    """A line that runs nothing, as it stands: a comment, a variable, a blank line."""

    text: str


@frozen(kw_only=True)
class Job:
    """
    @ivar schedule: normalised, as L{Schedule.text} is.
    @ivar id: of one made through the API; C{None} if it is raw.
    @ivar environment: of a raw one, what the lines before it say; of others, nothing.
    @ivar timezone: as C{environment}; C{None} if nothing is said of it.
    """

    schedule: str
    command: str
    id: str | None = None
    is_enabled: bool = True
    environment: dict[str, str] = field(factory=dict)
    timezone: str | None = None


@frozen
class _Said:
    """What the variables before a line say."""

    environment: dict[str, str] = field(factory=dict)
    timezone: str | None = None


def read(text: str, most: int = MOST_JOBS) -> list[Remark | Job]:
    """
    What stands in a crontab, line by line.

    @param most: jobs that it may have.
    @raise InvalidCrontab: if a line cannot be read.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if not lines[-1]:
        lines.pop()
    numbered = iter(enumerate(map(_checked, range(1, len(lines) + 1), lines), 1))
    items: list[Remark | Job] = []
    ids: set[str] = set()
    said, jobs = _Said(), 0
    for number, line in numbered:
        bare = line.lstrip(" \t")
        if named := _ID.fullmatch(bare):
            job = _managed(number, _id(number, named[1], ids), numbered)
        elif not bare or bare.startswith("#"):
            items.append(Remark(line))
            continue
        elif variable := _VARIABLE.fullmatch(bare):
            said = _with(said, number, variable[1], variable[2].rstrip(" \t"))
            items.append(Remark(line))
            continue
        else:
            schedule, command = _job(number, bare)
            job = Job(
                schedule=schedule,
                command=command,
                environment=dict(said.environment),
                timezone=said.timezone,
            )
        jobs += 1
        if jobs > most:
            raise InvalidCrontab(
                number, "crontab", f"more than {most} jobs. Leave some out, or join them."
            )
        items.append(job)
    return items


def write(items: Sequence[Remark | Job], titles: Mapping[str, str]) -> str:
    """
    The text that L{read} makes these items of.

    @param titles: by id, what is said of a job in the line before it.
    @raise ValueError: if there is none: a job's variables do not stand before it, say.
    """
    lines = []
    for item in items:
        if isinstance(item, Remark):
            lines.append(item.text)
            continue
        if item.id is not None:
            title = " ".join(_BAD.sub(" ", titles.get(item.id, "")).split())
            lines.append(f"# hoody:{item.id} {title}".rstrip())
        lines.append(f"{'' if item.is_enabled else '#'}{item.schedule} {item.command}")
    text = "".join(f"{line}\n" for line in lines)
    if read(text, len(items)) != list(items):
        raise ValueError("these items would be read otherwise than they are")
    return text


def fault_of_command(command: str) -> str | None:
    """What is wrong with one, as the end of a sentence; C{None} if nothing is."""
    if not command:
        return "give what /bin/sh is to run"
    if len(command) > MOST_COMMAND:
        return f"give at most {MOST_COMMAND} characters; put longer ones into a script"
    if _BAD.search(command):
        return "give one line, without control characters; join several commands by ; or &&"
    if command[0] in " \t":
        return "leave out the blanks in front"
    return None


def _checked(number: int, line: str) -> str:
    if _BAD.search(line):
        raise InvalidCrontab(
            number,
            "crontab",
            "a control character, or half of one. Lines end with LF or CRLF; take out the others.",
        )
    return line


def _id(number: int, text: str, ids: set[str]) -> str:
    id = text.lower()
    if not _UUID.fullmatch(id):
        raise InvalidCrontab(
            number,
            "id",
            "what stands behind hoody: is no id. Put it back as it was, or take this line out and "
            "the job becomes a raw one.",
        )
    if id in ids:
        raise InvalidCrontab(
            number,
            "id",
            f"the id {id} stands further up already. Take this line out of the copy, which "
            "becomes a raw job.",
        )
    ids.add(id)
    return id


def _managed(number: int, id: str, behind: Iterator[tuple[int, str]]) -> Job:
    below, line = next(behind, (number, ""))
    bare = line.lstrip(" \t")
    disabled = _DISABLED.fullmatch(bare)
    if not disabled and (not bare or bare.startswith("#") or _VARIABLE.fullmatch(bare)):
        raise InvalidCrontab(
            number,
            "id",
            "an id without its job in the next line. Put the job back, or take this line out as "
            "well and the entry is deleted.",
        )
    schedule, command = _job(below, disabled[1] if disabled else bare)
    return Job(schedule=schedule, command=command, id=id, is_enabled=not disabled)


def _job(number: int, bare: str) -> tuple[str, str]:
    """Its schedule and its command."""
    count = 1 if bare.startswith("@") else 5
    parts = re.split(r"[ \t]+", bare, maxsplit=count)
    try:
        schedule = Schedule.read(" ".join(parts[:count])).text
    except InvalidSchedule as error:
        raise InvalidCrontab(number, "schedule", str(error)) from None
    command = parts[count] if len(parts) > count else ""
    if fault := fault_of_command(command):
        raise InvalidCrontab(number, "command", f"no command that runs: {fault}.")
    return schedule, command


def size_of_variables(variables: Mapping[str, str]) -> int:
    """In bytes, as the kernel has them: each with C{=}, and a NUL at its end."""
    return sum(len(name) + len(value.encode()) + 2 for name, value in variables.items())


def _with(said: _Said, number: int, name: str, value: str) -> _Said:
    if not _NAME.fullmatch(name):
        raise InvalidCrontab(
            number,
            "environment",
            f'"{name[:60]}" cannot be a variable: give letters, digits and _, no digit first.',
        )
    if value[:1] in ('"', "'"):
        quoted = _QUOTED.fullmatch(value)
        if quoted is None:
            raise InvalidCrontab(
                number,
                "environment",
                "a value that begins with a quotation mark ends with the same, and has none "
                "between: \"...\" or '...'.",
            )
        value = quoted[1] or quoted[2] or ""
    if name == "CRON_TZ":
        try:
            return _Said(said.environment, zone(value).key if value else None)
        except InvalidTimezone as error:
            raise InvalidCrontab(number, "timezone", str(error)) from None
    if name == "SHELL" and value != SHELL:
        raise InvalidCrontab(
            number,
            "environment",
            f"commands are run by {SHELL}, and by no other shell. Take this line out, and begin "
            "the commands that need another with its name, such as bash -c '...'.",
        )
    environment = said.environment | {name: value}
    if len(environment) > MOST_VARIABLES:
        raise InvalidCrontab(
            number, "environment", f"more than {MOST_VARIABLES} variables. Leave some out."
        )
    if size_of_variables(environment) > MOST_ENVIRONMENT:
        raise InvalidCrontab(
            number,
            "environment",
            f"together the variables are over {MOST_ENVIRONMENT >> 10} KiB. Leave some out.",
        )
    return _Said(environment, said.timezone)
