"""Which rows become pairs: labels, ties, selections, and what enters the identity of the data."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainers.config import TrainConfig
from trainers.data.select import normalise, select
from trainers.data.settings import DataSettings
from trainers.data.sources import Rows, make_source
from trainers.errors import UserError

Row = dict[str, Any]
Write = Callable[[Path, list[Row]], Path]


def row(caption: str, label: float | None) -> Row:
    """A row whose images are named rather than drawn."""
    return {"caption": caption, "jpg_0": b"zero", "jpg_1": b"one", "label_0": label}


def chosen(rows: Rows, **settings: Any) -> list[int]:
    return select(rows, DataSettings(**settings)).rows.tolist()


def test_ties_are_dropped_and_counted(tmp_path: Path, write_parquet: Write) -> None:
    """1: image 0 is preferred; 0: image 1; 0.5: a tie. The others keep the order of the file."""
    raw = [row("a", 1.0), row("b", 0.5), row("c", 0.0), row("d", 1.0), row("e", 0.5)]
    rows = make_source(str(write_parquet(tmp_path / "p.parquet", raw))).open()
    found = select(rows, DataSettings())
    assert found.rows.tolist() == [0, 2, 3]
    assert (found.ties, found.unlabelled) == (2, 0)
    assert rows.labels[found.rows].tolist() == [1, 0, 1]
    assert rows.images(2) == (b"zero", b"one")
    soft = select(rows, DataSettings(ties="soft"))
    assert (soft.rows.tolist(), soft.ties) == ([0, 1, 2, 3, 4], 0)


def test_integer_labels(tmp_path: Path, write_parquet: Write) -> None:
    """A set without ties may store 0 and 1 as integers."""
    path = write_parquet(tmp_path / "p.parquet", [row("a", 1), row("b", 0)])
    assert make_source(str(path)).open().labels.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("label", [0.3, -1.0, 2.0, float("nan"), None])
def test_an_illegal_label_is_refused(
    tmp_path: Path, write_parquet: Write, label: float | None
) -> None:
    """With its place and what stood there: a guess would teach the wrong preference."""
    path = write_parquet(tmp_path / "p.parquet", [row("a", 1.0), row("b", label), row("c", label)])
    rows = make_source(str(path)).open()
    got = "null or NaN" if label is None or label != label else f"{label:g}"
    pattern = rf"p.parquet row group 0 row 1: label_0 must be 0, 0.5 or 1, got {got}, and 1 more"
    with pytest.raises(UserError, match=pattern):
        select(rows, DataSettings())


def test_labels_that_contradict_are_refused(tmp_path: Path, write_parquet: Write) -> None:
    """label_0 and label_1 add up to 1; one of them is wrong otherwise."""
    raw = [row("a", 1.0) | {"label_1": 0.0}, row("b", 1.0) | {"label_1": 1.0}]
    rows = make_source(str(write_parquet(tmp_path / "p.parquet", raw))).open()
    with pytest.raises(UserError, match=r"row 1: .* got a label_1 that is not 1 - label_0:"):
        select(rows, DataSettings())


def test_rows_that_nobody_judged_are_dropped(tmp_path: Path, write_parquet: Write) -> None:
    """has_label false, whatever the label says."""
    raw = [row("a", 1.0) | {"has_label": True}, row("b", None) | {"has_label": False}]
    raw += [row("c", 0.0) | {"has_label": False}]
    found = select(
        make_source(str(write_parquet(tmp_path / "p.parquet", raw))).open(), DataSettings()
    )
    assert (found.rows.tolist(), found.unlabelled, found.ties) == ([0], 2, 0)


def test_ties_alone_are_refused(tmp_path: Path, write_parquet: Write) -> None:
    """There is nothing to learn from them, unless they are kept."""
    path = write_parquet(tmp_path / "p.parquet", [row("a", 0.5), row("b", 0.5)])
    rows = make_source(str(path)).open()
    with pytest.raises(UserError, match="of 2 rows, 2 are ties"):
        select(rows, DataSettings())
    assert chosen(rows, ties="soft") == [0, 1]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, write_parquet: Write) -> Rows:
    """200 rows of 40 prompts, of which every fifth row is a tie."""
    raw = [row(f"Prompt {i % 40}", 0.5 if i % 5 == 0 else 1.0) for i in range(200)]
    path = tmp_path_factory.mktemp("many") / "p.parquet"
    return make_source(str(write_parquet(path, raw))).open()


def test_pairs_of_a_prompt(many: Rows) -> None:
    """At most two of the five or, where all of them are ties, none; another seed, other pairs."""
    kept = chosen(many, per_prompt=2)
    counts = Counter(i % 40 for i in kept)
    assert set(counts.values()) == {2}
    assert sorted(counts) == [p for p in range(40) if p % 5]
    assert kept == sorted(kept)
    assert kept == chosen(many, per_prompt=2) != chosen(many, per_prompt=2, seed=1)
    assert set(kept) < set(chosen(many, per_prompt=3))


def test_subsets_are_nested_and_random(many: Rows) -> None:
    """By number or share of the 160 pairs; a smaller one is part of a larger one."""
    some, more = chosen(many, subset=10), chosen(many, subset=0.5)
    assert (len(some), len(more)) == (10, 80)
    assert set(some) < set(more) < set(chosen(many))
    assert some == sorted(some) != chosen(many)[:10]
    assert some != chosen(many, subset=10, seed=1)
    with pytest.raises(UserError, match="161 pairs are wanted, but there are 160"):
        chosen(many, subset=161)


def test_a_draw_belongs_to_a_row(many: Rows) -> None:
    """Keeping ties changes which rows there are, not how those that were there compare."""
    with_ties = [i for i in chosen(many, ties="soft", subset=200) if i % 5]
    assert with_ties == chosen(many)
    soft = [i for i in chosen(many, ties="soft", subset=50) if i % 5]
    hard = chosen(many, subset=len(soft))
    assert soft == hard


def test_prompts_without_their_spelling(tmp_path: Path, write_parquet: Write) -> None:
    """Case, white space and Unicode form: a full-width letter is the letter."""
    assert normalise("  A\tRed  \uff26ox\n") == "a red fox"
    raw = [row(c, 1.0) for c in ("a fox", "A  fox ", "a \uff26ox", "an owl")]
    rows = make_source(str(write_parquet(tmp_path / "p.parquet", raw))).open()
    kept = chosen(rows, dedup_prompts=True)
    assert len(kept) == 2
    assert kept[1] == 3
    assert chosen(rows, per_prompt=1) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dedup_prompts": True, "per_prompt": 2}, "leave per_prompt out"),
        ({"independent_flip": True}, "needs a flip probability"),
        ({"crop": "random"}, "needs a resolution"),
        ({"resolution": 500}, "multiple of 8"),
        ({"subset": 1.5}, "less than or equal to 1"),
        ({"shuffle": True}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataSettings(**settings)


def test_soft_ties_need_an_objective_that_knows_them(
    configure: Callable[..., TrainConfig],
) -> None:
    """Refused with the configuration, before anything starts."""
    assert configure(data={"ties": "soft"}).data.ties == "soft"
    with pytest.raises(ValueError, match="objective 'sft' cannot learn from ties"):
        configure(data={"ties": "soft"}, objective={"name": "sft"})


def test_a_setting_that_is_true_and_one_that_is_one_are_not_confused() -> None:
    """A subset of 1 is one pair, of 1.0 all: their kinds tell, in JSON as well."""
    one, whole = DataSettings(subset=1), DataSettings(subset=1.0)
    assert (one.model_dump(mode="json")["subset"], type(whole.subset)) == (1, float)
    assert isinstance(one.subset, int)
