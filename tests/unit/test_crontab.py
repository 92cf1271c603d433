"""A crontab as text: what is read of it, what is refused, and that it is written as it is read."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hoody.cron.crontab import (
    MOST_COMMAND,
    MOST_ENVIRONMENT,
    MOST_JOBS,
    MOST_VARIABLES,
    InvalidCrontab,
    Job,
    Remark,
    fault_of_command,
    read,
    write,
)

ID = "0b0e8f6e-8a0c-4c5e-9d51-6f3c1c9d5a10"
OTHER = "5d3b6a52-3d0b-4f6e-8d43-0d7c7b1f2a77"


def test_jobs_are_five_fields_or_a_word_and_a_command() -> None:
    text = "55 2 * * * echo a  b \n  @Daily\tdf -h\n*/5  *\t* * mon date +%F%%x\n"
    assert read(text) == [
        Job(schedule="55 2 * * *", command="echo a  b "),
        Job(schedule="@daily", command="df -h"),
        Job(schedule="*/5 * * * mon", command="date +%F%%x"),
    ]


def test_remarks_stay_as_they_stand() -> None:
    text = "# m h  dom mon dow   command\n\n   \n\t# 0 0 * * * off\n#0 0 * * * off too\n"
    items = read(text)
    assert items == [Remark(line) for line in text.split("\n")[:-1]]
    assert write(items, {}) == text


@pytest.mark.parametrize(("text", "count"), [("", 0), ("\n", 1), ("# a", 1), ("# a\n\n", 2)])
def test_the_last_line_break_makes_no_line(text: str, count: int) -> None:
    assert len(read(text)) == count


def test_lines_may_end_with_crlf_and_are_written_with_lf() -> None:
    items = read("# a\r\n0 0 * * * b\r\n")
    assert items == [Remark("# a"), Job(schedule="0 0 * * *", command="b")]
    assert write(items, {}) == "# a\n0 0 * * * b\n"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("  A = b c ", "b c"),
        ('A = " b "', " b "),
        ("A='\"b\"'", '"b"'),
        ('A=b "c"', 'b "c"'),
        ("A=", ""),
        ('A=""', ""),
        ("A=$HOME/b=c", "$HOME/b=c"),
        ("A=b # c", "b # c"),
    ],
)
def test_variables_are_as_in_crontab_5(line: str, value: str) -> None:
    assert read(f"{line}\n@daily x\n") == [
        Remark(line),
        Job(schedule="@daily", command="x", environment={"A": value}),
    ]


def test_variables_and_zones_are_for_the_raw_jobs_behind_them() -> None:
    text = f"""\
