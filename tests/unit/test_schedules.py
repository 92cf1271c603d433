"""Schedules: what is read, when they fire where clocks are changed, and what is said of them."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from itertools import takewhile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hoody.cron.schedules import (
    MOST,
    InvalidSchedule,
    InvalidTimezone,
    Schedule,
    in_words,
    zone,
)

BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def fires(schedule: str, name: str, day: str) -> list[str]:
    """When it fires on a day of UTC."""
    begin = at(f"{day}T00:00")
    times = Schedule.read(schedule).next(begin - timedelta(seconds=1), zone(name), 200)
    return [f"{time:%H:%M}" for time in times if time < begin + timedelta(days=1)]


# What is read


@pytest.mark.parametrize(
    ("text", "kept", "fields"),
    [
        ("55 2 * * *", "55 2 * * *", "55 2 * * *"),
        ("  55\t2  * * * ", "55 2 * * *", "55 2 * * *"),
        ("05 02 * * 07", "05 02 * * 07", "5 2 * * 7"),
        ("*/15 8-17 1,15 JAN-mar mon,Wed-fri", None, None),
        ("0 0 * * 5-7", None, None),
        ("0-59/2,1-59/2 */24 */31 */12 */8", None, None),
        ("0 0 31 2 1", None, None),
        ("0 0 29 2 *", None, None),
        ("@DAILY", "@daily", "0 0 * * *"),
        (" @midnight ", "@midnight", "0 0 * * *"),
        ("@hourly", "@hourly", "0 * * * *"),
        ("@weekly", "@weekly", "0 0 * * 0"),
        ("@monthly", "@monthly", "0 0 1 * *"),
        ("@yearly", "@yearly", "0 0 1 1 *"),
        ("@Annually", "@annually", "0 0 1 1 *"),
    ],
)
def test_what_debians_cron_knows_is_read(text: str, kept: str | None, fields: str | None) -> None:
    assert Schedule.read(text) == Schedule(kept or text, fields or text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "0 of five fields"),
        ("55 2 * *", '"55 2 * *" has 4 of five fields'),
        ("0 55 2 * * *", "has 6 fields, and five are read"),
        ("0 55 2 * * * 2026", "no seconds and no years"),
        ("55 2 * * * root", "a user's name or a command does not belong"),
        ("@reboot", "give times, such as @daily"),
        ("@Reboot", "container's autostart"),
        ("@fortnightly", 'no schedule "@fortnightly": give @hourly, @daily'),
        ("@daily x", 'no schedule "@daily x"'),
        ("60 * * * *", '"60" cannot be the minute: give 0 to 59,'),
        ("0 24 * * *", '"24" cannot be the hour: give 0 to 23,'),
        ("0 0 0 * *", '"0" cannot be the day of month: give 1 to 31,'),
        ("0 0 * 13 *", '"13" cannot be the month: give 1 to 12 or jan to dec,'),
        ("0 0 * * 8", '"8" cannot be the day of week: give 0 to 7 (0 and 7 are Sunday)'),
        ("0 22-6 * * *", "a range from low to high"),
        ("0 0 * * fri-sun", '"fri-sun" cannot be the day of week'),
        ("0 jan * * *", '"jan" cannot be the hour'),
        ("0 0 * * monday", '"monday" cannot be the day of week'),
        ("0 0 L * *", "L, W, # and ? are not read"),
        ("0 0 15w * *", "L, W, # and ? are not read"),
        ("0 0 LW * *", "L, W, # and ? are not read"),
        ("0 0 * * 5L", "L, W, # and ? are not read"),
        ("0 0 * * mon#2", "L, W, # and ? are not read"),
        ("0 0 ? * *", "L, W, # and ? are not read"),
        ("H * * * *", '"H" cannot be the minute: give'),
        ("0~30 * * * *", '"0~30" cannot be the minute'),
        ("-5 * * * *", '"-5" cannot be the minute'),
        ("1,,2 * * * *", '"1,,2" cannot be the minute'),
        ("1-2-3 * * * *", '"1-2-3" cannot be the minute'),
        ("*-5 * * * *", '"*-5" cannot be the minute'),
        ("\N{ARABIC-INDIC DIGIT FIVE} * * * *", "cannot be the minute"),
        ("5/10 * * * *", "Write 5-59/10."),
        ("*/0 * * * *", "Give a step of 1 to 60."),
        ("*/90 * * * *", "Give a step of 1 to 60."),
        ("0 */25 * * *", "Give a step of 1 to 24."),
        ("0 0 5,* * *", "Write * alone, or leave it out of the list."),
        ("0 0 30 2 *", '"0 0 30 2 *" never comes'),
        ("0 0 31 4,6 *", "Choose an earlier day, or other months."),
        ("0 0 31 2 */2", "never comes"),
        ("0 0 * *\n*", "line break"),
        ("0 0 * * *\n", "line break"),
        ("0 0 * * *\x00", "control character"),
        ("0 0 *\N{NO-BREAK SPACE}* * *", "cannot be the day of month"),
        (f"{'9' * 480} * * * *", "cannot be the minute"),
        ("0," * 300 + "0 * * * *", "500 is the most"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_cure(text: str, said: str) -> None:
    with pytest.raises(InvalidSchedule) as caught:
        Schedule.read(text)
    assert said in str(caught.value)
    assert str(caught.value).endswith(".")
    assert len(str(caught.value)) < 400


# Zones


@pytest.mark.parametrize("name", ["UTC", BERLIN, "America/Argentina/Ushuaia", "Etc/GMT+5", "CET"])
def test_zones_are_known_by_the_ianas_names(name: str) -> None:
    assert zone(name).key == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Mars/Olympus",
        "America",
        "/etc/localtime",
        "../../etc/passwd",
        "Europe/../UTC",
        "Europe//Berlin",
        "UTC/",
        "UTC\x00",
        " UTC",
        "localtime",
        "right/Europe/Berlin",
        "posix/Europe/Berlin",
        "zone.tab",
        "leapseconds",
        "CET-1CEST",
        "x" * 5000,
    ],
)
def test_other_names_are_no_zones(name: str) -> None:
    with pytest.raises(InvalidTimezone, match=r"such as [A-Z]") as caught:
        zone(name)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["europe/berlin", "Berlin", "EUROPE/BERLIN"])
def test_who_comes_near_a_zone_is_told_its_name(name: str) -> None:
    with pytest.raises(InvalidTimezone, match=r"such as Europe/Berlin\.$"):
        zone(name)


# Where clocks are changed


@pytest.mark.parametrize(
    ("name", "schedule", "day", "expected"),
    [
        # Berlin goes from 02:00 to 03:00 at 01:00 UTC.
        (BERLIN, "30 2 * * *", "2025-03-30", ["01:00"]),
        (BERLIN, "0 2 * * *", "2025-03-30", ["01:00"]),
        (BERLIN, "15,45 2 * * *", "2025-03-30", ["01:00"]),
        (BERLIN, "30 1,2,3 * * *", "2025-03-30", ["00:30", "01:00", "01:30", "23:30"]),
        (BERLIN, "0 3 * * *", "2025-03-30", ["01:00"]),
        (BERLIN, "0 2,3 * * *", "2025-03-30", ["01:00"]),
        (BERLIN, "*/15 2 * * *", "2025-03-30", []),
        (BERLIN, "30 * * * *", "2025-03-30", [f"{hour:02}:30" for hour in range(24)]),
        (BERLIN, "@daily", "2025-03-30", ["22:00"]),
        # And back from 03:00 to 02:00 at 01:00 UTC.
        (BERLIN, "30 2 * * *", "2025-10-26", ["00:30"]),
        (BERLIN, "0 2 * * *", "2025-10-26", ["00:00"]),
        (BERLIN, "0 3 * * *", "2025-10-26", ["02:00"]),
        (BERLIN, "15,45 2,3 * * *", "2025-10-26", ["00:15", "00:45", "02:15", "02:45"]),
        (BERLIN, "*/30 2 * * *", "2025-10-26", ["00:00", "00:30", "01:00", "01:30"]),
        (BERLIN, "30 * * * *", "2025-10-26", [f"{hour:02}:30" for hour in range(24)]),
        # New York goes from 02:00 to 03:00 at 07:00 UTC.
        (NEW_YORK, "30 2 * * *", "2025-03-09", ["07:00"]),
        (NEW_YORK, "0 4 * * *", "2025-03-09", ["08:00"]),
        (NEW_YORK, "*/15 2 * * *", "2025-03-09", []),
        (NEW_YORK, "*/15 1-3 * * *", "2025-03-09", ["06:00", "06:15", "06:30", "06:45"]
            + ["07:00", "07:15", "07:30", "07:45"]),
        (NEW_YORK, "0 * * * *", "2025-03-09", [f"{hour:02}:00" for hour in range(24)]),
        # And back from 02:00 to 01:00 at 06:00 UTC.
        (NEW_YORK, "30 1 * * *", "2025-11-02", ["05:30"]),
        (NEW_YORK, "30 2 * * *", "2025-11-02", ["07:30"]),
        (NEW_YORK, "*/15 1 * * *", "2025-11-02", ["05:00", "05:15", "05:30", "05:45"]
            + ["06:00", "06:15", "06:30", "06:45"]),
        # Lord Howe Island goes from 02:00 to 02:30 at 15:30 UTC of the day before.
        (LORD_HOWE, "15 2 * * *", "2025-10-04", ["15:30"]),
        (LORD_HOWE, "30 2 * * *", "2025-10-04", ["15:30"]),
        (LORD_HOWE, "45 2 * * *", "2025-10-04", ["15:45"]),
        (LORD_HOWE, "*/15 2 * * *", "2025-10-04", ["15:30", "15:45"]),
        (LORD_HOWE, "*/15 3 * * *", "2025-10-04", ["16:00", "16:15", "16:30", "16:45"]),
        (LORD_HOWE, "0 1-4 * * *", "2025-10-04", ["14:30", "15:30", "16:00", "17:00"]),
        # And back from 02:00 to 01:30 at 15:00 UTC of the day before.
        (LORD_HOWE, "45 1 * * *", "2025-04-05", ["14:45"]),
        (LORD_HOWE, "15 1 * * *", "2025-04-05", ["14:15"]),
        (LORD_HOWE, "*/15 1 * * *", "2025-04-05", ["14:00", "14:15", "14:30", "14:45"]
            + ["15:00", "15:15"]),
        (LORD_HOWE, "*/15 3 * * *", "2025-04-05", ["16:30", "16:45", "17:00", "17:15"]),
        # Beirut goes from 00:00 to 01:00 at 22:00 UTC, and back to 23:00 at 21:00 UTC.
        ("Asia/Beirut", "0 0 * * *", "2025-03-29", ["22:00"]),
        ("Asia/Beirut", "*/30 0 * * *", "2025-03-29", []),
        ("Asia/Beirut", "30 23 * * *", "2025-10-25", ["20:30"]),
        ("Asia/Beirut", "*/30 23 * * *", "2025-10-25", ["20:00", "20:30", "21:00", "21:30"]),
        ("Asia/Beirut", "@daily", "2025-10-25", ["22:00"]),
        # Sao Paulo went from 00:00 to 01:00 at 03:00 UTC, and back to 23:00 at 02:00 UTC.
        ("America/Sao_Paulo", "0 0 * * *", "2018-11-04", ["03:00"]),
        ("America/Sao_Paulo", "*/15 0 4 11 *", "2018-11-04", []),
        ("America/Sao_Paulo", "30 23 * * *", "2018-02-18", ["01:30"]),
        ("America/Sao_Paulo", "*/30 23 17 2 *", "2018-02-18", ["01:00", "01:30"]
            + ["02:00", "02:30"]),
        # Havana goes back from 01:00 to 00:00 at 05:00 UTC.
        ("America/Havana", "0 0 * * *", "2025-11-02", ["04:00"]),
        ("America/Havana", "*/30 0 * * *", "2025-11-02", ["04:00", "04:30", "05:00", "05:30"]),
    ],
)  # fmt: skip
def test_times_at_changes_of_the_clock_are_debians(
    name: str, schedule: str, day: str, expected: list[str]
) -> None:
    assert fires(schedule, name, day) == expected


def test_who_asks_within_an_hour_that_comes_twice_is_told_of_later_times_only() -> None:
    berlin = zone(BERLIN)
    second_pass = at("2025-10-26T01:10")
    assert Schedule.read("30 2 * * *").after(second_pass, berlin) == at("2025-10-27T01:30")
    assert Schedule.read("*/30 2 * * *").after(second_pass, berlin) == at("2025-10-26T01:30")
    first_pass = at("2025-10-26T00:50")
    assert Schedule.read("*/30 2 * * *").after(first_pass, berlin) == at("2025-10-26T01:00")
    assert Schedule.read("*/30 2 26 10 *").after(first_pass, berlin) == at("2025-10-26T01:00")


def test_a_fire_is_later_than_what_is_asked_for_by_less_than_a_second_even() -> None:
    daily = Schedule.read("@daily")
    assert daily.after(at("2026-05-04T00:00"), zone("UTC")) == at("2026-05-05T00:00")
    assert daily.after(at("2026-05-03T23:59:59.999999"), zone("UTC")) == at("2026-05-04T00:00")
    assert daily.after(at("2026-05-04T00:00:00.000001"), zone("UTC")) == at("2026-05-05T00:00")


def test_times_are_utc_whatever_zone_they_are_asked_in() -> None:
    berlin = zone(BERLIN)
    times = Schedule.read("55 2 * * *").next(at("2026-05-04T12:00").astimezone(berlin), berlin, 2)
    assert times == [at("2026-05-05T00:55"), at("2026-05-06T00:55")]
    assert all(time.tzinfo is UTC for time in times)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29"]),
        ("0 0 29 2 */7", ["2032-02-29", "2060-02-29"]),
        ("0 0 13 * 5", ["2026-05-08", "2026-05-13"]),  # either
        ("0 0 */13 * 5", ["2026-08-14", "2026-11-27"]),  # both, as it begins with *
        ("0 0 * * 7", ["2026-05-10", "2026-05-17"]),
    ],
)
def test_days_of_month_and_week_are_either_unless_one_begins_with_a_star(
    schedule: str, expected: list[str]
) -> None:
    times = Schedule.read(schedule).next(at("2026-05-04T12:00"), zone("UTC"), 2)
    assert [f"{time:%Y-%m-%d}" for time in times] == expected


# The latest of those that were missed


def test_the_latest_is_counted_with_those_before_it() -> None:
    schedule, utc = Schedule.read("*/15 * * * *"), zone("UTC")
    noon = at("2026-05-04T12:00")
    assert schedule.latest(noon, noon, utc) == (None, 0)
    assert schedule.latest(noon, noon - timedelta(days=1), utc) == (None, 0)
    assert schedule.latest(noon, noon + timedelta(minutes=14), utc) == (None, 0)
    quarter = noon + timedelta(minutes=15)
    assert schedule.latest(noon, quarter, utc) == (quarter, 1)
    assert schedule.latest(noon, quarter + timedelta(microseconds=1), utc) == (quarter, 1)
    assert schedule.latest(noon, noon + timedelta(hours=1), utc) == (noon + timedelta(hours=1), 4)
    assert schedule.latest(noon, noon + timedelta(days=1, minutes=1), utc)[1] == 96
    assert schedule.latest(noon, noon + timedelta(days=1, hours=1), utc)[1] == MOST == 100
    assert schedule.latest(noon, noon + timedelta(days=1, hours=2), utc)[1] == MOST


@pytest.mark.parametrize("name", ["UTC", BERLIN, LORD_HOWE])
@pytest.mark.parametrize(
    "schedule", ["* * * * *", "0-59 2 * * *", "0 0 29 2 *", "0 0 29 2 */7", "@yearly"]
)
def test_five_years_of_missed_fires_cost_little(schedule: str, name: str) -> None:
    read, until = Schedule.read(schedule), at("2026-10-25T01:30")
    costs = []
    for _ in range(5):
        begun = time.thread_time()
        read.latest(at("2021-05-04T12:00"), until, zone(name))
        costs.append(time.thread_time() - begun)
    assert min(costs) < 0.02


CHANGES = [
    (BERLIN, "2025-03-30T01:00"),
    (BERLIN, "2025-10-26T01:00"),
    (NEW_YORK, "2025-03-09T07:00"),
    (NEW_YORK, "2025-11-02T06:00"),
    (LORD_HOWE, "2025-04-05T15:00"),
    (LORD_HOWE, "2025-10-04T15:30"),
    ("Asia/Beirut", "2025-03-29T22:00"),
    ("Asia/Beirut", "2025-10-25T21:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00"),
    ("America/Havana", "2025-11-02T05:00"),
    ("Africa/Casablanca", "2025-02-23T02:00"),
    ("Pacific/Apia", "2011-12-30T10:00"),  # a day is left out
    ("Pacific/Kwajalein", "1969-09-30T13:00"),  # a day comes twice, nearly
    ("UTC", "2025-03-30T01:00"),
]
numbers = st.integers(0, 59)
minutes = st.one_of(
    st.just("*"),
    st.sampled_from(["*/15", "*/7", "0-59/20", "0,30", "10-12"]),
    numbers.map(str),
)
hours = st.one_of(
    st.just("*"),
    st.sampled_from(["*/2", "*/5", "0-3", "1,2,3", "22-23", "0"]),
    st.integers(0, 23).map(str),
)
days = st.sampled_from(["*", "*", "*", "30", "26,27", "*/2", "1-5"])
weekdays = st.sampled_from(["*", "*", "*", "sun", "1-5", "*/3", "0,6"])
schedules = st.builds("{} {} {} * {}".format, minutes, hours, days, weekdays)
seconds = st.integers(-3 * 86400, 3 * 86400) | st.integers(-4 * 60, 4 * 60).map(lambda m: m * 60)
offsets = st.builds(timedelta, seconds=seconds, microseconds=st.sampled_from([0, 0, 1, 500_000]))


def by_the_minute(schedule: str, name: str, after: datetime, until: datetime) -> list[datetime]:
    """What cron does that looks at the clock on the wall each minute: for jobs with a C{*}."""
    read, where = Schedule.read(schedule), zone(name)
    minute = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    found = []
    while minute <= until:
        wall = minute.astimezone(where).replace(tzinfo=UTC, fold=0)
        before = wall - timedelta(seconds=1)
        if wall.second == 0 and read.after(before, zone("UTC")) == wall:
            found.append(minute)
        minute += timedelta(minutes=1)
    return found


@settings(max_examples=300, deadline=None)
@given(schedules, st.sampled_from(CHANGES), offsets, offsets)
@example("0-59 2 * * *", CHANGES[1], timedelta(hours=-3), timedelta(minutes=10))
@example("* * * * *", CHANGES[5], timedelta(hours=-1), timedelta(minutes=10))
def test_the_latest_is_what_going_on_from_the_first_comes_to(
    schedule: str, change: tuple[str, str], begin: timedelta, end: timedelta
) -> None:
    name, moment = change
    after, until = sorted((at(moment) + begin, at(moment) + end))
    read = Schedule.read(schedule)
    forward: list[datetime] = []
    fire = read.after(after, zone(name))
    while fire is not None and fire <= until and len(forward) < 3000:
        assert fire > (forward[-1] if forward else after)
        forward.append(fire)
        fire = read.after(fire, zone(name))
    latest, count = read.latest(after, until, zone(name))
    if len(forward) < 3000:
        assert latest == (forward[-1] if forward else None)
    assert count == min(len(forward), MOST)
    together = takewhile(lambda fire: fire <= until, read.next(after, zone(name), 150))
    assert list(together) == forward[:150]


@settings(max_examples=60, deadline=None)
@given(
    minutes, hours, days, weekdays, st.sampled_from(CHANGES), st.integers(-2000, 2000),
)  # fmt: skip
def test_jobs_with_a_star_go_by_the_clock_on_the_wall(
    minute: str, hour: str, day: str, weekday: str, change: tuple[str, str], begin: int
) -> None:
    if minute[0] != "*" and hour[0] != "*":
        hour = "*"
    schedule = f"{minute} {hour} {day} * {weekday}"
    name, moment = change
    after = at(moment) + timedelta(minutes=begin)
    until = after + timedelta(hours=8)
    times = takewhile(
        lambda fire: fire <= until, Schedule.read(schedule).next(after, zone(name), 500)
    )
    assert list(times) == by_the_minute(schedule, name, after, until)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 59), st.integers(0, 23), st.sampled_from(CHANGES))
def test_a_job_at_one_time_runs_once_each_day_and_late_at_most_at_the_change(
    minute: int, hour: int, change: tuple[str, str]
) -> None:
    name, moment = change
    begin, end = at(moment) - timedelta(days=3), at(moment) + timedelta(days=3)
    times = Schedule.read(f"{minute} {hour} * * *").next(begin, zone(name), 10)
    walls = [time.astimezone(zone(name)) for time in times if time <= end]
    assert all(wall.fold == 0 for wall in walls)
    dates = [wall.date() for wall in walls if (wall.hour, wall.minute) == (hour, minute)]
    assert len(set(dates)) == len(dates)
    late = [wall for wall in walls if (wall.hour, wall.minute) != (hour, minute)]
    assert late in ([], [at(moment)])
    assert 5 <= len(walls) <= 7


# In words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("55 2 * * *", "At 02:55"),
        ("0 14 * * *", "At 14:00"),
        ("@daily", "At 00:00"),
        ("@hourly", "Every hour"),
        ("@weekly", "At 00:00, only on Sunday"),
        ("@yearly", "At 00:00, on day 1 of the month, only in January"),
        ("00 02 * * 07", "At 02:00, only on Sunday"),
        ("*/15 * * * *", "Every 15 minutes"),
        ("0 9 * * mon-fri", "At 09:00, Monday through Friday"),
        ("0 22-23 * * *", "At 0 minutes past the hour, between 22:00 and 23:59"),
        ("1 * * * *", "At 1 minute past the hour"),
        ("1 9-17 * * *", "At 1 minute past the hour, between 09:00 and 17:59"),
        ("0 0 13 * 5", "At 00:00, on day 13 of the month, or on Friday"),
        ("0 0 13 * 1-2", "At 00:00, on day 13 of the month, or on Monday and Tuesday"),
        ("0 0 */2 * 5", "At 00:00, every 2 days, only on Friday"),
        ("0 0 * * 1-5/5", "At 00:00, only on Monday"),
        ("0 0 1 * 0,7", "At 00:00, on day 1 of the month, or on Sunday"),
    ],
)
def test_schedules_are_said_in_plain_english(text: str, words: str) -> None:
    assert in_words(text) == words


def fields(least: int, most: int, names: str) -> st.SearchStrategy[str]:
    values = st.integers(least, most)
    ranges = st.tuples(values, values).map(lambda two: f"{min(two)}-{max(two)}")
    steps = st.integers(1, most - least + 1)
    items = st.one_of(
        values.map(str),
        values.map("{:03}".format),
        ranges,
        st.builds("{}/{}".format, ranges | st.just("*"), steps),
        *map(st.just, names.split()),
    )
    return st.just("*") | st.lists(items, min_size=1, max_size=4).map(",".join)


grammar = st.tuples(
    fields(0, 59, ""),
    fields(0, 23, ""),
    fields(1, 28, ""),
    fields(1, 12, "JAN feb Dec"),
    fields(0, 7, "sun Mon SAT"),
).map(" ".join)


@settings(max_examples=300, deadline=None)
@given(grammar)
def test_whatever_is_made_of_the_grammar_is_read_fires_and_has_words(text: str) -> None:
    assert Schedule.read(text).after(at("2026-05-04T12:00"), zone(BERLIN))
    assert in_words(text)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text("0123456789*/-,@ LW#?ajnsu", max_size=30))
def test_whatever_else_is_refused(text: str) -> None:
    try:
        assert in_words(text)
    except InvalidSchedule:
        pass


def test_words_are_english_whatever_the_servers_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getlocale", lambda: ("de_DE", "UTF-8"))
    assert in_words("17 14 3 * *") == "At 14:17, on day 3 of the month"
