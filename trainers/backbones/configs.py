"""Configs of a model's parts: settings of classes that are known here, and of their types."""

import inspect
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from trainers.errors import UserError
from trainers.input.tensors import Shape
from trainers.input.text import read_json

LARGEST = 10**7
"""No integer of a config is larger: such a side alone would take 40 MB a row."""
MOST = 200
"""Layers, and blocks, of a model: the largest published ones have some 40."""
SIDES = (
    "vocab_size", "hidden_size", "intermediate_size", "max_position_embeddings", "d_model", "d_ff",
)  # fmt: skip
"""Settings of models of transformers that are sides of their tensors."""
COUNTS = ("num_hidden_layers", "num_layers")
"""Those that count their layers."""
LAYER = re.compile(r"(?:layers|block)\.(\d+)\.")
CODE = ("auto_map", "custom_pipelines", "quantization_config")
"""What would import a module that the folder names, or another package."""
SHOWN = 80
"""Characters of a value that a message shows."""


def read_settings(path: Path, finite: bool = True) -> dict[str, Any]:
    """The settings in a JSON file of a model's folder.

    Args:
        path: The file.
        finite: Whether every number must be; diffusers writes -Infinity into some schedulers'.

    Raises:
        UserError: If it is missing, holds no settings, or names code of its own.
    """
    if not path.exists():
        raise UserError(
            f"expected a model in the diffusers layout, but there is no {path}: give a folder "
            "written by save_pretrained"
        )
    config = read_json(path, finite)
    if not isinstance(config, dict):
        raise UserError(
            f"{path}: expected an object of settings, got a {type(config).__name__}: give a folder "
            "written by save_pretrained"
        )
    if code := [key for key in CODE if config.get(key)]:
        raise UserError(
            f"{path}: expected the settings of a known class, got {code[0]}, which names code to "
            "import: remove it, or give a model without it"
        )
    return config


def read_config(path: Path, finite: bool = True) -> dict[str, Any]:
    """The settings of a part of a model: as :func:`read_settings`, and of a size that can be.

    Raises:
        UserError: As there, or if a number is absurd.
    """
    config = read_settings(path, finite)
    for key, value in config.items():
        _expect_bounded(path, key, value)
    return config


def _expect_bounded(path: Path, key: str, value: Any) -> None:
    if isinstance(value, dict):
        for inner, part in value.items():
            _expect_bounded(path, inner, part)
        return
    counts = "layers" in key or key.endswith("block_types")
    most = MOST if counts else LARGEST
    leaves = list(_leaves(value))
    if counts and len(leaves) > MOST:
        raise UserError(f"{path}: {key}: expected at most {MOST} entries, got {len(leaves)}")
    for leaf in leaves:
        if isinstance(leaf, int) and not -1 <= leaf <= most:
            raise UserError(f"{path}: {key}: expected at most {most}, got {shown(leaf)}")


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for part in value:
            yield from _leaves(part)
    elif isinstance(value, dict):
        for part in value.values():
            yield from _leaves(part)
    else:
        yield value


def defaults(kind: Any) -> dict[str, Any]:
    """What a class of diffusers takes for settings that a config lacks."""
    return {key: default for key, (_, _, default) in _settings(kind).items()}


def expect_class(path: Path, config: Mapping[str, Any], kind: Any) -> None:
    """Refuse the settings of another class than ``kind`` of diffusers, or of other types.

    Raises:
        UserError: If one is not what the signature of the class says.
    """
    if (name := config.get("_class_name", kind.__name__)) != kind.__name__:
        raise UserError(f"{path}: expected the settings of a {kind.__name__}, got {shown(name)}")
    for key, (types, choices, default) in _settings(kind).items():
        value = config.get(key, default)
        if value is None and (default is None or NoneType in types):
            continue
        for leaf in _leaves(value):
            if choices and leaf not in choices:
                wanted = f"one of {', '.join(sorted(map(str, choices)))}"
            elif types - {NoneType} and not _fits(leaf, types, default):
                wanted = " or ".join(sorted(t.__name__ for t in types - {NoneType}))
            else:
                continue
            raise UserError(
                f"{path}: {key}: expected {wanted}, got {shown(leaf)}: take the file from the "
                "model's repository again"
            )


def _fits(value: Any, types: frozenset[type], default: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return type(value) in types
    numeric = float in types or (int in types and isinstance(value, int))
    return numeric and (value == default or isfinite(value))


@lru_cache
def _settings(kind: Any) -> dict[str, tuple[frozenset[type], frozenset[Any], Any]]:
    """Types, choices and default of each setting of a class of diffusers."""
    hints = get_type_hints(kind.__init__)
    parameters = inspect.signature(kind.__init__).parameters
    return {
        key: (*_types(hints[key]), parameters[key].default) for key in hints if key in parameters
    }


def _types(hint: Any) -> tuple[frozenset[type], frozenset[Any]]:
    if get_origin(hint) is Literal:
        return frozenset(), frozenset(get_args(hint))
    if hint in (int, float, str, bool, NoneType):
        return frozenset({hint}), frozenset()
    parts = [_types(part) for part in get_args(hint)]
    return (
        frozenset().union(*(types for types, _ in parts)),
        frozenset().union(*(choices for _, choices in parts)),
    )


def expect_sizes(path: Path, config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> None:
    """Refuse settings of a model of transformers that its tensors contradict.

    The library would fill what does not fit with random values, however much memory that takes.

    Raises:
        UserError: If a size is no side of any tensor, or the layers are more or fewer.
    """
    sides = {side for shape in shapes.values() for side in shape}
    layers = {match[1] for name in shapes if (match := LAYER.search(name))}
    for key in SIDES:
        if key in config and not (type(config[key]) is int and config[key] in sides):
            raise UserError(
                f"{path}: {key}: expected the side of a tensor, got {shown(config[key])}, which no "
                "tensor beside it has: take config and weights from the same model"
            )
    for key in COUNTS:
        if key in config and config[key] != len(layers):
            raise UserError(
                f"{path}: {key}: expected {len(layers)}, the layers among the weights beside it, "
                f"got {shown(config[key])}: take config and weights from the same model"
            )


@contextmanager
def refusing(place: Path, expected: str) -> Iterator[None]:
    """Turn whatever a library raises on files of the user's into one line.

    Args:
        place: Where they lie.
        expected: What they should be.

    Raises:
        UserError: If anything is raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # The libraries raise no narrower class.
        why = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise UserError(
            f"{place}: expected {expected}, got {why}: take the files from the model's repository "
            "again"
        ) from error


def shown(value: object) -> str:
    """A value as a message shows it."""
    return repr(value)[:SHOWN]
