"""The environment of the published packages, without installing them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.official import build as module
from bench.official.build import REQUIREMENTS, build, commands, default_folder, finished, python_of
from bench.official.client import versions
from trainers.errors import UserError

FOUND = {"hpsv2": "1.2.0", "image-reward": "1.5"}


def quietly(_: str) -> None:
    """Say nothing."""


def test_torch_is_installed_alone_and_first_in_the_release_that_is_required(tmp_path):
    venv, first, rest = commands(tmp_path)
    assert venv == [sys.executable, "-m", "venv", "--clear", str(tmp_path)]
    (pin,) = [line for line in REQUIREMENTS.read_text().splitlines() if line.startswith("torch==")]
    assert first[:4] == [str(python_of(tmp_path)), "-m", "pip", "install"]
    assert first[-1] == pin
    assert rest[-2:] == ["-r", str(REQUIREMENTS)]


def test_every_requirement_is_pinned_or_bounded():
    lines = [line.split("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines()]
    assert all("==" in line or "<" in line for line in lines if line)


def test_the_default_folder_follows_the_home_of_the_project(tmp_path, monkeypatch):
    monkeypatch.setenv("DPO_BENCH_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "official"
    monkeypatch.delenv("DPO_BENCH_HOME")
    assert default_folder() == Path.home() / ".cache/dpo-bench/official"


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="name another folder"):
        build(tmp_path, quietly)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_failed_command_is_named_with_its_last_words(tmp_path, monkeypatch):
    fails = [sys.executable, "-c", "print('no such wheel'); raise SystemExit(3)"]
    monkeypatch.setattr(module, "commands", lambda out: [fails])
    with pytest.raises(UserError, match=r"(?s)failed at: .*SystemExit.*no such wheel.*build again"):
        build(tmp_path / "new", quietly)
    assert not finished(tmp_path / "new")


def test_a_command_that_does_not_start_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "commands", lambda out: [[str(tmp_path / "python"), "-V"]])
    with pytest.raises(UserError, match="does not start"):
        build(tmp_path / "new", quietly)


@pytest.fixture
def imitation(tmp_path, monkeypatch) -> Path:
    """Lets build() make an environment of empty packages and a worker that reports versions."""
    worker = tmp_path / "worker.py"
    worker.write_text(f"print('noise')\nprint('''{json.dumps(FOUND)}''')\n")
    monkeypatch.setattr(module, "WORKER", worker)
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("torch==1\n")
    monkeypatch.setattr(module, "REQUIREMENTS", requirements)
    install = (
        "import sysconfig, pathlib\n"
        "packages = pathlib.Path(sysconfig.get_path('purelib'))\n"
        "for name in ('open_clip', 'hpsv2/src/open_clip'):\n"
        "    (packages / name).mkdir(parents=True)\n"
        f"(packages / 'open_clip/{module.VOCABULARY}').write_bytes(b'merges')\n"
    )
    monkeypatch.setattr(
        module,
        "commands",
        lambda out: [
            [sys.executable, "-m", "venv", "--clear", "--without-pip", str(out)],
            [str(python_of(out)), "-c", install],
        ],
    )
    return requirements


def test_a_finished_environment_holds_the_vocabulary_and_is_kept(tmp_path, imitation):
    out, said = tmp_path / "official", []
    build(out, said.append)
    assert said[-1] == f"{out} is ready: hpsv2 1.2.0, image-reward 1.5"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    told = subprocess.run(
        [str(python_of(out)), "-c", where], capture_output=True, text=True, check=True
    )
    vocabulary = Path(told.stdout.strip()) / "hpsv2/src/open_clip" / module.VOCABULARY
    assert vocabulary.read_bytes() == b"merges"
    (out / "mark").touch()
    build(out, said.append)
    assert said[-1] == f"{out} is up to date"
    assert (out / "mark").exists()


def test_other_requirements_replace_the_environment(tmp_path, imitation):
    out = tmp_path / "official"
    build(out, quietly)
    (out / "mark").touch()
    imitation.write_text("torch==2\n")
    assert not finished(out)
    build(out, quietly)
    assert finished(out)
    assert not (out / "mark").exists()


def test_packages_that_do_not_import_leave_the_environment_unfinished(tmp_path, imitation):
    out = tmp_path / "official"
    module.WORKER.write_text("import a_package_that_is_missing")
    with pytest.raises(UserError, match="No module named 'a_package_that_is_missing'"):
        build(out, quietly)
    assert not finished(out)


@pytest.mark.parametrize("place", range(3, 180, 11))
def test_a_stamp_that_was_changed_is_none(tmp_path, imitation, capfd, place):
    """The packages are asked, and the environment is built again."""
    out = tmp_path / "official"
    build(out, quietly)
    stamp = bytearray((out / module.STAMP).read_bytes())
    stamp[place % len(stamp)] ^= 1
    (out / module.STAMP).write_bytes(stamp)
    capfd.readouterr()
    assert not finished(out)
    assert capfd.readouterr().err.endswith(f"not what was written there: {out} is looked at anew\n")
    assert versions(out) == FOUND
