"""A registry of named plug-ins, and the settings objects that most of them are.

Built-in entries are named by ``"module:attribute"`` and imported on first use. Other packages add
entries through an entry-point group, which is read when a name is first looked up or listed, so
that a name with two owners is refused wherever it is used.
"""

import difflib
import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from trainers.errors import UserError
from trainers.files import sha256_file
from trainers.input.checked import Checked, check, listed, shown

T = TypeVar("T")


class Registry(Generic[T]):
    """Names for one kind of plug-in."""

    def __init__(self, kind: str, group: str, builtin: Mapping[str, str]) -> None:
        """Create a registry.

        Args:
            kind: What an entry is called in messages, e.g. ``"objective"``.
            group: Entry-point group other packages register under.
            builtin: ``"module:attribute"`` by name.
        """
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)
        self._loaded: dict[str, T] = {}

    def _external(self) -> dict[str, EntryPoint]:
        """Entry points by name; a UserError if one has the name of another or of a built-in."""
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=self.group):
            if point.name in self._builtin or point.name in found:
                package = point.dist.name if point.dist else "an unknown package"
                raise UserError(
                    f"{self.kind} {point.name!r} is registered twice, the second time by "
                    f"{point.value!r} of {package}: rename it there, or uninstall that package"
                )
            found[point.name] = point
        return found

    def names(self) -> list[str]:
        """All registered names, built-in ones first."""
        return [*self._builtin, *sorted(self._external())]

    def get(self, name: str) -> T:
        """The entry called ``name``.

        Raises:
            UserError: If there is none, and the message names near misses; or if any name has two.
        """
        if name not in self._loaded:
            external = self._external()
            if name in self._builtin:
                module, _, attribute = self._builtin[name].partition(":")
                found = getattr(importlib.import_module(module), attribute)
            elif name in external:
                found = self._import(external[name])
            else:
                raise UserError(self._unknown(name))
            self._loaded[name] = self._named(name, found)
        return self._loaded[name]

    def _named(self, name: str, found: T) -> T:
        """The entry, unless it calls itself otherwise: identities and tables would mix the two."""
        own = getattr(found, "name", None) or getattr(getattr(found, "card", None), "name", name)
        if own != name:
            raise UserError(
                f"{self.kind} {name!r} is registered under that name, but calls itself {own!r}: "
                "let both be the same"
            )
        return found

    def _import(self, point: EntryPoint) -> T:
        try:
            loaded: T = point.load()
        except (ImportError, AttributeError) as error:
            package = point.dist.name if point.dist else "an unknown package"
            raise UserError(
                f"{self.kind} {point.name!r} of {package}: expected {point.value!r} to import, got "
                f"{type(error).__name__}: {error}: mend or uninstall that package"
            ) from error
        return loaded

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.names(), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"unknown {self.kind} {shown(name)}: {hint}known are {listed(self.names())}"


class Settings(Checked):
    """A plug-in that is its own settings: frozen, and no key but its own is accepted."""

    name: ClassVar[str]
    version: ClassVar[int] = 1
    """Raised when the code changes what equal settings do: results of before are then others."""

    def resolved(self) -> dict[str, Any]:
        """Name, every setting, defaults included, and the code: what run identity hashes."""
        return {"name": self.name, **self.model_dump(mode="json"), **code_identity(type(self))}


OWN = ("trainers", "bench")
"""Packages of this project, whose plug-ins say by their version when their code changes."""


def code_identity(kind: type[Any]) -> dict[str, Any]:
    """What identifies the code of a plug-in beside its name; nothing for a first version of ours.

    Args:
        kind: A class, with or without a ``version``.

    Returns:
        ``version``, unless it is 1; ``source``, the sha256 of the module, unless it is ours.

    Raises:
        UserError: If the class is of no file, as one that was typed in.
    """
    version = getattr(kind, "version", 1)
    found = {"version": version} if version != 1 else {}
    if kind.__module__.partition(".")[0] in OWN:
        return found
    try:
        return {**found, "source": sha256_file(Path(inspect.getfile(kind)))}
    except (TypeError, OSError) as error:
        raise UserError(
            f"{kind.__name__}: expected a class of a module, whose file says what it computes, got "
            f"one of {kind.__module__}: put it into a file of its own"
        ) from error


S = TypeVar("S", bound=Settings)


def build(registry: "Registry[type[S]]", settings: Mapping[str, Any]) -> S:
    """Make the plug-in that ``{"name": ..., **settings}`` describes.

    Raises:
        UserError: If the name is missing or unknown, or a setting is unknown or out of range.
    """
    values = dict(settings)
    name = values.pop("name", None)
    if not isinstance(name, str):
        article = "an" if registry.kind[0] in "aeiou" else "a"
        raise UserError(
            f"expected {article} {registry.kind} with a name, got {shown(name or settings)}: "
            f"add 'name: ...', one of {listed(registry.names())}"
        )
    kind = registry.get(name)
    own = code_identity(kind) if {"version", "source"} & values.keys() else {}
    for key in ("version", "source"):  # As a record of a run has them.
        if key in values and (was := values.pop(key)) != own.get(key):
            raise UserError(
                f"{registry.kind} {name!r}: {key} {shown(was)} is recorded, and here it is "
                f"{own.get(key)!r}: use the version of the package that made the record"
            )
    return check(kind, values, f"{registry.kind} {name!r}: ")
