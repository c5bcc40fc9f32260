"""Provenance: what was run, on what, with what."""

import hashlib
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import bench
from bench.experiment.prepare import Experiment
from bench.stages.store import Store

SCHEMA = 1
PACKAGES = ("torch", "diffusers", "transformers", "tokenizers", "safetensors", "numpy", "scipy",
            "pandas", "pyarrow", "pillow", "pydantic")  # fmt: skip


def make_manifest(experiment: Experiment, store: Store) -> dict[str, Any]:
    """Everything needed to say where numbers came from, as JSON-able data."""
    return {
        "schema": SCHEMA,
        "bench": bench.__version__,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["bench", *sys.argv[1:]],
        "spec": experiment.spec.model_dump(mode="json"),
        "runs": _runs(experiment),
        "inputs": _inputs(experiment),
        "rewards": experiment.cards,
        "stages": _stages(experiment, store),
        "git": git_state(Path(__file__).parent),
        "packages": {name: _version(name) for name in PACKAGES},
        "machine": machine(),
    }


def _runs(experiment: Experiment) -> list[dict[str, Any]]:
    return [
        {"arm": a.name, "seed": s, "run_id": c.run_id(), "config": c.model_dump(mode="json")}
        for a in experiment.matrix.arms
        for s, c in a.configs.items()
    ]


def _inputs(experiment: Experiment) -> dict[str, Any]:
    base = experiment.sets[0].images
    prompts = experiment.prompts
    return {
        "base": {"name": experiment.spec.base, "sha256": base.base_sha256},
        "pairs": {"name": experiment.spec.data, "kept": experiment.pairs, "ties": experiment.ties},
        "prompts": {
            "name": prompts.name,
            "sha256": prompts.sha256,
            "n": len(prompts.items),
            "repeated": prompts.repeated,
        },
    }


def _stages(experiment: Experiment, store: Store) -> list[dict[str, Any]]:
    rows = []
    for stage in experiment.stages():
        status = stage.done(store)
        rows.append(
            {
                "kind": stage.kind,
                "label": stage.label,
                "id": stage.id,
                "state": "done" if status else "missing",
                "digest": status.digest if status else None,
                "seconds": status.seconds if status else None,
            }
        )
    return rows


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine() -> dict[str, Any]:
    """Hardware and settings on which the last bits of a result depend."""
    import torch

    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads_per_worker": 1,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Origin without credentials, commit, and the hash of uncommitted changes; None outside git."""

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
    return {
        "origin": without_credentials(git("remote", "get-url", "origin")),
        "commit": commit,
        "dirty": bool(patch),
        "patch_sha256": hashlib.sha256(patch.encode()).hexdigest() if patch else None,
    }


def without_credentials(url: str | None) -> str | None:
    """An origin without user name and password; a local path is left out altogether."""
    if url is None or "://" not in url:
        return None
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.hostname or ""))
