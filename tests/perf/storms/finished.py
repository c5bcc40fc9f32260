"""Row: damage to a finished store and to its results."""

from functools import partial
from pathlib import Path

import numpy as np
from commands import Done, fork
from damage import DAMAGES, kinds_of_files
from experiment import RESULTS, Setting, sha256
from judges import Wrong, follow, refused, succeeded, told
from rows import Row, Try, sample


def _check(folder: Path, out: Path) -> Done:
    return fork(["table", out / "tiny", "--check"], folder)


def _storm(kind: str, file: str, seed: int, setting: Setting, folder: Path) -> None:
    out = setting.finished(folder)
    path, rng = out / file, np.random.default_rng(seed)
    DAMAGES[kind](path, rng)
    if path.parent == out / "tiny" and not _same(path, setting.undisturbed / file):
        checked(folder, out, setting, path.name)
    else:
        told(_check(folder, out))
    done = follow(lambda: setting.ablate_in_fork(folder, out), folder)
    if done.code == 0:
        setting.same(out, networks_too=False)
        succeeded(_check(folder, out))


def _same(path: Path, other: Path) -> bool:
    return path.is_file() and sha256(path) == sha256(other)


def checked(folder: Path, out: Path, setting: Setting, name: str) -> None:
    """Raise Wrong unless ``table --check`` sees damage to a file of a result, and bakes none in.

    The mend that it tells must give the bytes that were there; that may be to run the job again.
    """
    done = refused(_check(folder, out))
    if f"bench table {out / 'tiny'}" in done.stderr:
        told(fork(["table", out / "tiny"], folder))
        for other in RESULTS:
            if not _same(out / "tiny" / other, setting.undisturbed / "tiny" / other):
                raise Wrong(f"damage to {name} is baked into {other}: {done.last()}")


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    """One file of each kind, with each damage."""
    found = []
    root = setting.undisturbed
    for files in kinds_of_files(root).values():
        for kind in DAMAGES:
            file = files[rng.integers(len(files))].relative_to(root).as_posix()
            seed = int(rng.integers(2**31))
            found.append(Try(f"{file}: {kind}", partial(_storm, kind, file, seed, setting)))
    return sample(found, rng, count)


ROW = Row("finished", "damage to a finished store and results", tries, 254)
