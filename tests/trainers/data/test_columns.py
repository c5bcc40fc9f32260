"""Further numbers of pairs: from the columns of a file to what a run calls them, and to labels."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainers.backbones.stable_diffusion import StableDiffusion
from trainers.config import TrainConfig
from trainers.core import Trainer
from trainers.data.columns import preferences, require_columns
from trainers.data.index import Index
from trainers.data.pairs import Pairs
from trainers.data.settings import DataSettings
from trainers.data.sources import Rows, make_source
from trainers.errors import UserError
from trainers.objectives import OBJECTIVES, Batch

Row = dict[str, Any]
Write = Callable[[Path, list[Row]], Path]
GAPS = [2.0, -1.0, 0.5, -3.0]
"""score_0 - score_1 of rows whose labels are 1, 1, 0 and 0."""


@pytest.fixture
def scored(tmp_path: Path, rows: list[Row], write_parquet: Write) -> Path:
    """Four pairs with scores and a weight; the second and third are labelled against them."""
    labels = [1.0, 1.0, 0.0, 0.0]
    found = [
        rows[n] | {"label_0": label, "score_0": 10.0 + gap, "score_1": 10.0, "weight": n + 0.5,
                   "votes": 3, "note": "a"}
        for n, (label, gap) in enumerate(zip(labels, GAPS, strict=True))
    ]  # fmt: skip
    return write_parquet(tmp_path / "scored.parquet", found)


def test_what_a_file_says_beside_labels(scored: Path) -> None:
    """Columns of floating-point numbers; neither counts nor texts."""
    opened = make_source(str(scored)).open()
    assert {name: list(v) for name, v in opened.columns.items()} == {
        "score_0": [12.0, 9.0, 10.5, 7.0], "score_1": [10.0] * 4, "weight": [0.5, 1.5, 2.5, 3.5],
    }  # fmt: skip


def test_columns_that_some_files_lack_are_left_out(
    scored: Path, rows: list[Row], write_parquet: Write
) -> None:
    write_parquet(scored.with_name("z.parquet"), [rows[5] | {"weight": 9.0}])
    opened = make_source(str(scored.parent)).open()
    assert {name: len(values) for name, values in opened.columns.items()} == {"weight": 5}


Open = Callable[..., Pairs]


def test_a_run_calls_them_by_winner_and_loser(
    scored: Path, backbone: StableDiffusion, open_pairs: Open, tmp_path: Path
) -> None:
    """Whichever image that is, by label, by swapped label or by score; kept by the index."""
    order = torch.tensor([3, 0, 1, 2])
    given = open_pairs(scored, backbone, tmp_path / "cache")
    found = given.columns(order)
    assert found["weight"].tolist() == [3.5, 0.5, 1.5, 2.5]
    assert found["score_winner"].tolist() == [10, 12, 9, 10]
    assert found["score_loser"].tolist() == [7, 10, 10, 10.5]
    swapped = open_pairs(scored, backbone, tmp_path / "cache", swap_labels=True)
    assert swapped.columns(order)["score_winner"].tolist() == [7, 10, 10, 10.5]
    likelier = open_pairs(scored, backbone, tmp_path / "cache", labels="probability")
    assert likelier.columns(order)["score_winner"].tolist() == [10, 12, 10, 10.5]
    given.index.save(tmp_path / "index.parquet")
    back = Index.load(tmp_path / "index.parquet").columns
    assert {name: list(v) for name, v in back.items()} == {
        name: list(v) for name, v in given.index.columns.items()
    }


@pytest.mark.parametrize("temperature", [1.0, 0.25, -2.0])
def test_labels_by_scores(
    temperature: float, scored: Path, backbone: StableDiffusion, open_pairs: Open, tmp_path: Path
) -> None:
    """sigmoid(gap / temperature) for image 0; the likelier image is the winner of its pair."""
    settings: dict[str, Any] = {"labels": "probability", "temperature": temperature}
    pairs = open_pairs(scored, backbone, tmp_path / "cache", **settings)
    first = [1 / (1 + math.exp(-gap / temperature)) for gap in GAPS]
    rows = torch.arange(4)
    assert pairs.preference(rows).tolist() == pytest.approx([max(p, 1 - p) for p in first])
    images = [pairs.encodings.images(range(4), [int(p < 0.5) for p in first]).mean,
              pairs.encodings.images(range(4), [int(p >= 0.5) for p in first]).mean]  # fmt: skip
    for found, expected in zip(pairs.images(rows), images, strict=True):
        assert torch.equal(found.mean, expected)
    swapped = open_pairs(scored, backbone, tmp_path / "cache", swap_labels=True, **settings)
    torch.testing.assert_close(swapped.preference(rows), pairs.preference(rows))
    assert torch.equal(swapped.images(rows)[0].mean, pairs.images(rows)[1].mean)


def turned(count: int, rows: Any = None, **settings: Any) -> Any:
    """Which of so many pairs, all labelled for image 0, are turned round."""
    places = np.arange(count) if rows is None else np.asarray(rows)
    found = preferences(places, np.ones(len(places)), {}, DataSettings(**settings))
    assert set(found) <= {0.0, 1.0}
    return found == 0


def test_label_noise_turns_that_share_of_pairs() -> None:
    """Drawn of each row, so that neither other rows nor other shares move it."""
    few, many = (turned(20_000, label_noise=share) for share in (0.1, 0.4))
    for found, share in ((few, 0.1), (many, 0.4)):
        spread = math.sqrt(share * (1 - share) / 20_000)
        assert abs(found.mean() - share) < 5 * spread
    assert not (few & ~many).any()
    assert (turned(3, [7, 900, 19_999], label_noise=0.4) == many[[7, 900, 19_999]]).all()
    assert (turned(20_000, label_noise=0.4, seed=1) != many).any()
    assert (turned(20_000, label_noise=0.4, swap_labels=True) == ~many).all()
    assert turned(50, label_noise=1.0).all()
    assert not turned(50).any()


def test_scores_that_are_far_apart(
    rows: list[Row], write_parquet: Write, backbone: StableDiffusion, open_pairs: Open,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Certainty, and no overflow."""
    far = [rows[n] | {"score_0": gap, "score_1": 0.0} for n, gap in ((0, 1e6), (1, -1e6))]
    path = write_parquet(tmp_path / "far.parquet", far)
    pairs = open_pairs(path, backbone, tmp_path / "cache", labels="probability")
    assert pairs.preference(torch.arange(2)).tolist() == [1.0, 1.0]


