"""Row: damage to interrupted runs (checkpoint, log, encodings, record, images, scores), resumed."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from commands import fork, start
from damage import DAMAGES, kinds_of_files
from experiment import Setting, copy, differ, killed_when, networks, unrecorded
from judges import follow, succeeded
from rows import Row, Try, sample

CHECKPOINT = "checkpoint.safetensors"


def _arguments(setting: Setting, out: Path) -> list[str | Path]:
    return ["train", "DPO+A", setting.spec, "--out", out]


def _interrupted_train(setting: Setting) -> Path:
    """The folder of a ``bench train`` that was killed between two checkpoints."""
    out = setting.work / "interrupted-train-alone"
    running = start(_arguments(setting, out), setting.work)
    killed_when(running, (out / CHECKPOINT).exists)
    if not (out / CHECKPOINT).exists():
        raise SystemExit(f"bench train could not be interrupted: {running.wait().last()}")
    return out


def _finished_train(setting: Setting) -> Path:
    out = setting.work / "train-alone"
    succeeded(start(_arguments(setting, out), setting.work).wait())
    return out


def _train(
    begun: Path, whole: Path, file: str, kind: str, seed: int, setting: Setting, folder: Path
) -> None:
    out = copy(begun, folder / "out")
    DAMAGES[kind](out / file, np.random.default_rng(seed))
    done = follow(lambda: fork(_arguments(setting, out), folder), folder)
    if done.code == 0:
        differ(networks(whole), networks(out))


def _ablate(begun: Path, file: str, kind: str, seed: int, setting: Setting, folder: Path) -> None:
    out = copy(begun, folder / "out")
    DAMAGES[kind](out / file, np.random.default_rng(seed))
    done = follow(lambda: setting.ablate_in_fork(folder, out), folder)
    if done.code == 0:
        setting.same(out)


def _drawing(store: Path) -> bool:
    """Images were drawn, and their index is not written yet."""
    pools = (store / "pool" / "images").glob("*")
    return any(not (p / "images.jsonl").exists() and any(p.glob("*.png")) for p in pools)


def _scoring(store: Path) -> bool:
    """Scores are kept of a reward, and a stage of scores is not done."""
    kept = any((store / "pool" / "scores").glob("*.parquet"))
    return kept and any(folder.parent.name == "scores" for folder in unrecorded(store))


def _training(store: Path) -> bool:
    return any((folder / CHECKPOINT).exists() for folder in unrecorded(store))


UNTIL: dict[str, Callable[[Path], bool]] = {
    "training": _training, "drawing": _drawing, "scoring": _scoring,
}  # fmt: skip


def _each(
    root: Path, places: Sequence[Path], attack: Callable[..., None], said: str,
    rng: np.random.Generator,
) -> list[Try]:  # fmt: skip
    """One file of each kind below places, with each damage."""
    found = []
    for files in kinds_of_files(root, places).values():
        for kind in DAMAGES:
            file = files[rng.integers(len(files))].relative_to(root).as_posix()
            run = partial(attack, file, kind, int(rng.integers(2**31)))
            found.append(Try(f"{said}, {file}: {kind}", run))
    return found


def tries(setting: Setting, rng: np.random.Generator, count: int) -> list[Try]:
    begun, whole = _interrupted_train(setting), _finished_train(setting)

    def train(begun: Path, file: str, kind: str, seed: int, folder: Path) -> None:
        _train(begun, whole, file, kind, seed, setting, folder)

    found = _each(begun, [begun], partial(train, begun), "bench train interrupted", rng)
    own = [path for path in whole.iterdir() if path.name != "store"]
    found += _each(whole, own, partial(train, whole), "bench train finished", rng)
    for name, until in UNTIL.items():
        out = setting.interrupted(name, until)

        def ablate(file: str, kind: str, seed: int, folder: Path, out: Path = out) -> None:
            _ablate(out, file, kind, seed, setting, folder)

        places = [*unrecorded(out / "store"), out / "store" / "pool"]
        found += _each(out, places, ablate, f"bench ablate interrupted while {name}", rng)
    return sample(found, rng, count)


ROW = Row("unfinished", "damage to an interrupted `bench train`, to a finished one and to an "
          "interrupted `bench ablate`, then resumed", tries, 150)  # fmt: skip
