"""Weights from files: of safetensors alone, every value finite, every tensor where it belongs."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from trainers.errors import UserError
from trainers.input.paths import POINTER, reason, refuse_pointer, regular

Tensors = dict[str, Tensor]
Shape = tuple[int, ...]
NAMED = 3
"""Names that a message shows."""


def read_shapes(path: Path) -> dict[str, Shape]:
    """Shapes of the tensors of a file by name; their values are not read.

    Raises:
        UserError: If it is no regular file, a pointer of Git LFS, cut short, or no safetensors.
    """
    with _open(path) as stream:
        return {name: tuple(stream.get_slice(name).get_shape()) for name in _names(stream)}


def read_metadata(path: Path) -> dict[str, str]:
    """What a file says beside its tensors.

    Raises:
        UserError: As :func:`read_shapes`.
    """
    with _open(path) as stream:
        return dict(stream.metadata() or {})


def read_tensors(path: Path) -> Tensors:
    """All tensors of a file by name.

    Raises:
        UserError: As :func:`read_shapes`, or if a value is not finite.
    """
    with _open(path) as stream:
        tensors: Tensors = {name: stream.get_tensor(name) for name in _names(stream)}
    refuse_not_finite(tensors.items(), path)
    return tensors


def read_checkpoint(path: Path, what: str = "a model") -> Tensors:
    """The tensors of a file in PyTorch's own format, or those below ``state_dict`` in it.

    No code that it might hold is run. ``what`` says in messages what they are of.

    Raises:
        UserError: If it holds anything else, or a value is not finite.
    """
    with regular(path).open("rb") as file:
        refuse_pointer(file.read(len(POINTER)), path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        content = content.get("state_dict", content)
        if not all(isinstance(value, Tensor) for value in content.values()):
            raise TypeError("not every value is a tensor")
    except Exception as error:  # The unpickler raises no narrower class.
        raise UserError(
            f"{path}: expected the tensors of {what}, read without running any code, got another "
            f"content ({type(error).__name__}): fetch the file again"
        ) from error
    refuse_not_finite(content.items(), path)
    tensors: Tensors = dict(content)
    return tensors


def read_weights(path: Path, what: str = "a model") -> Tensors:
    """The tensors of a file, which is safetensors by its name, or else of PyTorch's own format.

    Raises:
        UserError: As :func:`read_tensors` and :func:`read_checkpoint`.
    """
    return read_tensors(path) if path.suffix == ".safetensors" else read_checkpoint(path, what)


def _names(stream: Any) -> list[str]:
    return list(stream.keys())


def _open(path: Path) -> Any:
    try:
        with regular(path).open("rb") as file:
            refuse_pointer(file.read(len(POINTER)), path)
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{path}: expected tensors as safetensors, got a file that is cut short or another "
            f"({reason(error)}): fetch it again"
        ) from error


@torch.no_grad()
def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors with a NaN or an infinity in them."""
    floating = [(name, _summable(t)) for name, t in tensors if t.is_floating_point()]
    if not floating:
        return []
    # A sum takes one reading, and is finite only if all is; that of a finite tensor may overflow.
    sums = torch.stack([tensor.sum().float().cpu() for _, tensor in floating])
    doubtful = (~sums.isfinite()).nonzero().flatten().tolist()
    return [floating[i][0] for i in doubtful if not floating[i][1].isfinite().all()]


def _summable(tensor: Tensor) -> Tensor:
    return tensor if tensor.element_size() > 1 else tensor.float()  # torch adds no 8 bits.


def refuse_not_finite(tensors: Iterable[tuple[str, Tensor]], where: Path) -> None:
    """Refuse tensors with a NaN or an infinity in them.

    Args:
        tensors: By name.
        where: What they were read from.

    Raises:
        UserError: If there is one.
    """
    if bad := not_finite(tensors):
        raise UserError(
            f"{where}: expected finite weights, got NaN or infinite values in {some(bad)}: the "
            "file is damaged, or the training that wrote it diverged; give another"
        )


def refuse_unfit(
    where: Path,
    config: Path | str,
    missing: Collection[str] = (),
    unexpected: Collection[str] = (),
    misshapen: Mapping[str, tuple[Shape, Shape]] | None = None,
) -> None:
    """Refuse weights that are not exactly those of the model that a config describes.

    Args:
        where: What they were read from.
        config: What describes the model: a file, or words.
        missing: Names that the model has and the weights lack.
        unexpected: Names that the weights have and the model lacks.
        misshapen: Shape in the weights and in the model, by name.

    Raises:
        UserError: If there is one of these.
    """
    model = f"the model that {config} describes" if isinstance(config, Path) else config
    faults = [
        f"{how} {len(names)} tensors, such as {min(names)!r}"
        for how, names in (("without", missing), ("with other", unexpected))
        if names
    ]
    if misshapen:
        name, (got, expected) = min(misshapen.items())
        faults.append(
            f"with {len(misshapen)} of another shape, such as {name!r} of {list(got)} instead of "
            f"{list(expected)}"
        )
    if faults:
        raise UserError(
            f"{where}: expected exactly the tensors of {model}, got weights {', '.join(faults)}: "
            "take both from the same model"
        )


def fit(tensors: Tensors, shapes: Mapping[str, Shape], where: Path, config: Path | str) -> None:
    """Refuse tensors whose names or shapes are not ``shapes``; see :func:`refuse_unfit`.

    Raises:
        UserError: If they are not.
    """
    both = shapes.keys() & tensors.keys()
    found = {name: (tuple(tensors[name].shape), shapes[name]) for name in both}
    wrong = {name: pair for name, pair in found.items() if pair[0] != pair[1]}
    refuse_unfit(where, config, shapes.keys() - both, tensors.keys() - both, wrong)


def some(names: Collection[str]) -> str:
    """The first few of names, and how many there are beside them."""
    shown = ", ".join(sorted(names)[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
