"""The tutorial and the notebook do what they say: every command and every cell is run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TUTORIAL = (ROOT / "docs/tutorial.md").read_text()
NOTEBOOK = ROOT / "docs/notebook.ipynb"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PATIENCE = 1800


def blocks() -> list[tuple[str, str]]:
    """Language and text of each fenced block of the tutorial."""
    return [(found[1], found[2]) for found in BLOCK.finditer(TUTORIAL)]


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """An environment whose commands are those of this Python, and what is installed in a folder."""
    scripts, extra = tmp_path / "bin", tmp_path / "installed"
    scripts.mkdir()
    own = f'"{sys.executable}"'
    # What pip needs is here, and it fetches nothing; what it installs goes into a folder.
    options = f'-q --no-index --no-deps --no-build-isolation --target "{extra}"'
    for name, command in {
        "bench": f"{own} -m bench",
        "python": own,
        "pip": f"shift && {own} -m pip --disable-pip-version-check install {options}",
    }.items():
        (scripts / name).write_text(f'#!/bin/sh\n{command} "$@"\n')
        (scripts / name).chmod(0o755)
    paths = [str(extra), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(paths),
    }


def test_the_installation_is_that_of_the_readme() -> None:
    """Continuous integration runs that one."""
    first = next(text for language, text in blocks() if language == "sh")
    assert first.strip() in (ROOT / "README.md").read_text()


def test_every_command_of_the_tutorial(tmp_path: Path, place: dict[str, str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for language, text in blocks():
        if language == "sh":
            for line in text.splitlines():
                if not line.startswith("python3 -m venv"):
                    told = shell(line, work, place)
                    assert "Traceback" not in told, line
        else:
            name = text.partition("\n")[0].removeprefix("# ")
            (work / name).parent.mkdir(exist_ok=True)
            (work / name).write_text(text)
    assert "my-loss" in shell("bench list objectives --json", work, place)
    page = (work / "runs/my-loss/report.html").read_text()
    assert "Does the exponential loss beat DPO?" in page
    assert "mine - DPO" in page


def shell(line: str, folder: Path, environment: dict[str, str]) -> str:
    done = subprocess.run(
        ["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    cells = [c for c in json.loads(NOTEBOOK.read_text())["cells"] if c["cell_type"] == "code"]
    # A notebook's module has no file either: workers do not import it.
    code = "\n".join("".join(cell["source"]) for cell in cells)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True,
        text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "IPO - base" in (tmp_path / "report.html").read_text()


def test_the_notebook_holds_no_outputs() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None
