"""Crontabs as they look, with entries as they are now."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hoody.cron import crontab
from hoody.cron.crontab import Job, Remark
from hoody.cron.entry import Entry
from hoody.cron.layout import Of, Ref, kept, masked, of_text, rendered
from tests.support.clockwork import APP, NIGHT, OTHER, SERVER, entry

IDS = [f"{n:08x}-0000-4000-8000-000000000000" for n in range(9)]
ALL = Of(user="root", server_id=SERVER)


def raw(number: int, **fields: Any) -> Entry:
    return entry(NIGHT, id=IDS[number], type="raw", **fields)


def managed(number: int, **fields: Any) -> Entry:
    return entry(NIGHT, id=IDS[number], **fields)


def test_remarks_stand_where_they_stood() -> None:
    said = kept([Remark("# first"), Ref(IDS[1]), Remark(""), Ref(IDS[0])])
    found = rendered(ALL, [managed(0, name="the state"), raw(1, command="x")], said)
    assert found == (f"# first\n55 2 * * * x\n\n# hoody:{IDS[0]} the state\n55 2 * * * true\n")


def test_what_has_no_place_comes_last_and_what_is_gone_has_none() -> None:
    said = kept([Ref(IDS[3]), Remark("# end")])
    found = rendered(ALL, [managed(0), managed(1, comment="two\nlines")], said)
    assert found == (
        f"# end\n# hoody:{IDS[0]}\n55 2 * * * true\n# hoody:{IDS[1]} two lines\n55 2 * * * true\n"
    )


def test_a_disabled_one_is_a_comment_under_its_id() -> None:
    found = rendered(ALL, [managed(0, enabled=False)], None)
    assert found == f"# hoody:{IDS[0]}\n#55 2 * * * true\n"


def test_a_raw_one_is_a_bare_line_only_where_that_would_be_it() -> None:
    said = kept(
        [
            Ref(IDS[0]),
            Remark("A=1"),
            Remark("CRON_TZ=Europe/Berlin"),
            Ref(IDS[1]),
            Ref(IDS[2]),
            Ref(IDS[3]),
        ]
    )
    berlin = {"environment_vars": {"A": "1"}, "timezone": "Europe/Berlin"}
    entries = [
        raw(0, command="a"),
        raw(1, command="b", **berlin),
        raw(2, command="c"),
        raw(3, command="d", enabled=False, **berlin),
        raw(4, command="e", container_id=APP, run_on="container", **berlin),
        raw(5, command="f", server_id=OTHER, **berlin),
    ]
    found = rendered(ALL, entries, said)
    assert found == (
        "55 2 * * * a\n"
        "A=1\n"
        "CRON_TZ=Europe/Berlin\n"
        "55 2 * * * b\n"
        f"# hoody:{IDS[2]}\n55 2 * * * c\n"
        f"# hoody:{IDS[3]}\n#55 2 * * * d\n"
        f"# hoody:{IDS[4]}\n55 2 * * * e\n"
        f"# hoody:{IDS[5]}\n55 2 * * * f\n"
    )
    of = Of(user="root", container_id=APP, server_id=SERVER)
    assert rendered(of, entries[4:5], said) == ("A=1\nCRON_TZ=Europe/Berlin\n55 2 * * * e\n")


def test_more_jobs_than_may_be_put_are_shown() -> None:
    entries = [entry(NIGHT, name=f"n{n}") for n in range(crontab.MOST_JOBS + 1)]
    assert rendered(ALL, entries, None).count("# hoody:") == crontab.MOST_JOBS + 1


def test_nothing_is_kept_of_nothing() -> None:
    assert kept([]) is None
    assert of_text(None) == []
    assert rendered(ALL, [], None) == ""


@given(st.lists(st.one_of(st.text().map(Remark), st.sampled_from(IDS).map(Ref))))
def test_what_is_kept_is_read_again(items: list[Remark | Ref]) -> None:
    assert of_text(kept(items)) == items


def test_what_variables_say_is_masked_and_nothing_else() -> None:
    text = (
        "# A=comment\nA=1\n  KEY = 'secret = x'\nCRON_TZ=Europe/Berlin\n"
        "5 4 * * * A=1 run\n@daily B=2 run\n"
    )
    assert masked(text, "***") == (
        "# A=comment\nA=***\n  KEY =***\nCRON_TZ=Europe/Berlin\n"
        "5 4 * * * A=1 run\n@daily B=2 run\n"
    )
    assert [type(item) for item in crontab.read(masked(text, "***"))] == [
        *(Remark, Remark, Remark, Remark),
        *(Job, Job),
    ]
