"""Settings from outside, checked against a model in one way, and told of in one way."""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, ValidationError
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from trainers.errors import UserError
from trainers.input.text import SURROGATE

LONGEST_KEY = 40
"""Characters of a key that a message shows."""
LONGEST_VALUE = 60
"""Likewise of a value."""
SHOWN = 20
"""Names that a message lists; others are counted."""
FAULTS = 8
"""Faults that one message names; others are counted."""
NAME = 200
"""Characters of a key at most."""
LARGEST = 2**63 - 1
"""No integer is larger, nor smaller than its negative."""


def _strict_numbers(schema: Any) -> Any:
    if isinstance(schema, list | tuple):
        return type(schema)(map(_strict_numbers, schema))
    if not isinstance(schema, dict):
        return schema
    inner = {key: _strict_numbers(value) for key, value in schema.items()}
    if inner.get("type") in ("int", "float"):
        return core_schema.no_info_before_validator_function(_number, inner)
    return inner


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "Input should be a number")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise PydanticCustomError("number_size", "Input should fit into 64 bits")
    return value


class Checked(BaseModel):
    """Settings, or a part of a record: they cannot be changed, and hold no unknown key.

    Numbers are finite, integers fit into 64 bits, and booleans are no numbers.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Have every number below looked at, in whatever field, tuple or choice it stands."""
        found: CoreSchema = _strict_numbers(handler(source))
        return found


M = TypeVar("M", bound=BaseModel)


def check(kind: type[M], values: Mapping[str, Any], where: str = "", above: str = "") -> M:
    """The model of some values.

    Args:
        kind: The model.
        values: Field by field.
        where: What a message begins with.
        above: What it puts before each key, e.g. ``train.``.

    Raises:
        UserError: With the faults in one line.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(f"{where}{_explain(error, kind, above)}") from error


def _explain(error: ValidationError, kind: type[BaseModel], above: str) -> str:
    """For each fault: where, what was expected, what came."""
    parts = []
    for item in error.errors(include_url=False):
        loc = [step for step in item["loc"] if not str(step).startswith("function-")]
        steps = [str(step) if isinstance(step, int) else key_text(step) for step in loc]
        where = above + ".".join(steps) if steps else "the whole"
        if item["type"] == "extra_forbidden":
            place = above + "".join(f"{step}." for step in steps[:-1])
            near = did_you_mean(str(loc[-1]), _known(kind, loc[:-1]), place)
            parts.append(f"{where}: unknown key, remove it or correct its spelling{near}")
        elif not loc or item["type"] == "missing":
            # Here the value is all that was given, and of no help.
            parts.append(f"{where}: {item['msg']}")
        else:
            parts.append(f"{where}: {item['msg']} (got {shown(item['input'])})")
    more = [f"and {len(parts) - FAULTS} more"] if len(parts) > FAULTS else []
    return "; ".join(parts[:FAULTS] + more)


def did_you_mean(key: str, known: Iterable[str], above: str) -> str:
    """``: did you mean train.steps?``, where a known key is near; ``above`` is ``train.``."""
    near = difflib.get_close_matches(key[:LONGEST_KEY], known, n=1)
    return f": did you mean {above}{near[0]}?" if near else ""


def _known(kind: type[BaseModel], loc: Iterable[Any]) -> Iterable[str]:
    """The keys that may stand where a location leads."""
    for step in loc:
        if step in kind.model_fields:
            kind = next(_models(kind.model_fields[step].annotation), kind)
    return kind.model_fields


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def key_text(key: object) -> str:
    """A key as messages show it: cut, and nothing in it that a terminal would act on."""
    text = str(key)[:LONGEST_KEY]
    text = text if text.isprintable() else repr(text)
    return text if len(str(key)) <= LONGEST_KEY else f"{text}..."


def shown(value: object) -> str:
    """A value as messages show it: cut, and of a collection only what it is.

    It may be of a file that was named by mistake.
    """
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple | set | frozenset):
        return f"a list of {len(value)}"
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"a number of {value.bit_length()} bits"
    text = repr(value[: LONGEST_VALUE + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def listed(names: Iterable[str]) -> str:
    """The first of some names, and how many there are beside them."""
    every = [key_text(name) for name in names]
    more = [f"{len(every) - SHOWN} more"] if len(every) > SHOWN else []
    return ", ".join(every[:SHOWN] + more)


def refuse_odd(value: object, where: str) -> None:
    """Refuse what is no plain data: texts, finite numbers, booleans, nothing; lists, mappings.

    Args:
        value: What was read.
        where: What a message calls it.

    Raises:
        UserError: If there is something else, an integer beyond 64 bits, a key that is no line of
            text, or a text with control characters or half a surrogate pair.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str) or not key.isprintable() or len(key) > NAME:
                raise UserError(
                    f"{where}: expected keys of at most {NAME} printable characters, got "
                    f"{shown(key)}: correct it, or put it in quotation marks"
                )
            refuse_odd(inner, f"{where}.{key_text(key)}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            refuse_odd(inner, f"{where}.{number}")
    elif (why := _odd(value)) is not None:
        raise UserError(f"{where}: expected {why}, got {shown(value)}: correct it")


def _odd(value: object) -> str | None:
    """What a single value should have been; None if it is in order."""
    if isinstance(value, str):
        if SURROGATE.search(value) or any(c < " " and c not in "\t\n\r" for c in value):
            return "text without control characters or halves of surrogate pairs"
    elif isinstance(value, float):
        return None if math.isfinite(value) else "a finite number"
    elif isinstance(value, int):
        return None if abs(value) <= LARGEST else "a number that fits into 64 bits"
    elif value is not None:
        return "text, a number, true, false or nothing (put it in quotation marks if it is text)"
    return None
