"""What an objective is: a pure function of what policy and reference predict of ``n`` examples.

An example is a row of the stream: a pair of images, or a single one. ``lambda(t)`` follows one rule
in every objective: it scales beta, which stands before the implicit reward, and weighs no loss.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from trainers.errors import UserError
from trainers.registry import Settings

if TYPE_CHECKING:
    from torch import Tensor

Values: TypeAlias = "dict[str, Tensor]"
"""A number of each row by name, ``[n]``."""
State: TypeAlias = "Mapping[str, Tensor]"
"""Scalars by name that an objective carries from step to step."""


@dataclass(frozen=True)
class Side:
    """One image of each of ``n`` rows: what is predicted of it, and how far off that is.

    Errors are per-sample means over C, H, W of squared differences, ``float32[n]``, at least 0.
    Only what comes from the policy carries gradients.
    """

    policy: Tensor
    """What the policy predicts, ``float32[n, C, H, W]``."""
    target: Tensor
    """What it should predict, ``float32[n, C, H, W]``."""
    error: Tensor
    """``L``: error of the policy."""
    reference_error: Tensor | None = None
    """``R``: error of the reference; None unless the objective is ``referenced``."""
    reference: Tensor | None = None
    """What the reference predicts, ``float32[n, C, H, W]``; None unless the objective asks for
    ``predictions``."""

    @property
    def gain(self) -> Tensor:
        """``R - L``, ``[n]``: the implicit reward without beta."""
        if self.reference_error is None:
            raise TypeError("an objective that is not 'referenced' looks at the reference's error")
        return self.reference_error - self.error

    @property
    def residual(self) -> Tensor:
        """Policy less target, ``[n, C, H, W]``."""
        return self.policy - self.target

    @property
    def shift(self) -> Tensor:
        """Policy less reference, ``[n, C, H, W]``."""
        if self.reference is None:
            raise TypeError("an objective without 'predictions' looks at the reference's")
        return self.policy - self.reference

    def slowed(self, factor: Tensor) -> Side:
        """The same values, with the gradients of each row multiplied by ``factor``, ``[n]``."""
        held, error = self.policy.detach(), self.error.detach()
        each = factor.view(-1, *[1] * (held.dim() - 1))
        return replace(
            self,
            policy=held + each * (self.policy - held),
            error=error + factor * (self.error - error),
        )


@dataclass(frozen=True)
class Batch:
    """``n`` rows: pairs of a preferred image and another, or single images."""

    sides: tuple[Side, ...]
    """The preferred images and the others, or the single ones: the objective's ``images``."""
    preference: Tensor
    """Probability that the first image is preferred, or the single one desirable, ``[n]``."""
    scale: Tensor
    """``lambda(t)``, ``[n]``: 1 where the reward scale is constant."""
    timesteps: Tensor
    """``int64[n]``: a larger one is noisier."""
    snr: Tensor
    """Signal-to-noise ratio ``a^2 / b^2`` of ``x_t = a x_0 + b eps``, ``[n]``."""
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    """Whatever else the data say of a row, by name, ``[n]``."""
    mismatched: Tensor | None = None
    """``R - L`` of the first image under the caption of another row, ``[n]``, without gradient;
    None but in :meth:`Objective.statistics`, where the objective asks for it."""
    means: Mapping[str, Tensor] = field(default_factory=dict)
    """Of each of :meth:`Objective.statistics` the mean over the row's group, ``[n]``."""
    state: State = field(default_factory=dict)
    """See :meth:`Objective.next_state`."""

    @property
    def winner(self) -> Side:
        """The preferred image of a pair; the single one of objectives with one image."""
        return self.sides[0]

    @property
    def loser(self) -> Side:
        """The other image of a pair."""
        return self.sides[1]

    @property
    def margin(self) -> Tensor:
        """``(R_w - L_w) - (R_l - L_l)``, ``[n]``: positive if the pair is ranked correctly."""
        return self.winner.gain - self.loser.gain

    @property
    def sigma(self) -> Tensor:
        """Share of noise ``b / (a + b)``, ``[n]`` in (0, 1]: of a flow model its own sigma."""
        return 1 / (1 + self.snr.sqrt())

    def logit(self, beta: float | Tensor) -> Tensor:
        """``u = beta / 2 * lambda(t) * margin``, ``[n]``: positive if ranked correctly.

        The convention of Diffusion-DPO's code: errors are means over C, H, W, a factor one half,
        and the number of timesteps absorbed in ``beta``.
        """
        return 0.5 * beta * self.scale * self.margin


