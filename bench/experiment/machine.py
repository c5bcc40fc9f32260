"""What a job runs on: the code, the packages and the hardware."""

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import torch

from bench.results.manifest import PACKAGES, Git, Machine


def packages() -> dict[str, str | None]:
    """Versions of what scores depend on; None where one is not installed."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> Machine:
    """This machine."""
    here = torch.cuda.is_available()
    return Machine(
        python=platform.python_version(),
        system=platform.system(),
        machine=platform.machine(),
        cores=os.cpu_count(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads_per_worker=1,
        gpus=tuple(torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())),
        driver=_driver() if here else None,
        cuda=torch.version.cuda if here else None,
        cudnn=torch.backends.cudnn.version() if here else None,
    )


def _driver() -> str | None:
    found = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return found.partition("\n")[0] if found else None


def _output(*command: str) -> str | None:
    """What a program prints; None if it is not there, fails or does not answer."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def git_state(root: Path) -> Git | None:
    """The checkout whose top ``root`` is; None if it is none.

    A repository further up does not count: an environment may lie in anybody's.
    """

    def git(*words: str) -> str | None:
        return _output("git", "-C", str(root), *words)

    top, commit = git("rev-parse", "--show-toplevel"), git("rev-parse", "HEAD")
    if top is None or commit is None or Path(top).resolve() != root.resolve():
        return None
    patch = git("diff", "HEAD") or ""
    return Git(
        origin=without_credentials(git("remote", "get-url", "origin")),
        commit=commit,
        dirty=bool(patch),
        patch_sha256=hashlib.sha256(patch.encode()).hexdigest() if patch else None,
    )


def without_credentials(url: str | None) -> str | None:
    """An origin without user name and password; a local path is left out altogether."""
    if url is None or "://" not in url:
        return None
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.hostname or ""))
