"""DPO whose beta follows the size of the margin (SimpleTuner's Flow-DPO, 2026)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from trainers.objectives.base import Batch, Objective, State, Values

if TYPE_CHECKING:
    from torch import Tensor


class AutoBeta(Objective):
    """``l(u) + anchor / 2 (|e_w - e_ref_w|^2 + |e_l - e_ref_l|^2) + sft L_w``.

    With ``l(u) = -log sigmoid(u)`` and ``u = beta / 2 * lambda(t) * margin``, where beta is what
    would give a pair with the usual margin the gradient factor ``sigmoid(-u) = target``:

        beta = 2 log(1 / target - 1) / m        m <- decay m + (1 - decay) mean |margin|

    in ``[beta_min, beta_max]``, with the first step's mean as the first m; ``lambda(t)`` scales
    what is found. Squares are means over C, H, W. Source and defaults: ``bghira/SimpleTuner``,
    ``simpletuner/helpers/distillation/flow_dpo``, whose margins are sums, so that its bounds 1e-3
    and 1 are, for the 16384 elements of a latent of Stable Diffusion 1.5, those below. It has no
    paper. In the first step the margin is 0 and beta ``beta_max``, as there.
    """

    name: ClassVar[str] = "auto-beta"
    public_code: ClassVar[str] = "no paper; its errors are sums"
    target: float = Field(0.2, gt=0, lt=0.5)
    decay: float = Field(0.99, ge=0, lt=1)
    beta_min: float = Field(16.384, gt=0)
    beta_max: float = Field(16384.0, gt=0)
    anchor: float = Field(0.0, ge=0)
    sft: float = Field(0.0, ge=0)

    @property
    def predictions(self) -> bool:
        """For the anchor."""
        return self.anchor > 0

    @property
    def group(self) -> int | None:
        """The whole batch."""
        return None

    def statistics(self, batch: Batch) -> Values:
        """Size of the margin."""
        return {"size": batch.margin.abs()}

    def initial_state(self) -> dict[str, float]:
        """m, and how many steps it has seen."""
        return {"size": 0.0, "steps": 0.0}

    def next_state(self, state: State, means: Mapping[str, Tensor]) -> State:
        """See the class."""
        now = means["size"]
        kept = self.decay * state["size"] + (1 - self.decay) * now
        return {"size": kept.where(state["steps"] > 0, now), "steps": state["steps"] + 1}

    def _beta(self, batch: Batch) -> Tensor:
        wanted = 2 * math.log(1 / self.target - 1)
        return (wanted / batch.state["size"]).clamp(self.beta_min, self.beta_max)

    def figures(self, batch: Batch) -> Values:
        """The beta of the step."""
        return {"beta": self._beta(batch).expand_as(batch.scale)}

    def loss(self, batch: Batch) -> Tensor:
        """See the class; ``[n]``, at least 0."""
        from torch.nn.functional import logsigmoid

        loss = -logsigmoid(batch.logit(self._beta(batch)))
        if self.anchor:
            drifts = [side.shift.square().flatten(1).mean(1) for side in batch.sides]
            loss = loss + self.anchor / 2 * (drifts[0] + drifts[1])
        return loss + self.sft * batch.winner.error if self.sft else loss
