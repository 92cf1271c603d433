"""Pages say sizes and times in the same words with scripts and without."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import hoody.resources
from hoody.resources.dashboard import _about
from hoody.units import duration_in_words, size_in_words

SCRIPT = Path(hoody.resources.__file__).parent / "static" / "words.js"
SIZES = [*range(2000), 1152, 10_496, 1023 * 1024, 1024**2 - 1, 1024**2, 10**9, 7_600_000_000]
SIZES += [2**40, 2**50, 2**53 - 1]
SECONDS = [
    0,
    0.0004,
    0.0005,
    0.0125,
    0.999,
    0.25,
    1,
    2.25,
    59.94,
    59.96,
    60,
    60.5,
    3599.5,
    28_920.0,
]


def test_the_script_says_what_the_server_says() -> None:
    program = f"""{SCRIPT.read_text()}
        const [sizes, seconds] = JSON.parse(process.argv[1]);
        console.log(JSON.stringify([
            sizes.map(inWords.size), seconds.map(inWords.took),
            seconds.map((each) => inWords.about(Math.round(each))),
        ]));"""
    done = subprocess.run(
        ["node", "-e", program, json.dumps([SIZES, SECONDS])], capture_output=True, check=True
    )
    sizes, took, about = json.loads(done.stdout)
    assert sizes == [size_in_words(size) for size in SIZES]
    assert took == [duration_in_words(seconds) for seconds in SECONDS]
    assert about == [_about(int(seconds + 0.5)) for seconds in SECONDS]
