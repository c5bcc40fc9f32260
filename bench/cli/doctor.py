"""Is this installation fit for work? What is known to break, with the mend."""

import importlib
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

from bench.assets import differing, mini_folder
from bench.results.manifest import PACKAGES
from bench.terminal import Column, print_json, print_table
from trainers.errors import UserError


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    good: bool
    found: str
    mend: str = ""


def examine() -> list[Finding]:
    """Look at packages, shipped files and torchvision."""
    return [*(_package(name) for name in PACKAGES), _torchvision(), _shipped()]


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, "not installed", "pip install -c constraints.txt dpo-bench")


def _torchvision() -> Finding:
    """A torchvision that does not match torch breaks transformers with misleading messages."""
    try:
        found = version("torchvision")
    except PackageNotFoundError:
        return Finding("torchvision", True, "not installed, not needed")
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError, OSError) as error:
        mend = "pip uninstall torchvision, or install the release that matches torch"
        return Finding("torchvision", False, f"{found} does not import: {error}", mend)
    return Finding("torchvision", True, found)


def _shipped() -> Finding:
    """Shipped files against the hashes recorded when they were made."""
    try:
        wrong = differing(mini_folder())
    except UserError as error:
        return Finding("shipped files", False, str(error), "install the package again")
    if wrong:
        return Finding("shipped files", False, f"{wrong[0]} changed", "install the package again")
    return Finding("shipped files", True, "as recorded")


def print_findings(findings: list[Finding], as_json: bool) -> None:
    """Print what :func:`examine` found."""
    if as_json:
        print_json([asdict(finding) for finding in findings])
        return
    columns = (Column("state"), Column("what"), Column("found", prose=True),
               Column("mend", prose=True))  # fmt: skip
    rows = [("ok" if f.good else "bad", f.what, f.found, f.mend) for f in findings]
    print_table(columns, rows, styles=[None if f.good else "red" for f in findings])