@daily a
A=1
CRON_TZ = "Europe/Berlin"
@daily b
A=2
MAILTO=root
SHELL=/bin/sh
# hoody:{ID}
@daily c
@daily d
CRON_TZ=
@daily e
"""
    jobs = [item for item in read(text) if isinstance(item, Job)]
    last = {"A": "2", "MAILTO": "root", "SHELL": "/bin/sh"}
    assert [(job.command, job.environment, job.timezone) for job in jobs] == [
        ("a", {}, None),
        ("b", {"A": "1"}, "Europe/Berlin"),
        ("c", {}, None),
        ("d", last, "Europe/Berlin"),
        ("e", last, None),
    ]


def test_what_the_api_made_has_its_id_in_the_line_before_and_may_be_disabled() -> None:
    text = (
        f"# hoody:{ID} the nightly state\n55 2 * * * a\n"
        f"# hoody:{OTHER} @daily is its name\n#@daily b\n"
    )
    items = read(text)
    assert items == [
        Job(schedule="55 2 * * *", command="a", id=ID),
        Job(schedule="@daily", command="b", id=OTHER, is_enabled=False),
    ]
    titles = {ID: "the nightly state", OTHER: "@daily is\n\x1b its\tname"}
    assert write(items, titles) == text
    assert write(items[:1], {}) == f"# hoody:{ID}\n55 2 * * * a\n"


@pytest.mark.parametrize("line", ["# @daily b", "  #  @daily b", "#\t@DAILY  b"])
def test_who_comments_a_job_out_behind_its_id_disables_it(line: str) -> None:
    items = read(f"  #hoody:{ID.upper()}\tx\n{line}\n")
    assert items == [Job(schedule="@daily", command="b", id=ID, is_enabled=False)]


@pytest.mark.parametrize("line", ["# hoody: is fine", "# see hoody:x", "#hoody", "# hoody :x"])
def test_other_words_of_hoody_are_remarks(line: str) -> None:
    assert read(f"{line}\n") == [Remark(line)]


@pytest.mark.parametrize(
    ("text", "line", "field", "said"),
    [
        ("\n61 * * * * x\n", 2, "schedule", 'Line 2: "61" cannot be the minute'),
        ("# a\n\nls -l\n", 3, "schedule", "has 2 of five fields"),
        ("@reboot x\n", 1, "schedule", "autostart"),
        ("0 0 30 2 * x\n", 1, "schedule", "never comes"),
        ("0 0 * * *\n", 1, "command", "give what /bin/sh is to run"),
        ("0 0 * * * \n", 1, "command", "give what /bin/sh is to run"),
        ("@daily\n", 1, "command", "give what /bin/sh is to run"),
        (f"@daily {'x' * 4097}\n", 1, "command", "at most 4096 characters"),
        ("CRON_TZ=europe/berlin\n", 1, "timezone", "such as Europe/Berlin."),
        ("CRON_TZ=../UTC\n@daily x\n", 1, "timezone", "no time zone"),
        ("\nSHELL=/bin/bash\n", 2, "environment", "such as bash -c '...'"),
        ("A-B=c\n", 1, "environment", '"A-B" cannot be a variable'),
        ('A="b\n', 1, "environment", "ends with the same"),
        ('A="b"c\n', 1, "environment", "ends with the same"),
        ("A='b\"\n", 1, "environment", "ends with the same"),
        ('A="\n', 1, "environment", "ends with the same"),
        ("# a\n\x00\n", 2, "crontab", "control character"),
        ("@daily a\rb\n", 1, "crontab", "control character"),
        ("@daily a\x7f\n", 1, "crontab", "control character"),
        ("# \ud800\n", 1, "crontab", "half of one"),
        ("# hoody:17 x\n@daily x\n", 1, "id", "is no id"),
        (f"# hoody:{ID}\n@daily x\n# hoody:{ID}\n@daily x\n", 3, "id", "further up"),
        (f"# hoody:{ID}\n@daily x\n# hoody:{ID.upper()}\n@daily x\n", 3, "id", "further up"),
        (f"# hoody:{ID} a\n", 1, "id", "an id without its job"),
        (f"# hoody:{ID} a\n\n@daily x\n", 1, "id", "an id without its job"),
        (f"# hoody:{ID} a\nA=b\n", 1, "id", "an id without its job"),
        (f"# hoody:{ID} a\n# of mine\n", 1, "id", "an id without its job"),
        (f"# hoody:{ID} a\n# hoody:{OTHER} b\n@daily x\n", 1, "id", "an id without its job"),
        (f"# hoody:{ID} a\n#61 * * * * x\n", 2, "schedule", '"61" cannot be the minute'),
        (f"# hoody:{ID} a\n#@daily\n", 2, "command", "give what /bin/sh is to run"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_line(
    text: str, line: int, field: str, said: str
) -> None:
    with pytest.raises(InvalidCrontab) as caught:
        read(text)
    assert (caught.value.line, caught.value.field) == (line, field)
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"Line {line}: ")
    assert str(caught.value).endswith(".")


def test_jobs_and_variables_have_a_most() -> None:
    assert len(read("@daily x\n" * MOST_JOBS)) == MOST_JOBS
    with pytest.raises(InvalidCrontab, match="more than 1000 jobs") as caught:
        read("@daily x\n" * (MOST_JOBS + 1))
    assert caught.value.line == MOST_JOBS + 1
    variables = [f"A{number}=x\n" for number in range(MOST_VARIABLES + 1)]
    assert len(read("".join(variables[:-1]) + variables[0])) == MOST_VARIABLES + 1
    half = "é" * (MOST_ENVIRONMENT // 4)
    assert len(read(f"A={half}\nA={half}\n")) == 2
    with pytest.raises(InvalidCrontab, match="over 128 KiB") as caught:
        read(f"A={half}\nB={half}\n")
    assert caught.value.line == 2
    with pytest.raises(InvalidCrontab, match="more than 100 variables"):
        read("".join(variables))


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "give what"),
        (" ls", "blanks in front"),
        ("\tls", "blanks in front"),
        ("a\nb", "one line"),
        ("a\rb", "one line"),
        ("a\x85b", "one line"),
        ("x" * (MOST_COMMAND + 1), "at most"),
    ],
)
def test_commands_that_a_crontab_cannot_have_are_told(command: str, said: str) -> None:
    assert said in (fault_of_command(command) or "")


@pytest.mark.parametrize("command", ["ls", "a\tb", "x" * MOST_COMMAND, "echo \N{SNOWMAN}% "])
def test_commands_that_it_can_have_are_no_fault(command: str) -> None:
    assert fault_of_command(command) is None


@pytest.mark.parametrize(
    "item",
    [
        Remark("@daily x"),
        Remark("# a\n@daily x"),
        Remark(f"# hoody:{ID}"),
        Job(schedule="@daily", command="a\n@daily b"),
        Job(schedule="@daily", command=" a"),
        Job(schedule="@Daily", command="a"),
        Job(schedule="@daily", command="a", is_enabled=False),
        Job(schedule="@daily", command="a", environment={"A": "b"}),
        Job(schedule="@daily", command="a", timezone="UTC"),
        Job(schedule="@daily", command="a", id="x y"),
    ],
)
def test_what_would_be_read_otherwise_is_not_written(item: Remark | Job) -> None:
    with pytest.raises(ValueError):
        write([item], {})


words = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
schedules = st.sampled_from(["@daily", "@hourly", "55 2 * * *", "*/5 8-17 * jan mon-fri"])
commands = words.map(str.strip).filter(lambda text: not fault_of_command(text))
names = st.sampled_from(["A", "B_2", "MAILTO", "PATH"])
zones = st.sampled_from(["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
quoted = words.filter(lambda text: '"' not in text)
managed = st.builds(
    Job,
    schedule=schedules,
    command=commands,
    id=st.uuids().map(str),
    is_enabled=st.booleans(),
)
lines = st.one_of(
    st.builds("{} {}".format, schedules, commands),
    st.builds("# {}".format, words.filter(lambda text: "hoody:" not in text)),
    st.builds('{} = "{}"'.format, names, quoted),
    st.builds("CRON_TZ={}".format, zones),
    st.sampled_from(["", "  ", "CRON_TZ="]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(lines | managed, max_size=20, unique_by=lambda part: getattr(part, "id", part)))
def test_what_is_written_is_read_as_it_was(parts: list[str | Job]) -> None:
    text = "".join(f"{part}\n" if isinstance(part, str) else write([part], {}) for part in parts)
    items = read(text)
    titles = {item.id: "a name" for item in items if isinstance(item, Job) and item.id}
    written = write(items, titles)
    assert read(written) == items
    assert write(read(written), titles) == written
    assert len(items) == len(parts)
    assert [item for item in items if isinstance(item, Job) and item.id] == [
        part for part in parts if isinstance(part, Job)
    ]


@settings(max_examples=200, deadline=None)
@given(managed, st.text())
def test_a_title_is_one_line_whatever_is_in_it(job: Job, title: str) -> None:
    assert job.id is not None
    text = write([job], {job.id: title})
    assert text.count("\n") == 2
    assert read(text) == [job]


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text("@daily 0*#=\n\r\t'\"hoody:AB", max_size=60))
def test_any_text_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        items = read(text)
    except InvalidCrontab as error:
        assert 1 <= error.line <= text.count("\n") + 1  # noqa: PT017
    else:
        assert read(write(items, {})) == items
