"""A registry of named plug-ins, and the settings objects that most of them are.

Built-in entries are named by ``"module:attribute"`` and imported on first use. Other packages add
entries through an entry-point group, which is read when a name is first looked up or listed, so
that a name with two owners is refused wherever it is used. A package that is broken is named, and
what is of others works on.
"""

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, redirect_stdout
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from trainers.errors import UserError
from trainers.files import sha256_file
from trainers.input.checked import Checked, check, listed, shown

GROUPS = "dpo_bench."
"""How the names of our entry-point groups begin."""
LONGEST = 200
"""Characters of somebody's message that are told."""
T = TypeVar("T")


class Registry(Generic[T]):
    """Names for one kind of plug-in."""

    def __init__(
        self, kind: str, group: str, builtin: Mapping[str, str], base: type[Any] = object
    ) -> None:
        """Create a registry.

        Args:
            kind: What an entry is called in messages, e.g. ``"objective"``.
            group: Entry-point group other packages register under.
            builtin: ``"module:attribute"`` by name.
            base: The class that every entry is derived from.
        """
        self.kind = kind
        self.group = group
        self._builtin = dict(builtin)
        self._base = base
        self._loaded: dict[str, T] = {}

    def _external(self) -> dict[str, EntryPoint]:
        """Entry points by name; a UserError if one has the name of another or of a built-in."""
        found: dict[str, EntryPoint] = {}
        for point in _entry_points()[0]:
            if point.group != self.group:
                continue
            if point.name in self._builtin or point.name in found:
                raise UserError(
                    f"{self.kind} {shown(point.name)} is registered twice, the second time by "
                    f"{point.value!r} of {_package(point)}: rename it there, or uninstall that "
                    "package"
                )
            found[point.name] = point
        return found

    def names(self) -> list[str]:
        """All registered names, built-in ones first.

        Raises:
            UserError: If one has two owners.
        """
        return [*self._builtin, *sorted(self._external())]

    def usable(self, tell: Callable[[str], object] = lambda line: None) -> Iterator[tuple[str, T]]:
        """Names and entries in the order of :meth:`names`, but for what is broken.

        Args:
            tell: Told in one line why something is left out.

        Raises:
            UserError: If a name has two owners.
        """
        for package, why in _entry_points()[1].items():
            tell(f"the entry points of {package} cannot be read ({why}): mend or uninstall it")
        for name in self.names():
            try:
                found = self.get(name)
            except UserError as error:
                tell(str(error))
            else:
                yield name, found

    def get(self, name: str) -> T:
        """The entry called ``name``.

        Raises:
            UserError: If there is none, and the message names near misses; if any name has two
                owners; or if the package that it is of is broken.
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
            self._loaded[name] = self._fitting(name, found)
        return self._loaded[name]

    def _fitting(self, name: str, found: T) -> T:
        """The entry, if it can be one and calls itself so: identities and tables use its name."""
        own = getattr(found, "name", None) or getattr(getattr(found, "card", None), "name", None)
        why = None
        if self._base is object:
            own = own or name
        elif not (isinstance(found, type) and issubclass(found, self._base)):
            why = f"is no class derived from {self._base.__name__}: mend or uninstall its package"
        elif lacking := sorted(getattr(found, "__abstractmethods__", ())):
            why = f"lacks {', '.join(lacking)}: mend or uninstall its package"
        if why is None and own != name:
            why = f"calls itself {shown(own)}: let both be the same"
        if why is not None:
            raise UserError(f"{self.kind} {name!r} is registered under that name, but {why}")
        return found

    def _import(self, point: EntryPoint) -> T:
        try:
            with aside():
                loaded: T = point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # It may exit, too.
            raise UserError(
                f"{self.kind} {shown(point.name)} of {_package(point)}: expected {point.value!r} "
                f"to import, got {told(error)}: mend or uninstall that package"
            ) from error
        return loaded

    def _unknown(self, name: str) -> str:
        known = self.names()
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        unread = ", ".join(_entry_points()[1])
        more = f"; the entry points of {unread} cannot be read" if unread else ""
        return f"unknown {self.kind} {shown(name)}: {hint}known are {listed(known)}{more}"


def _entry_points() -> tuple[list[EntryPoint], dict[str, str]]:
    """All of our groups; and packages whose own cannot be read, with the reason."""
    found: dict[tuple[str, str, str, str], EntryPoint] = {}
    broken: dict[str, str] = {}
    for package in distributions():
        try:
            points = [point for point in package.entry_points if point.group.startswith(GROUPS)]
        except Exception as error:  # Those of the others are no worse for it.
            broken[package.metadata["Name"] or "a package without a name"] = told(error)
        else:  # A package counts once, however often the path leads to it.
            found |= {(p.group, p.name, p.value, _package(p)): p for p in points}
    return list(found.values()), broken


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown package"


def aside() -> AbstractContextManager[object]:
    """Send what a plug-in prints to standard error: standard output is a command's own."""
    return redirect_stdout(sys.stderr)


def told(error: BaseException) -> str:
    """An error of somebody's code in one line: its kind, and the beginning of what it says."""
    said = " ".join(str(error).split())
    return type(error).__name__ + (f": {said[:LONGEST]}" if said else "")


def blamed(error: BaseException) -> str | None:
    """One line for what a plug-in of another package has raised, but for a UserError; else None."""
    if isinstance(error, UserError | KeyboardInterrupt):
        return None
    packages = {
        point.module.partition(".")[0]: _package(point)
        for point in _entry_points()[0]
        if point.pattern.match(point.value)
    }
    place, package = error.__traceback__, None
    while place is not None:
        module = str(place.tb_frame.f_globals.get("__name__"))
        package = packages.get(module.partition(".")[0], package)
        place = place.tb_next
    if package is None:
        return None
    return f"the plug-in of {package} ended in {told(error)}: mend or uninstall that package"


OFF = "off by default"
"""Marks a field, ``Annotated[T, OFF]``, at whose default all is as it was without that field."""


class Resolved(Checked):
    """Settings whose dump is part of an identity: every field, defaults included.

    But for those marked ``OFF`` that stand at their default. What is added later, and is off by
    default, so changes the identity of nothing that there was.
    """

    @model_serializer(mode="wrap")
    def _without_off(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = dump(self)
        for name, field in type(self).model_fields.items():
            if OFF in field.metadata and getattr(self, name) == field.default:
                values.pop(name, None)
        return values


class Settings(Resolved):
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
    with aside():
        return check(kind, values, f"{registry.kind} {name!r}: ")