def test_probabilities_reach_the_loss(
    scored: Path, backbone: StableDiffusion, open_pairs: Open, tmp_path: Path,
    configure: Callable[..., TrainConfig],
) -> None:  # fmt: skip
    """SmPO's gradient has a factor gamma (2 p - 1): at the reference it is that of the pair alone.

    Of one row a step, with gamma 10 and beta 100, against DPO with beta 1000 (2 p - 1).
    """
    data = {"labels": "probability", "temperature": 4.0}
    pairs = open_pairs(scored, backbone, tmp_path / "cache", **data)
    smpo = {"name": "smpo", "gamma": 10.0, "beta": 100.0}
    trainer = Trainer(configure(objective=smpo, data=data, batch_size=1), backbone, pairs)
    row = trainer.stream.at(0, 1).rows
    p = float(pairs.preference(row))
    assert 0.5 < p < 0.8
    weak = {"name": "dpo", "beta": 1000 * (2 * p - 1)}
    certain = open_pairs(scored, backbone, tmp_path / "cache", **data)
    certain._preference = torch.ones(4).double()
    other = Trainer(configure(objective=weak, batch_size=1), backbone, certain)
    assert trainer.advance().grad_norm == pytest.approx(other.advance().grad_norm, rel=1e-4)


class Weighed(OBJECTIVES.get("dpo")):  # type: ignore[misc]
    name = "weighed"
    columns = ("weight", "score_winner")

    def loss(self, batch: Batch) -> torch.Tensor:
        return batch.columns["weight"] * batch.columns["score_winner"] * super().loss(batch)


def test_an_objective_is_shown_what_it_asks_for_and_no_more(
    scored: Path, backbone: StableDiffusion, open_pairs: Open, tmp_path: Path,
    configure: Callable[..., TrainConfig], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pairs = open_pairs(scored, backbone, tmp_path / "cache")
    config = configure(batch_size=4).model_copy(update={"objective": Weighed(beta=100.0)})
    trainer = Trainer(config, backbone, pairs)
    seen: list[Batch] = []
    monkeypatch.setattr(Weighed, "figures", lambda self, batch: seen.append(batch) or {})
    expected = math.log(2) * np.mean([0.5 * 12, 1.5 * 9, 2.5 * 10, 3.5 * 10])
    assert trainer.advance().loss == pytest.approx(expected, rel=1e-5)
    assert {*seen[0].columns} == {"weight", "score_winner"}


def require(rows: Rows, *names: str, **settings: Any) -> None:
    require_columns(rows, np.arange(len(rows)), names, DataSettings(**settings))


def test_what_is_lacking_is_told_at_once(
    scored: Path, rows: list[Row], tmp_path: Path, write_parquet: Write
) -> None:
    opened = make_source(str(scored)).open()
    require(opened, "weight", "score_winner", "score_loser", labels="probability")
    with pytest.raises(UserError, match=r"numbers votes of every pair, and the data have score_0"):
        require(opened, "votes")
    with pytest.raises(UserError, match=r"numbers gap_0, gap_1 of every pair"):
        require(opened, "gap_winner")
    bare = make_source(str(write_parquet(tmp_path / "bare.parquet", rows[:2]))).open()
    with pytest.raises(UserError, match="score_0, score_1 of every pair, and the data have none"):
        require(bare, labels="probability")
    holes = [rows[n] | {"score_0": value, "score_1": 1.0}
             for n, value in enumerate([1.0, None, float("nan"), float("inf")])]  # fmt: skip
    holed = make_source(str(write_parquet(tmp_path / "holed.parquet", holes))).open()
    told = r"holed.parquet row group 0 row 1: expected a finite score_0, got nan, and 2 more"
    with pytest.raises(UserError, match=told):
        require(holed, labels="probability")
    require_columns(holed, np.array([0]), (), DataSettings(labels="probability"))


def test_who_may_ask_for_probabilities(configure: Callable[..., TrainConfig]) -> None:
    """Objectives that know them; and what is off is in no identity."""
    soft = {"labels": "probability", "temperature": 0.1666}
    for name in OBJECTIVES.names():
        if OBJECTIVES.get(name).soft_labels:
            assert configure(objective={"name": name}, data=soft).data.temperature == 0.1666
        else:
            with pytest.raises(ValueError, match=f"'{name}' cannot learn from probabilities"):
                configure(objective={"name": name}, data=soft)
    plain = configure()
    assert configure(data={"labels": "given", "temperature": 1.0}).run_id() == plain.run_id()
    assert configure(data=soft).run_id() != plain.run_id()
    assert configure(data=soft | {"temperature": 0.2}).run_id() != configure(data=soft).run_id()
    for wrong in ({"temperature": 0.5}, soft | {"temperature": 0.0}):
        with pytest.raises(ValueError, match="temperature is of 'labels: probability', and not 0"):
            configure(data=wrong)