class Averaging(Settings, ABC):
    """What may look at means over several rows, the same however a batch is cut or shared."""

    @property
    def group(self) -> int | None:
        """Neighbouring rows of the stream that share means; None for the whole optimiser batch.

        A number is what public code calls a batch per device; it must divide the batch.
        """
        return 1

    def statistics(self, batch: Batch) -> Values:
        """What is averaged over each group, by name, ``[n]``: each row from that row alone.

        Called without gradient, and where a part of a batch does not hold whole groups, in a pass
        of its own over all of it. The means stand in ``batch.means`` of :meth:`Objective.loss`.
        """
        return {}

    def figures(self, batch: Batch) -> Values:
        """What the log of a step shows the mean of, by name, ``[n]``; called without gradient."""
        return {}


class Objective(Averaging, ABC):
    """An objective. Its fields are its settings, the first line of its docstring is its formula."""

    images: ClassVar[Literal[1, 2]] = 2
    """Images of a row: a pair, with one timestep and noise, or a single one, of which the loser is
    neither read nor run. A single image has a timestep and noise of its own."""
    referenced: ClassVar[bool] = True
    """Whether it makes use of the reference's errors. Otherwise none is run or held in memory, and
    whatever rule is asked for is the frozen one: what nothing depends on makes no other run."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Names of ``Batch.columns`` that the data must have."""
    soft_labels: ClassVar[bool] = False
    """Whether it makes use of ``preference``; others are refused where ties are kept."""
    public_code: ClassVar[str] = "-"
    """Where public code departs from the paper, in a line."""

    @property
    def strength(self) -> float | None:
        """``beta``, if it has one: how other sources quote it, ``trainers.conventions`` knows."""
        return getattr(self, "beta", None)

    @property
    def predictions(self) -> bool:
        """Whether it looks at what the reference predicts, and not only at its errors."""
        return False

    @property
    def winners(self) -> float:
        """Of an objective with one image: how often a row shows the preferred one of its pair."""
        return 1.0

    @property
    def prefixes(self) -> tuple[str, str] | None:
        """Of an objective with one image: what stands before captions, if anything.

        Before those of preferred images, and of others; the first also before every prompt that a
        trained network makes images of.
        """
        return None

    @property
    def mismatched(self) -> bool:
        """Whether its statistics need gains under the caption of the next row of the batch."""
        return False

    def initial_state(self) -> dict[str, float]:
        """What it carries from step to step, and a checkpoint holds; nothing by default."""
        return {}

    def next_state(self, state: State, means: Mapping[str, Tensor]) -> State:
        """The state in a step, from that before it and the batch's means, scalars by name.

        Pure. Only called if there is a state, whose objective must average over the whole batch.
        """
        return state

    def losses(self, batch: Batch) -> Tensor:
        """:meth:`loss` of a batch, looked at.

        Raises:
            UserError: If it is something else than a number for each row that can be learnt from.
        """
        import torch

        found, rows = self.loss(batch), tuple(batch.winner.error.shape)
        if isinstance(found, torch.Tensor):
            right = tuple(found.shape) == rows and found.requires_grad
            got = f"{'' if found.requires_grad else 'constant '}{found.dtype} {[*found.shape]}"
        else:
            right, got = False, type(found).__name__
        if not right:
            raise UserError(
                f"objective {self.name!r}: expected a loss that depends on the policy for each of "
                f"{[*rows]} rows, got {got}: mend its loss()"
            )
        return found

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Loss of each row, ``[n]``."""
