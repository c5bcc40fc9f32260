"""Attacks on files, processes and input, and how many of them end rightly.

    python tests/perf/storms/run.py                           all rows: hours on two cores
    python tests/perf/storms/run.py --rows kills disk --tries 4
    python tests/perf/storms/run.py --markdown --write docs/reliability.md

An attack ends rightly with the bytes of an undisturbed run, or in one line that says why not;
a traceback, a hang, other bytes, a process that goes on or a secret that is printed are wrong.
Prints tried and right for each row, and for every attack that did not end rightly what happened.
The exit status is 1 if there is one.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
import zlib
from pathlib import Path

os.environ |= {
    "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error",
}  # fmt: skip
ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

import finished  # noqa: E402
import flips  # noqa: E402
import full_disk  # noqa: E402
import kills  # noqa: E402
import leftovers  # noqa: E402
import limits  # noqa: E402
import models  # noqa: E402
import numpy as np  # noqa: E402
import pictures  # noqa: E402
import plugins  # noqa: E402
import specs  # noqa: E402
import table  # noqa: E402
import texts  # noqa: E402
import together  # noqa: E402
import unfinished  # noqa: E402
from commands import orphans  # noqa: E402
from damage import remove  # noqa: E402
from experiment import Setting  # noqa: E402
from judges import Wrong  # noqa: E402
from rows import Row, Try  # noqa: E402

ROWS = {
    row.name: row
    for row in (
        kills.ROW, full_disk.ROW, finished.ROW, unfinished.ROW, leftovers.ROW, flips.ROW,
        together.JOBS, together.WRITERS, specs.ROW, texts.ROW, pictures.ROW, models.ROW,
        limits.ROW, plugins.ROW,
    )
}  # fmt: skip


def attack(one: Try, folder: Path) -> str | None:
    """What happened if a try did not end rightly."""
    folder.mkdir()
    try:
        one.run(folder)
    except Wrong as wrong:
        return " ".join(str(wrong).split())
    except Exception as error:
        return f"the try itself failed: {type(error).__name__}: {' '.join(str(error).split())}"
    finally:
        orphans(folder, patience=0)
        remove(folder)
    return None


def storm(row: Row, setting: Setting, count: int | None, seed: int) -> tuple[int, int]:
    """Make all tries of a row, say what was wrong, and give the numbers of tried and right."""
    rng = np.random.default_rng([seed, zlib.crc32(row.name.encode())])
    tries, right, began = row.tries(setting, rng, count or row.count), 0, time.monotonic()
    for number, one in enumerate(tries):
        what = attack(one, setting.work / f"{row.name}-{number}")
        right += what is None
        if what is not None:
            say(f"  wrong: {one.name}: {what}")
    say(f"{row.name}: {right} of {len(tries)} right in {time.monotonic() - began:.0f} s")
    return len(tries), right


def say(text: str) -> None:
    """One line to people, at once."""
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--tries", type=int, help="at most so many of a row; default: its own")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a folder to work in; default: temporary")
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="renew the table in a document, row by row"
    )
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="storm-", dir=given.work)).resolve()
    os.environ["DPO_BENCH_HOME"] = str(work / "home")
    counts: dict[str, tuple[int, int]] = {}
    try:
        setting = Setting(work)
        for name in given.rows:
            counts[name] = storm(ROWS[name], setting, given.tries, given.seed)
            if given.write:
                table.refresh(given.write, ROWS, counts)
    finally:
        shutil.rmtree(work)
    if given.markdown:
        print(table.markdown(ROWS, counts), end="")
    sys.exit(any(right < tried for tried, right in counts.values()))


if __name__ == "__main__":
    main()
