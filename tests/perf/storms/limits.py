"""Row: limits of the system, streams, locales, odd places and numbers."""

import shlex
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from commands import Done, orphans, shell
from experiment import Setting, copy, spec
from full_disk import can_mount
from judges import Wrong, clean, refused, succeeded, told
from rows import Row, Try, sample

Judge = Callable[[Done], Done]
ISO = "en_US.ISO-8859-1"


def _silent(done: Done) -> Done:
    """Its words could not be shown; it said so by its code alone, or nothing was lost."""
    if clean(done).code not in (0, 1):
        raise Wrong(f"code {done.code}")
    return done


LINES: dict[str, tuple[str, Judge]] = {
    "a list to a full disk": ("$BENCH list > /dev/full", refused),
    "a table to a full disk": ("$BENCH table $RESULT > /dev/full", refused),
    "JSON to a full disk": ("$BENCH table $RESULT --json > /dev/full", refused),
    "help to a full disk": ("$BENCH --help > /dev/full", refused),
    "a plan to a full disk": ("$BENCH ablate --plan > /dev/full", refused),
    "errors to a full disk": ("$BENCH table none 2> /dev/full", _silent),
    "no output": ("$BENCH table $RESULT >&-", told),
    "no errors": ("$BENCH table $RESULT 2>&-", _silent),
    "no errors to show": ("$BENCH table none 2>&-", _silent),
    "no streams": ("$BENCH table $RESULT <&- >&- 2>&-", _silent),
    "a reader that stops": ("set -o pipefail; $BENCH list | head -n 1", _silent),
    "a reader that stops reading JSON": ("$BENCH table $RESULT --json | head -c 9", _silent),
    "a folder that is gone": ("mkdir gone; cd gone; rmdir ../gone; $BENCH list", told),
    "no place for temporary files": ("TMPDIR=/none $BENCH table $RESULT", told),
    "no HOME": ("unset HOME DPO_BENCH_HOME; $BENCH list", succeeded),
    "a HOME that is no folder": ("HOME=/dev/null; unset DPO_BENCH_HOME; $BENCH list", succeeded),
    "a HOME of ours that is a file": ("DPO_BENCH_HOME=/etc/hostname $BENCH doctor", told),
    "a terminal of no width": ("COLUMNS=0 $BENCH table $RESULT", succeeded),
    "a terminal of odd width": ("COLUMNS=many $BENCH table $RESULT", succeeded),
    "a dumb terminal": ("TERM=dumb $BENCH table $RESULT", succeeded),
    "a mask that forbids all": ("umask 777; $BENCH table $RESULT", told),
    "memory of 1 GB": ("ulimit -v 1000000; $BENCH table $RESULT", told),
    "memory of 2.5 GB": ("ulimit -v 2500000; $BENCH ablate $SPEC --out out --workers 2", told),
    "memory of 4 GB": ("ulimit -v 4000000; $BENCH ablate $SPEC --out out --workers 2", told),
    "16 open files": ("ulimit -n 16; $BENCH ablate $SPEC --out out --workers 2", told),
    "40 open files": ("ulimit -n 40; $BENCH ablate $SPEC --out out --workers 2", told),
    "files of 100 kB": ("ulimit -f 100; $BENCH ablate $SPEC --out out --workers 2", refused),
    "files of nothing": ("ulimit -f 0; $BENCH table $RESULT", _silent),
    "a second of computing": ("ulimit -t 1; $BENCH table $RESULT", lambda done: done),
    "ablate --out a file": ("$BENCH ablate $SPEC --out /etc/hostname", refused),
    "ablate --out a device": ("$BENCH ablate $SPEC --out /dev/null", refused),
    "ablate --out below a file": ("$BENCH ablate $SPEC --out /etc/hostname/x", refused),
    "ablate --out of 300 letters": (f"$BENCH ablate $SPEC --out {'a' * 300}", refused),
    "ablate --out in /proc": ("$BENCH ablate $SPEC --out /proc/here", refused),
    "train --out a file": ("$BENCH train DPO $SPEC --out /etc/hostname", refused),
    "train --store a file": ("$BENCH train DPO $SPEC --out o --store /etc/hostname", refused),
    "generate --out a file": ("$BENCH generate --prompts mini-dev --out /etc/hostname", refused),
    "export --out a file": ("$BENCH export $RUN --out /etc/hostname", refused),
    "score --out a folder": ("$BENCH score $IMAGES --rewards oracle --out .", refused),
    "score --out below a file": ("$BENCH score $IMAGES --rewards oracle --out /etc/hostname/x",
                                 refused),
    "score --out a device": ("$BENCH score $IMAGES --rewards oracle --out /dev/null", refused),
    "score --out of another kind": ("echo a > x.txt; $BENCH score $IMAGES --rewards oracle --out "
                                    "x.txt", refused),
    "label --out a folder": ("$BENCH data label mini-pairs --reward oracle --out .", refused),
    "guidance of infinity": ("$BENCH generate --prompts mini-dev --guidance inf --out o", refused),
    "guidance of NaN": ("$BENCH generate --prompts mini-dev --guidance nan --out o", refused),
    "eta of NaN": ("$BENCH generate --prompts mini-dev --eta nan --out o", refused),
    "a seed of 2^63": (f"$BENCH generate --prompts mini-dev --seed {2**63} --out o", refused),
    "a seed of 10^400": (f"$BENCH train DPO $SPEC --seed 1{'0' * 400} --out o", refused),
    "a training seed of 2^63": (f"$BENCH train DPO $SPEC --seed {2**63} --out o", refused),
    "images of 10^9 pixels": ("$BENCH generate --prompts mini-dev --height 1000000000 --out o",
                              refused),
    "images of 3 pixels": ("$BENCH generate --prompts mini-dev --height 3 --out o", refused),
    "10^9 images of each": ("$BENCH generate --prompts mini-dev --images-per-prompt 1000000000 "
                            "--out o", refused),
    "10^9 steps": ("$BENCH generate --prompts mini-dev --steps 1000000000 --out o", refused),
    "memory of NaN": ("$BENCH score $IMAGES --memory nan --rewards oracle", refused),
    "memory of infinity": ("$BENCH score $IMAGES --memory inf --rewards oracle", refused),
    "memory of -1": ("$BENCH score $IMAGES --memory -1 --rewards oracle", refused),
    "a batch of 10^12": ("$BENCH score $IMAGES --batch-size 1000000000000 --rewards mini-clip "
                         "--out x.parquet", told),
    "an unknown device": ("$BENCH score $IMAGES --device nonsense --rewards mini-clip", refused),
    "an unknown precision": ("$BENCH score $IMAGES --dtype float8 --rewards mini-clip", refused),
    "convert NaN": ("$BENCH convert --beta nan", refused),
    "convert -1": ("$BENCH convert --beta -1", refused),
    "power of NaN": ("$BENCH power $RESULT --target nan", refused),
    "10^9 workers": ("$BENCH ablate $SPEC --out o --workers 1000000000", told),
    "10^9 processes": ("$BENCH train DPO $SPEC --out o --num-processes 1000000000", refused),
}  # fmt: skip
WORDS = 'title: "\u00c9tude \u2014 \u2192 \u03b2 \u96ea"'
"""A title that few encodings can say."""


