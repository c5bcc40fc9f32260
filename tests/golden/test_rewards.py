"""Shipped rewards give the numbers that they gave when their weights were made."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bench.cli import run
from bench.cli.catalogue import catalogue, markdown


def _load() -> ModuleType:
    path = Path(__file__).with_name("regenerate.py")
    spec = importlib.util.spec_from_file_location("regenerate", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


regenerate = _load()
MEND = "if that is meant, run: python tests/golden/regenerate.py"
GOLDEN = json.loads(regenerate.SCORES.read_text())


def test_every_shipped_reward_has_golden_scores() -> None:
    assert list(GOLDEN) == regenerate.shipped(), MEND


@pytest.mark.parametrize("name", GOLDEN)
def test_scores_are_the_golden_ones(name: str) -> None:
    np.testing.assert_allclose(
        regenerate.score(name), GOLDEN[name], rtol=1e-4, atol=1e-4, err_msg=MEND
    )


def test_the_table_in_the_docs_is_that_of_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Rewards of other packages that happen to be installed are not the docs' concern.
    monkeypatch.setattr("trainers.registry._entry_points", lambda: ([], {}))
    assert run(["list", "rewards", "--markdown"]) == 0
    shown = capsys.readouterr().out.strip()
    assert shown == markdown(catalogue("rewards")["rewards"])
    assert regenerate.split_page(regenerate.PAGE.read_text())[1] == shown, MEND
