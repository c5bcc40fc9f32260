"""From places in a stream to what networks are shown there, and what they predict."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainers.backbones import Backbone, Condition, Moments
from trainers.config import TrainConfig
from trainers.data.base import PairData
from trainers.errors import UserError
from trainers.machine.execution import autocast, set_matmul, to_device, to_memory_format
from trainers.objectives import Batch, Objective, Side
from trainers.streams import Draws, Stream


@dataclass(frozen=True)
class Inputs:
    """All first images of ``n`` rows, then all second ones: every tensor is ``[m, ...]``."""

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    condition: Condition


class Examples:
    """What the examples of a run look like to its networks and to its objective."""

    def __init__(
        self, config: TrainConfig, backbone: Backbone, data: PairData, stream: Stream,
        scale: Tensor, known: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Set up for a run.

        Args:
            config: The run.
            backbone: Its model.
            data: Its pairs.
            stream: What is drawn at each position.
            scale: ``lambda`` at every timestep, ``float32[T]``, on the device to run on.
            known: Errors of the reference of each image at the first ``k`` positions,
                ``float32[images, k]``, as :mod:`trainers.reference_errors` makes them.
        """
        self.config = config
        self.backbone = backbone
        self.data = data
        self.stream = stream
        self.scale = scale
        self.known = known
        self.device = str(scale.device)
        self.snr = backbone.snr.float().to(scale.device)

    def sides(self, draws: Draws) -> Tensor:
        """Which image of its pair each one is that is shown, ``int64[m]``: 0 for the winner."""
        if self.config.objective.images == 2:
            return torch.arange(2).repeat_interleave(len(draws.rows))
        return (draws.image >= self.config.objective.winners).long()

    def inputs(self, draws: Draws, timesteps: Tensor, policy: nn.Module) -> Inputs:
        """What networks are shown; ``timesteps`` are ``int64[n]``, one a row."""
        sides = self.sides(draws)
        images = len(sides) // len(draws.rows)
        found = self._moments(draws.rows, sides)
        posterior = draws.posterior[sides, torch.arange(len(draws.rows)).repeat(images)]
        latents = to_device(found.mean + found.std * posterior, self.device)
        times = to_device(timesteps, self.device).repeat(images)
        told = self.condition(draws.rows, draws.drop, sides[: len(draws.rows)], images)
        noise = self._noise(latents, times, draws, told, policy)
        return Inputs(
            noisy=self.backbone.add_noise(latents, noise, times),
            target=self.backbone.target(latents, noise, times),
            timesteps=times,
            condition=told,
        )

    def _moments(self, rows: Tensor, sides: Tensor) -> Moments:
        """Of all images that are shown, and no others."""
        if len(sides) == len(rows):
            return self.data.chosen_images(rows, sides)
        return Moments(*map(torch.cat, zip(*self.data.images(rows), strict=True)))

    def condition(self, rows: Tensor, drop: Tensor, sides: Tensor, images: int) -> Condition:
        """The condition of each row, as often as it has images, on the device."""
        prefixes = self.config.objective.prefixes or ("", "")
        dropped = drop < self.config.caption_dropout
        told = self.data.chosen_condition(rows, dropped, sides, prefixes)
        moved = {name: to_device(values, self.device) for name, values in told.items()}
        return {name: torch.cat([values] * images) for name, values in moved.items()}

    @torch.no_grad()
    def _noise(
        self, latents: Tensor, times: Tensor, draws: Draws, told: Condition, policy: nn.Module
    ) -> Tensor:
        """The noise that each image is mixed with."""

        def predict(noisy: Tensor, timesteps: Tensor) -> Tensor:
            return self.predict(policy, Inputs(noisy, noisy, timesteps, told))

        def normal(axis: str) -> Tensor:
            sides = range(len(latents) // len(draws.rows))
            drawn = [self.stream.normal(axis, draws.positions, side) for side in sides]
            return to_device(torch.cat(drawn), self.device)

        drawn = to_device(draws.noise, self.device)
        return self.config.noising.noise(latents, times, drawn, normal, self.backbone, predict)

    def winners(self, pairs: Tensor, uniform: Tensor, noise: Tensor) -> Inputs:
        """Preferred images, as the divergence of a reference is measured on them.

        Args:
            pairs: ``int64[n]``.
            uniform: Draws in [0, 1), ``float64[n]``: timesteps are uniform whatever the run's law.
            noise: ``float32[n, C, H, W]``.
        """
        first = torch.zeros_like(pairs)
        timesteps = (uniform * len(self.backbone.snr)).long().to(self.device)
        latents = self.data.chosen_images(pairs, first).mean.to(self.device)
        noise = noise.to(self.device)
        condition = self.data.condition(pairs, torch.zeros(len(pairs), dtype=torch.bool))
        return Inputs(
            noisy=self.backbone.add_noise(latents, noise, timesteps),
            target=self.backbone.target(latents, noise, timesteps),
            timesteps=timesteps,
            condition={name: values.to(self.device) for name, values in condition.items()},
        )

    def predict(self, network: nn.Module, inputs: Inputs) -> Tensor:
        """What a network predicts, ``float32[m, C, H, W]``."""
        set_matmul(self.config.matmul)  # Here, since encoding in the loop is always in float32.
        noisy = to_memory_format(inputs.noisy, self.config.channels_last)
        with autocast(self.config.precision, self.device):
            prediction = self.backbone.predict(network, noisy, inputs.timesteps, inputs.condition)
        return prediction.float()

    def errors(self, network: nn.Module, inputs: Inputs) -> Tensor:
        """Mean over C, H, W of the squared error of each image, ``float32[m]``."""
        return _mean_square(self.predict(network, inputs) - inputs.target.float())

    def known_errors(self, draws: Draws) -> Tensor | None:
        """Errors of the reference, ``float32[m]``; None where they are to be computed."""
        if self.known is None or int(draws.positions.max()) >= self.known.shape[1]:
            return None
        return to_device(self.known[:, draws.positions].flatten(), self.device)

    def batch(self, inputs: Inputs, draws: Draws, policy: nn.Module, reference: nn.Module | None
              ) -> Batch:  # fmt: skip
        """What an objective is shown of rows; ``reference`` is None if there is none to run."""
        target, rows = inputs.target.float(), len(draws.rows)
        errors = self.known_errors(draws)
        known = [] if errors is None else [errors]  # Of the reference: and what it predicts.
        if errors is None and reference is not None:
            # The reference first: its forward's memory is free again before the policy's is kept.
            with torch.no_grad():
                guess = self.predict(reference, inputs)
                known.append(_mean_square(guess - target))
                if self.config.objective.predictions:
                    known.append(guess)
        guess = self.predict(policy, inputs)
        own = (guess, target, _mean_square(guess - target), *known)
        split = zip(*(values.split(rows) for values in own), strict=True)
        steps = inputs.timesteps[:rows]
        return Batch(
            sides=tuple(Side(*values) for values in split),
            preference=to_device(self._preference(draws), self.device),
            scale=self.scale[steps],
            timesteps=steps,
            snr=self.snr[steps],
            columns={
                name: to_device(values.float(), self.device)
                for name, values in self.data.columns(draws.rows).items()
                if name in self.config.objective.columns
            },
        )

    def _preference(self, draws: Draws) -> Tensor:
        """Probability that the first image that is shown is to be preferred, ``[n]``."""
        winner = self.data.preference(draws.rows).float()
        return winner.where(self.sides(draws)[: len(draws.rows)] == 0, 1 - winner)

    @torch.no_grad()
    def mismatched(
        self, inputs: Inputs, draws: Draws, captions: tuple[Tensor, Tensor],
        policy: nn.Module, reference: nn.Module,
    ) -> Tensor:  # fmt: skip
        """``R - L`` of the first images under other rows' captions, ``[n]``."""
        rows = len(draws.rows)
        told = self.condition(*captions, self.sides(draws)[:rows], 1)
        first = Inputs(inputs.noisy[:rows], inputs.target[:rows], inputs.timesteps[:rows], told)
        return self.errors(reference, first) - self.errors(policy, first)


def check_columns(objective: Objective, data: PairData) -> None:
    """Refuse data that lack what an objective looks at.

    Raises:
        UserError: With the names of what is missing, and of what there is.
    """
    found = data.columns(torch.tensor([0]))
    if missing := [name for name in objective.columns if name not in found]:
        raise UserError(
            f"objective {objective.name!r} needs {', '.join(missing)} of every pair, and the data "
            f"have {', '.join(found) or 'no further columns'}: add them, as bench data label does"
        )


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().flatten(1).mean(1)
