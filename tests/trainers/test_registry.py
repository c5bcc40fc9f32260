"""Names to plug-ins, with real entry points of a package installed for the test."""

import sys
from pathlib import Path
from typing import Any

import pytest

from trainers.backbones import BACKBONES
from trainers.errors import UserError
from trainers.files import sha256_text
from trainers.noising import NOISINGS
from trainers.objectives import OBJECTIVES
from trainers.objectives.dpo import DPO
from trainers.references import REFERENCES
from trainers.registry import Registry, Settings, build
from trainers.safeguards import SAFEGUARDS
from trainers.timesteps import LAWS, SCALES

SOURCE = """
from typing import ClassVar
from pydantic import Field
from trainers.objectives.dpo import DPO

class Hinge(DPO):
    name: ClassVar[str] = "hinge"
    width: float = Field(1.0, gt=0)
"""

SLOTS: list[Registry[type[Any]]] = [
    OBJECTIVES, SAFEGUARDS, NOISINGS, REFERENCES, LAWS, SCALES
]  # fmt: skip


def install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str, entries: dict[str, str]
) -> None:
    """Lay out a package as pip would, with entry points into ``dpo_bench.objectives``."""
    (folder / f"{package}.py").write_text(SOURCE)
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = [f"{name} = {value}" for name, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[dpo_bench.objectives]", *lines, ""]))
    if str(folder) not in sys.path:
        monkeypatch.syspath_prepend(folder)


def objectives() -> Registry[type[Settings]]:
    """A registry that has loaded nothing yet."""
    return Registry("objective", "dpo_bench.objectives", {"dpo": "trainers.objectives.dpo:DPO"})


def test_builtin() -> None:
    """The very class of the module."""
    assert objectives().get("dpo") is DPO


def test_nothing_is_imported_before_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listing names imports no plug-in, and asking for one imports that one only."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lazy_one.py").write_text("thing = object()")
    (tmp_path / "lazy_two.py").write_text("raise ImportError('a missing dependency')")
    registry: Registry[object] = Registry(
        "thing", "dpo_bench.none", {"one": "lazy_one:thing", "two": "lazy_two:thing"}
    )
    assert registry.names() == ["one", "two"]
    assert "lazy_one" not in sys.modules
    first = registry.get("one")
    assert first is sys.modules["lazy_one"].thing
    with pytest.raises(ImportError, match="a missing dependency"):
        registry.get("two")


def test_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of another package, listed after the built-in ones, takes its settings."""
    install(tmp_path, monkeypatch, "hinge_loss", {"hinge": "hinge_loss:Hinge"})
    registry = objectives()
    assert registry.names() == ["dpo", "hinge"]
    assert "hinge_loss" not in sys.modules
    made = build(registry, {"name": "hinge", "width": 3})
    source = sha256_text(SOURCE)
    assert made.resolved() == {"name": "hinge", "beta": 5000.0, "width": 3.0, "source": source}


def test_a_version_enters_what_is_hashed_unless_it_is_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a plug-in whose code changed keeps no old results, and the first keeps its own."""
    before = DPO().resolved()
    assert before == {"name": "dpo", "beta": 5000.0}
    monkeypatch.setattr(DPO, "version", 2)
    assert DPO().resolved() == {**before, "version": 2}


def test_a_class_without_a_file_cannot_be_told_apart() -> None:
    typed: dict[str, Any] = {"__name__": "typed_in", "DPO": DPO}
    exec("class Typed(DPO):\n    pass", typed)
    with pytest.raises(UserError, match=r"^Typed: expected a class of a module"):
        typed["Typed"]().resolved()


def test_a_class_that_calls_itself_otherwise_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs are told apart by the class's own name: two of one name would share their results."""
    install(tmp_path, monkeypatch, "alias_pkg", {"squared-hinge": "alias_pkg:Hinge"})
    with pytest.raises(UserError, match=r"'squared-hinge' is registered .* calls itself 'hinge'"):
        objectives().get("squared-hinge")


@pytest.mark.parametrize(
    "entries", [{"dpo": "first_pkg:Hinge"}, {"hinge": "first_pkg:Hinge", "DPO": "first_pkg:Hinge"}]
)
def test_collisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: dict[str, str]
) -> None:
    """A name of a built-in entry, or of two packages, is an error: neither may win silently."""
    install(tmp_path, monkeypatch, "first_pkg", entries)
    install(tmp_path, monkeypatch, "second_pkg", {"hinge": "second_pkg:Hinge"})
    with pytest.raises(UserError, match=r"registered twice, the second time by '\w+_pkg:Hinge'"):
        objectives().names()


@pytest.mark.parametrize("value", ["torn_pkg:Absent", "torn_pkg_of_old:Hinge"])
def test_a_package_that_does_not_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """Its author's mistake is told in one line; built-in names work on."""
    install(tmp_path, monkeypatch, "torn_pkg", {"torn": value})
    registry = objectives()
    with pytest.raises(UserError, match=f"objective 'torn' of torn_pkg: expected '{value}' to"):
        registry.get("torn")
    assert registry.get("dpo") is DPO


def test_unknown_name_with_a_near_miss() -> None:
    """What was asked for, what was probably meant, what there is."""
    with pytest.raises(UserError) as caught:
        build(OBJECTIVES, {"name": "dpoo"})
    text = str(caught.value)
    assert "unknown objective 'dpoo'" in text
    assert "did you mean 'dpo'?" in text
    assert "sft" in text


def test_unknown_name_without_a_near_miss() -> None:
    """No guess is better than a wrong one."""
    with pytest.raises(UserError, match="known are") as caught:
        build(REFERENCES, {"name": "zzzz"})
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize("settings", [{}, {"beta": 1.0}, {"name": None}, {"name": 3}])
def test_missing_name(settings: dict[str, object]) -> None:
    """The message says how to give one, and which there are."""
    with pytest.raises(UserError, match=r"expected a objective with a name|expected an objective"):
        build(OBJECTIVES, settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bta": 1.0}, "objective 'dpo': bta: unknown key"),
        ({"beta": 0}, r"objective 'dpo': beta: .*greater than 0 \(got 0\)"),
        ({"beta": float("inf")}, "objective 'dpo': beta: .*finite"),
        ({"beta": "x", "bta": 1}, "beta: .*bta: unknown key"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    """Every mistake at once, each with its field."""
    with pytest.raises(UserError, match=message):
        build(OBJECTIVES, {"name": "dpo", **settings})


def test_building_leaves_the_description_alone() -> None:
    """One description may make many plug-ins."""
    settings = {"name": "dpo", "beta": 3.0}
    assert build(OBJECTIVES, settings) == build(OBJECTIVES, settings)
    assert settings == {"name": "dpo", "beta": 3.0}


@pytest.mark.parametrize(
    ("registry", "name"),
    [(r, n) for r in SLOTS for n in r.names()],
    ids=lambda v: v if isinstance(v, str) else v.kind,
)
def test_every_plug_in_is_described_by_its_name_and_settings(
    registry: Registry[type[Any]], name: str
) -> None:
    """What run identity hashes makes the same plug-in again, under the name it was found by."""
    plugin = build(registry, {"name": name})
    assert plugin.resolved()["name"] == name
    assert build(registry, plugin.resolved()) == plugin
    with pytest.raises(UserError, match="nonsense: unknown key"):
        build(registry, {"name": name, "nonsense": 1})


def test_every_backbone_is_found_under_its_name() -> None:
    """A backbone is a class with a name, made from a folder."""
    assert all(BACKBONES.get(name).name == name for name in BACKBONES.names())
