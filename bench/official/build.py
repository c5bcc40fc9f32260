"""Makes the environment of the published packages with venv and pip."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainers.errors import UserError
from trainers.files import as_json, sha256_file, tell, write_text
from trainers.home import home
from trainers.input.text import read_json
from trainers.sealed import open_record, seal_record

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
WORKER = HERE / "worker.py"
STAMP = "dpo-bench.json"
"""File in a finished environment: what it was built from and what it holds."""
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
"""CLIP's byte pairs. hpsv2 1.2.0 reads the file at import but its wheel lacks it."""
LINES = 12
"""Lines of pip's output that an error message shows."""


def default_folder() -> Path:
    """``official`` in $DPO_BENCH_HOME, or in ``~/.cache/dpo-bench``."""
    return home() / "official"


def python_of(folder: Path) -> Path:
    """The interpreter of the environment in ``folder``, which need not exist."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def commands(out: Path) -> list[list[str]]:
    """The commands that make the environment, in order.

    torch comes first, by itself: pip may then not trade it for the release that the newest
    torchvision wants, and packages that look for torch while they are built find it.
    """
    torch = next(
        w for w in REQUIREMENTS.read_text(encoding="utf-8").split() if w.startswith("torch==")
    )
    install = [str(python_of(out)), "-m", "pip", "install", "--disable-pip-version-check"]
    return [
        [sys.executable, "-m", "venv", "--clear", str(out)],
        [*install, torch],
        [*install, "-r", str(REQUIREMENTS)],
    ]


def build(out: Path, say: Callable[[str], None]) -> None:
    """Make the environment in ``out``; a finished one of the same requirements is kept.

    Takes some minutes, about 1.6 GB with torch for the CPU, and the package index.

    Args:
        out: The folder. Its content is replaced if it is an environment, finished or not.
        say: Called with one line for each step.

    Raises:
        UserError: If ``out`` holds something else, a command fails, or a package does not import.
    """
    if finished(out):
        say(f"{out} is up to date")
        return
    if out.exists() and any(out.iterdir()) and not (out / "pyvenv.cfg").is_file():
        raise UserError(
            f"expected a new folder or an environment in {out}, found other files: name another "
            "folder, or empty this one"
        )
    for command in commands(out):
        say(" ".join(command))
        _run(command, out)
    say(f"copying {VOCABULARY} from open_clip into hpsv2, whose wheel lacks it")
    _copy_vocabulary(out)
    say("importing both packages")
    found = check(out)
    stamp = seal_record({"requirements": sha256_file(REQUIREMENTS), "found": found})
    write_text(out / STAMP, as_json(stamp))
    say(f"{out} is ready: " + ", ".join(f"{name} {value}" for name, value in found.items()))


def finished(out: Path) -> bool:
    """Whether ``out`` holds an environment that was built from the present requirements."""
    built = read_stamp(out)
    return built is not None and built.get("requirements") == sha256_file(REQUIREMENTS)


def read_stamp(out: Path) -> dict[str, Any] | None:
    """What an environment was built from and holds; None, which is told, if that was changed."""
    if not (out / STAMP).exists():
        return None
    try:
        stamp = read_json(out / STAMP)
        said = open_record(stamp) if "sha256" in stamp else stamp  # It was not recorded always.
        if said is not None and isinstance(said["found"], dict):
            return dict(said)
    except (UserError, TypeError, KeyError):
        pass
    tell(f"{out / STAMP} is not what was written there: {out} is looked at anew")
    return None


def check(out: Path) -> dict[str, str]:
    """Import both packages in the environment of ``out``; versions by name.

    Raises:
        UserError: If one does not import.
    """
    output = _run([str(python_of(out)), str(WORKER), "--check"], out)
    found: dict[str, str] = json.loads(output.splitlines()[-1])
    return found


def _copy_vocabulary(out: Path) -> None:
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(_run([str(python_of(out)), "-c", where], out).strip())
    shutil.copy(packages / "open_clip" / VOCABULARY, packages / "hpsv2/src/open_clip")


def _run(command: list[str], out: Path) -> str:
    """Standard output of a command that must succeed.

    Modules of this process's PYTHONPATH stay out: they would shadow those of the environment.
    """
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=clean, check=False)
    except OSError as error:
        raise UserError(f"{command[0]} does not start ({error}): choose another folder") from error
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-LINES:])
        raise UserError(
            f"building {out} failed at: {' '.join(command)}\n{last}\n"
            "mend what is named above and build again; what is there will be replaced"
        )
    return done.stdout
