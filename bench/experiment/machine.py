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
    return Machine(
        python=platform.python_version(),
        system=platform.system(),
        machine=platform.machine(),
        cores=os.cpu_count(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads_per_worker=1,
        cuda=torch.version.cuda if torch.cuda.is_available() else None,
    )


def git_state(folder: Path) -> Git | None:
    """The checkout that a folder lies in; None outside git."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False
            )
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None:
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
