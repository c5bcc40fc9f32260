"""Settings: what is no number, what is no plain value, and how a fault is told."""

import pkgutil
from collections.abc import Iterator
from datetime import date
from importlib import import_module
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

import bench
import trainers
from trainers.errors import UserError
from trainers.input.checked import Checked, check, key_text, listed, refuse_odd, shown


class Inner(Checked):
    size: int = 1


class Outer(Checked):
    count: int = Field(1, ge=1)
    rate: float = 0.5
    share: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | None = None
    seeds: tuple[int, ...] = ()
    costs: dict[str, float] = Field(default_factory=dict)
    mode: Literal["all"] | int = "all"
    on: bool = False
    inner: Inner = Inner()
    parts: tuple[str | Inner, ...] = ()


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"count": True}, "count"),
        ({"rate": False}, "rate"),
        ({"share": True}, "share"),
        ({"seeds": [1, True]}, r"seeds\.1"),
        ({"costs": {"a": True}}, r"costs\.a"),
        ({"mode": True}, "mode"),
        ({"inner": {"size": True}}, r"inner\.size"),
        ({"parts": ["a", {"size": True}]}, r"parts\.1"),
    ],
)
def test_a_boolean_is_no_number(values: dict[str, Any], where: str) -> None:
    with pytest.raises(UserError, match=rf"^x: (.*; )?{where}.*: Input should be a number \(got"):
        check(Outer, values, "x: ")


@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), 10**400, -(10**400), 2**63, "nan"],
    ids=lambda v: str(v)[:5],
)
def test_a_number_is_finite_and_fits_into_64_bits(value: object) -> None:
    for key in ("rate", "count"):
        with pytest.raises(UserError, match=f"^{key}: "):
            check(Outer, {key: value})


def test_what_is_a_number_stays_what_it_is() -> None:
    made = check(Outer, {"on": True, "share": 1, "rate": "1e-5", "mode": 3, "seeds": [2**63 - 1]})
    assert made.on is True and type(made.share) is int and made.rate == 1e-5 and made.mode == 3
    assert type(check(Outer, {"share": 1.0}).share) is float


def _models() -> Iterator[type[BaseModel]]:
    for package in (bench, trainers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "__main__" not in module.name and "mini.build" not in module.name:
                for found in vars(import_module(module.name)).values():
                    if isinstance(found, type) and issubclass(found, BaseModel):
                        yield found


def test_every_model_of_the_project_is_checked() -> None:
    ours = {m for m in _models() if m.__module__.startswith(("bench.", "trainers."))}
    assert len(ours) > 30
    assert [m for m in ours if not issubclass(m, Checked)] == []
    for model in ours:
        config = model.model_config
        assert (config["frozen"], config["extra"], config["allow_inf_nan"]) == (
            True, "forbid", False,
        )  # fmt: skip


def test_a_fault_is_told_without_what_surrounds_it() -> None:
    class Needed(Checked):
        steps: int
        inner: Inner = Inner()

    secret = {"token": "secret"} | {f"k{n}": "secret" for n in range(50)}
    with pytest.raises(UserError) as caught:
        check(Needed, secret, "here: ", "train.")
    assert str(caught.value).startswith("here: train.steps: Field required; train.token: unknown")
    assert "secret" not in str(caught.value) and "; and 44 more" in str(caught.value)
    with pytest.raises(UserError, match=r"^inner: .*\(got a list of 1\)$"):
        check(Needed, {"steps": 1, "inner": ["secret"]})
    with pytest.raises(UserError, match=r"^steps: .*\(got 'x{56}\.\.\.\)$"):
        check(Needed, {"steps": "x" * 100})


def test_a_near_key_is_named_in_its_place() -> None:
    with pytest.raises(UserError, match=r"train\.cuont: unknown key.*did you mean train\.count\?"):
        check(Outer, {"cuont": 3}, above="train.")
    with pytest.raises(UserError, match=r"inner\.siez: unknown .*did you mean inner\.size\?"):
        check(Outer, {"inner": {"siez": 3}})
    with pytest.raises(UserError) as caught:
        check(Outer, {"zzz": 3})
    assert "did you mean" not in str(caught.value)


ODD: list[object] = [
    float("nan"), float("inf"), 2**63, 16**5000, date(2020, 1, 1), b"x", {1, 2}, "a\0", "\x1b[31m",
    "\ud800", {1: 2}, {None: 1}, {True: 1}, {"a\nb": 1}, {"k" * 201: 1},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(ODD)))
def test_what_is_no_plain_value_is_refused(number: int) -> None:
    value = ODD[number]
    for wrapped in (value, [value], {"a": {"b": (value,)}}):
        with pytest.raises(UserError) as caught:
            refuse_odd(wrapped, "x")
        assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_plain_values_pass() -> None:
    refuse_odd({"a": [1, -(2**62), 0.5, "caf\u00e9\n", True, None, {}], "b c": ()}, "x")


def test_what_is_shown_is_short_and_printable() -> None:
    values = ["x" * 10**6, 16**5000, {"a": "secret"}, ["secret"] * 3, "\x1b[31m", b"\0" * 999, None]
    for value in values:
        text = shown(value)
        assert len(text) <= 60 and text.isprintable() and "secret" not in text
    assert key_text("a" * 50) == "a" * 40 + "..."
    assert key_text("a\nb") == r"'a\nb'"
    assert listed(map(str, range(25))).endswith("18, 19, 5 more")