def _line(line: str, judge: Judge, setting: Setting, folder: Path, **environment: str) -> None:
    """Run a line of bash beside copies of what it may name."""
    result = copy(setting.undisturbed / "tiny", folder / "tiny")
    store = setting.undisturbed / "store"
    places = {
        "RESULT": result, "SPEC": setting.spec,
        "IMAGES": copy(next((store / "images").iterdir()), folder / "images"),
        "RUN": next((store / "train").iterdir()),
    }  # fmt: skip
    judge(shell(line, folder, **{name: str(path) for name, path in places.items()}, **environment))
    if left := orphans(folder):
        raise Wrong(f"processes go on: {', '.join(left)}")


def _after_memory(size: int, setting: Setting, folder: Path) -> None:
    """What did not fit into memory is gone on with when there is more."""
    job = shlex.join(map(str, setting.arguments(folder / "out")))
    told(shell(f"ulimit -v {size}; $BENCH {job}", folder))
    succeeded(setting.ablate(folder, folder / "out"))
    setting.same(folder / "out")


def _locale(name: str, setting: Setting, folder: Path) -> None:
    """Every text file is UTF-8, whatever the terminal says."""
    given = {"LC_ALL": name, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0",
             "LOCPATH": str(setting.work / "locales") if name == ISO else ""}  # fmt: skip
    own = spec(folder)
    own.write_text(own.read_text().replace("title: A tiny experiment", WORDS), "utf-8")
    job = f"$BENCH ablate {own} --out {folder / 'out'} --workers 1"
    succeeded(shell(job, folder, **given))
    succeeded(shell(f"$BENCH table {folder / 'out' / 'tiny'} --check", folder))
    (folder / "p.txt").write_text("a caf\u00e9 \u2014 \u96ea\n", "utf-8")
    draw = "$BENCH generate --prompts p.txt --steps 1 --out"
    succeeded(shell(f"{draw} here", folder, **given))
    succeeded(shell(f"{draw} there", folder))
    here, there = [(folder / place / "images.jsonl").read_bytes() for place in ("here", "there")]
    if here != there:
        raise Wrong("prompts are read otherwise than under UTF-8")


