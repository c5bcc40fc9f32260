"""Row: spec files, and what the command line changes of them."""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from commands import Done, fork
from experiment import Setting
from judges import SECRET, Wrong, refused, succeeded, told
from rows import Row, Try, sample
from spoiled import inputs

Judge = Callable[[Done], Done]
MINE = "extends: mini\nname: mine\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}, *{a}]\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
PRIVATE = "".join(f"user{n}:\n  password: {SECRET}\n  host: {n}\n" for n in range(200))
"""Twelve thousand characters that were not meant for this program."""

TEXTS: dict[str, tuple[str | bytes, Judge]] = {
    "empty": ("", refused),
    "a number": ("7", refused),
    "a list": ("- extends: mini", refused),
    "a private file": (PRIVATE, refused),
    "a private line": (SECRET, refused),
    "a text as a section": (f"{MINE}train: much\n", refused),
    "a text among seeds": (f"{MINE}seeds: [0, many]\n", refused),
    "a private value of an unknown key": (f"{MINE}token: {SECRET}\n", refused),
    "a private line without a colon": (f"{MINE}{SECRET}\n", refused),
    "a YAML bomb": (MINE + BOMB, refused),
    "an alias of itself": (f"{MINE}train: &a\n  steps: *a\n", refused),
    "many levels": (f"{MINE}train: {'[' * 20000}\n", refused),
    "many flow maps": (f"{MINE}train: {'{a: ' * 5000}\n", refused),
    "a Python tag": (f"{MINE}title: !!python/object/apply:os.system ['touch planted']\n", refused),
    "a key twice": (f"{MINE}seeds: [0]\nseeds: [1]\n", refused),
    "a key twice within": (f"{MINE}train:\n  steps: 3\n  steps: 4\n", refused),
    "booleans as seeds": (f"{MINE}seeds: [true, false]\n", refused),
    "a boolean as steps": (f"{MINE}train: {{steps: true}}\n", refused),
    "a text as steps": (f"{MINE}train: {{steps: '4'}}\n", refused),
    "NaN as beta": (f"{MINE}train: {{objective: {{beta: .nan}}}}\n", refused),
    "infinite guidance": (f"{MINE}generate: {{guidance: .inf}}\n", refused),
    "an infinite tie": (f"{MINE}statistics: {{tie: .inf}}\n", refused),
    "an infinite bound": (f"{MINE}statistics: {{equivalence: .inf}}\n", refused),
    "alpha of nothing": (f"{MINE}statistics: {{alpha: 1.0e-300}}\n", refused),
    "a rate of nothing": (f"{MINE}train: {{optimizer: {{lr: 0}}}}\n", told),
    "a seed of 2^63": (f"{MINE}seeds: [{2**63}]\n", refused),
    "a seed of 10^400": (f"{MINE}seeds: [1{'0' * 400}]\n", refused),
    "a number of 5000 digits": (f"{MINE}train: {{steps: {'9' * 5000}}}\n", refused),
    "a negative seed": (f"{MINE}seeds: [-1]\n", told),
    "a seed twice": (f"{MINE}seeds: [1, 1]\n", refused),
    "100,000 control pairs": (f"{MINE}statistics: {{control_pairs: 100000}}\n", refused),
    "a limit of nothing": (f"{MINE}prompt_limit: 0\n", refused),
    "a name that leads out": ("extends: mini\nname: ../mine\n", refused),
    "a name of two folders": ("extends: mini\nname: a/b\n", refused),
    "a name of nothing": ("extends: mini\nname: ''\n", refused),
    "a name of the store": ("extends: mini\nname: store\n", refused),
    "a name that is a number": ("extends: mini\nname: 7\n", refused),
    "a name of 300 letters": (f"extends: mini\nname: {'a' * 300}\n", refused),
    "markup in the title": (f"{MINE}title: '[/red] [bold]'\n", succeeded),
    "a line break in the title": (f'{MINE}title: "a\\nb"\n', told),
    "half a pair in the title": (f'{MINE}title: "\\ud83d"\n', refused),
    "an arm called base": (f"{MINE}components: {{base: {{label: a, set: {{}}}}}}\n", refused),
    "a component that changes nothing": (f"{MINE}components: {{C: {{label: a}}}}\n", told),
    "an unknown component key": (
        f"{MINE}components: {{C: {{label: a, set: {{objective.gamma: 1}}}}}}\n", refused),
    "an unknown reward": (f"{MINE}rewards: [oracel]\n", refused),
    "no rewards": (f"{MINE}rewards: []\n", refused),
    "a reward twice": (f"{MINE}rewards: [oracle, oracle]\n", refused),
    "an unknown base": (f"{MINE}base: no/such\n", told),
    "UTF-16": (MINE.encode("utf-16"), refused),
    "latin-1": (f"{MINE}title: caf\xe9\n".encode("latin-1"), refused),
    "NUL bytes": (f"{MINE}title: a\0b\n", refused),
    "a byte order mark": (f"\ufeff{MINE}", succeeded),
    "Windows line ends": (MINE.replace("\n", "\r\n"), succeeded),
    "tabs": ("extends: mini\n\tname: mine\n", refused),
    "itself as its parent": ("extends: spec.yaml\nname: mine\n", refused),
    "a missing parent": ("extends: none.yaml\nname: mine\n", refused),
    "a list as its parent": ("extends: [mini]\nname: mine\n", refused),
    "5 MB of one value": (f"{MINE}title: {'a' * 5_000_000}\n", told),
    "100,000 unknown keys": (MINE + "".join(f"k{n}: 1\n" for n in range(100_000)), refused),
}  # fmt: skip


