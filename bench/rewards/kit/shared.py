"""What rewards that score the same images share: models, pixels and features, computed once."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

M = TypeVar("M")
Array = NDArray[Any]

KEPT = 2**29
"""Bytes of pixels and features that are kept by default: those of about 800 images of 224 px."""


class Shared:
    """Models within a memory budget, and the latest intermediate values.

    Keys say by content what a value was computed from, never by name or place, so rewards can
    share one object without knowing of each other, and what is here never changes a score.
    """

    def __init__(self, memory: int | None = None, kept: int = KEPT) -> None:
        """Create an empty one.

        Args:
            memory: Bytes that loaded models may take, or None for no limit. One that is larger is
                loaded all the same, alone.
            kept: Bytes of intermediate values that may be kept.
        """
        self.memory = memory
        self.kept = kept
        self._models: OrderedDict[Hashable, tuple[int, Any]] = OrderedDict()
        self._values: OrderedDict[Hashable, Array] = OrderedDict()
        self._bytes = 0

    def model(self, key: Hashable, size: int, load: Callable[[], M]) -> M:
        """The model called ``key``, loaded unless it is here.

        The models that were used least recently go when ``size`` more bytes would not fit.
        """
        if key not in self._models:
            if self.memory is not None:
                while self._models and size + self.loaded > self.memory:
                    self._models.popitem(last=False)
            self._models[key] = (size, load())
        self._models.move_to_end(key)
        model: M = self._models[key][1]
        return model

    @property
    def loaded(self) -> int:
        """Bytes of the models that are loaded, by their stated sizes."""
        return sum(size for size, _ in self._models.values())

    def values(
        self, keys: Sequence[Hashable], compute: Callable[[list[int]], Iterable[Array]]
    ) -> list[Array]:
        """The value of each key; ``compute`` gets the positions of those that are not here.

        Equal keys are computed once. ``compute`` returns one array for each position it was given.
        """
        found = {key: self._values[key] for key in keys if key in self._values}
        missing: dict[Hashable, int] = {}
        for position, key in enumerate(keys):
            if key not in found:
                missing.setdefault(key, position)
        if missing:
            found |= zip(missing, compute(list(missing.values())), strict=True)
        for key in found:
            self._keep(key, found[key])
        return [found[key] for key in keys]

    def rows(
        self, model: Hashable, inputs: Sequence[Array], forward: Callable[[Array], Array], size: int
    ) -> tuple[Array, NDArray[np.int64]]:
        """``forward`` of the distinct inputs in batches ``[m, ...]``, and the row of each input.

        A batch is kept as a whole: rounding depends on the company that an input is in, and a
        result must depend on the arguments alone.

        Args:
            model: What computes, in a word that changes with it.
            inputs: Arrays of one shape.
            forward: From a stack of inputs ``[m, ...]`` to their rows ``[m, ...]``.
            size: Largest number of inputs in a batch.
        """
        by_object = {id(value): value for value in inputs}
        known = {i: hashlib.sha256(value.tobytes()).hexdigest() for i, value in by_object.items()}
        digests = [known[id(value)] for value in inputs]
        first = {digest: i for i, digest in reversed(list(enumerate(digests)))}
        distinct = sorted(first, key=first.__getitem__)
        batches = [tuple(distinct[i : i + size]) for i in range(0, len(distinct), size)]

        def compute(positions: list[int]) -> Iterable[Array]:
            for position in positions:
                yield forward(np.stack([inputs[first[digest]] for digest in batches[position]]))

        found = self.values([(model, batch) for batch in batches], compute)
        place = {digest: i for i, digest in enumerate(distinct)}
        return np.concatenate(found), np.array([place[digest] for digest in digests])

    def _keep(self, key: Hashable, value: Array) -> None:
        if key not in self._values:
            # A row of a batch would keep the whole batch alive.
            self._values[key] = np.array(value)
            self._bytes += value.nbytes
        self._values.move_to_end(key)
        while self._bytes > self.kept:
            self._bytes -= self._values.popitem(last=False)[1].nbytes