def _locales(setting: Setting) -> list[str]:
    """Locales that can be had here: C always, ISO-8859-1 where it can be made."""
    target = setting.work / "locales" / ISO
    target.parent.mkdir(exist_ok=True)
    try:
        subprocess.run(["localedef", "-i", "en_US", "-f", "ISO-8859-1", str(target)],
                       capture_output=True, check=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return ["C"]
    return ["C", ISO]


def _read_only(line: str, judge: Judge, setting: Setting, folder: Path) -> None:
    out = setting.finished(folder)
    place = folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "storm", str(place)], check=True)
    try:
        copy(out, place / "out")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        images = next((place / "out" / "store" / "images").iterdir())
        job = shlex.join(map(str, setting.arguments(place / "out")))
        judge(shell(line, folder, OUT=str(place / "out"), IMAGES=str(images), JOB=job))
    finally:
        orphans(folder)
        subprocess.run(["umount", str(place)], check=True)


READ_ONLY: dict[str, tuple[str, Judge]] = {
    "table --check": ("$BENCH table $OUT/tiny --check", succeeded),
    "table": ("$BENCH table $OUT/tiny", told),
    "store verify": ("$BENCH store verify $OUT/store", told),
    "ablate of what is done": ("$BENCH $JOB", told),
    "ablate of more": ("$BENCH $JOB --set prompt_limit=5", refused),
    "score": ("$BENCH score $IMAGES --rewards oracle", refused),
    "score elsewhere": ("$BENCH score $IMAGES --rewards oracle --out x.parquet", succeeded),
    "generate": ("$BENCH generate --prompts mini-dev --out $OUT/new --limit 1", refused),
}


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    setting.undisturbed  # noqa: B018  (made before the tries)
    found = [Try(name, partial(_line, *given, setting)) for name, given in LINES.items()]
    found += [
        Try(f"memory of {size} kB, then enough", partial(_after_memory, size, setting))
        for size in (1_500_000, 3_000_000)
    ]
    found += [Try(f"locale {it}", partial(_locale, it, setting)) for it in _locales(setting)]
    if can_mount(setting.work):
        found += [
            Try(f"a read-only folder: {name}", partial(_read_only, *given, setting))
            for name, given in READ_ONLY.items()
        ]
    return sample(found, rng, count)


ROW = Row("limits", "limits, streams, locale, odd places and numbers", tries, 100)