def _spec(data: str | bytes, judge: Judge, folder: Path) -> None:
    path = folder / "spec.yaml"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    judge(fork(["ablate", path, "--plan"], folder))
    judge(fork(["plan", path], folder))
    if (folder / "planted").exists():
        raise Wrong("planted code was run")


def _path(make: Callable[[Path], object], folder: Path) -> None:
    path = folder / "spec.yaml"
    make(path)
    refused(fork(["plan", path], folder))


PATHS: dict[str, Callable[[Path], object]] = {
    "no file": lambda path: None,
    "a folder": Path.mkdir,
    "a pipe": os.mkfifo,
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to /etc/hostname": lambda path: path.symlink_to("/etc/hostname"),
    "a shell": lambda path: shutil.copyfile("/bin/sh", path),
}
OPTIONS: dict[str, tuple[Sequence[str], Judge]] = {
    "--seeds 0-999999": (["--seeds", "0-999999"], refused),
    "--seeds 0-": (["--seeds", "0-"], refused),
    "--seeds 4-1": (["--seeds", "4-1"], refused),
    "--seeds of a comma": (["--seeds", ","], refused),
    "--seeds -1": (["--seeds=-1"], refused),
    "--seeds of 2^63": (["--seeds", str(2**63)], refused),
    "--set without a value": (["--set", "train.steps"], refused),
    "--set of an unknown key": (["--set", "train.stesp=4"], refused),
    "--set of NaN": (["--set", "train.optimizer.lr=.nan"], refused),
    "--set of a bomb": (["--set", f"title={{{BOMB}}}"], refused),
    "--set of itself": (["--set", "title=&a [*a]"], refused),
    "--set through a number": (["--set", "train.steps.more=4"], refused),
    "--workers 0": (["--workers", "0"], refused),
    "a spec called /etc/hostname": (["/etc/hostname"], refused),
    "a spec called -": (["-"], refused),
    "a spec of 5000 letters": (["a" * 5000], refused),
    "a spec called ../../etc/hostname": (["../../../../../etc/hostname"], refused),
}


def _option(options: Sequence[str], judge: Judge, folder: Path) -> None:
    judge(fork(["ablate", "--plan", *options], folder))


def _spoiled(path: Path, folder: Path) -> None:
    told(fork(["ablate", path / "spec.yaml", "--plan"], folder))
    told(fork(["plan", path / "spec.yaml"], folder))


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    found = [Try(name, partial(_spec, *given)) for name, given in TEXTS.items()]
    found += [Try(name, partial(_path, make)) for name, make in PATHS.items()]
    found += [Try(name, partial(_option, *given)) for name, given in OPTIONS.items()]
    found = sample(found, rng, count)
    if more := count - len(found):
        made = inputs("specs", setting.work / "spoiled-specs", more, int(rng.integers(2**31)))
        found += [Try(f"spoiled spec {n}", partial(_spoiled, p)) for n, p in enumerate(made)]
    return found


ROW = Row("specs", "spec files and options", tries, 150)
