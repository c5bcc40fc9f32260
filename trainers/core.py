"""The one training loop that every arm runs through."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from trainers import checkpoint
from trainers.backbones import Backbone, Condition
from trainers.config import TrainConfig
from trainers.data.base import PairData
from trainers.errors import UserError
from trainers.execution import autocast, lay_out, new_scaler, prepare, recompute
from trainers.metrics import MetricsLog, StepMetrics, decile_counts
from trainers.objectives import PairErrors
from trainers.references import Event
from trainers.streams import Draws, Stream

CHECKPOINT = "checkpoint.safetensors"
METRICS = "metrics.jsonl"

OnStep = Callable[[int, StepMetrics], None]


@dataclass(frozen=True)
class _Batch:
    """Winners, then losers, of ``n`` pairs: every tensor is ``[2 n, ...]``."""

    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    condition: Condition


class Trainer:
    """A run: the policy, its reference and average, the optimiser and the stream of examples."""

    def __init__(
        self, config: TrainConfig, backbone: Backbone, data: PairData, device: str = "cpu"
    ) -> None:
        """Set a run up at step 0.

        Raises:
            UserError: If the batch cannot be cut into ``accumulation`` equal parts, or a setting
                does not fit the backbone or needs a package that is not installed.
        """
        if config.batch_size % config.accumulation:
            raise UserError(
                f"batch_size {config.batch_size} cannot be cut into {config.accumulation} equal "
                "parts: choose an accumulation that divides it"
            )
        self.config = config
        self.backbone = backbone
        self.data = data
        self.device = device
        self.policy, self.init = config.weights.start(backbone.load_network, config.seed)
        self.reference = config.reference.start(self.init)
        self.average = None if config.ema is None else config.ema.start(self.policy)
        self._prepare()
        self.optimizer = config.optimizer.start(self.policy.parameters())
        self.scaler = new_scaler(config.precision, device)
        self.stream = Stream(config.seed, len(data), data.latent_shape)
        self.scale = config.timesteps.scale.factors(backbone.snr).to(device)
        self.step = 0

    def _prepare(self) -> None:
        """Make the networks ready to run; a frozen reference is the pretrained network itself."""
        config = self.config
        roles = (self.policy, self.init, self.reference.model)
        networks = {id(n): n for n in map(config.weights.network, roles)}
        for network in networks.values():
            prepare(network, config.channels_last, config.compile)
        if config.gradient_checkpointing:
            recompute(config.weights.network(self.policy))

    @property
    def result(self) -> nn.Module:
        """What the run is for: the policy, or its average."""
        ema = self.config.ema
        if ema is None or self.average is None or ema.result == "policy":
            return self.policy
        return self.average

    def run(self, folder: Path, on_step: OnStep | None = None, checkpoint_every: int = 50) -> None:
        """Train to the end, from the checkpoint in ``folder`` if there is one.

        Leaves the network and the log of every step in ``folder``. How often a checkpoint is
        written changes nothing in the result.
        """
        self._resume(folder)
        with closing(MetricsLog(folder / METRICS, keep=self.step)) as log:
            while self.step < self.config.steps:
                metrics = self.advance()
                log.write(metrics)
                if on_step is not None:
                    on_step(self.step, metrics)
                if self.step % checkpoint_every == 0 and self.step < self.config.steps:
                    log.sync()
                    self._save(folder)
            log.sync()
        self.config.weights.save(self.result, self.backbone, folder)
        (folder / CHECKPOINT).unlink(missing_ok=True)

    def advance(self) -> StepMetrics:
        """Make one optimiser step."""
        config = self.config
        lr = config.optimizer.lr_at(self.step, config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        draws = self.stream.at(self.step * config.batch_size, config.batch_size)
        timesteps = config.timesteps.law.timesteps(draws.uniform, len(self.backbone.snr))
        self.optimizer.zero_grad(set_to_none=True)
        parts = [
            self._backward(draws, timesteps, rows)
            for rows in torch.arange(config.batch_size).chunk(config.accumulation)
        ]
        norm = self._update(parts)
        self.step += 1
        if config.ema is not None and self.average is not None:
            config.ema.after_step(self.step, self.average, self.policy)
        event = self.reference.after_step(
            self.step, self.policy, lambda network, n: self._divergence(network, draws.rows[:n])
        )
        return self._metrics(parts, timesteps, norm, lr, event)

    def _update(self, parts: list[tuple[Tensor, PairErrors]]) -> float | None:
        """Apply the gradients. Gives their norm; None if they overflowed, and nothing was done."""
        self.scaler.unscale_(self.optimizer)
        bound = self.config.optimizer.max_grad_norm
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), bound)
        finite = bool(torch.isfinite(norm))
        # Float16 overflows at too large a loss scale; the scaler lowers it, but not below 1 here.
        mends = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if not finite and not (mends and all(losses.isfinite().all() for losses, _ in parts)):
            raise FloatingPointError(
                f"the gradient of step {self.step + 1} is not finite: lower the learning rate"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return float(norm) if finite else None

    def _backward(self, draws: Draws, timesteps: Tensor, rows: Tensor) -> tuple[Tensor, PairErrors]:
        """Losses and errors of some rows of the batch; adds their share to the gradients."""
        batch = self._batch(draws, timesteps, rows)
        winner, loser = self._errors(self.policy, batch).chunk(2)
        with torch.no_grad():
            ref_winner, ref_loser = self._errors(self.reference.model, batch).chunk(2)
        preference = self.data.preference(draws.rows[rows]).float().to(self.device)
        errors = PairErrors(winner, loser, ref_winner, ref_loser, preference)
        losses = self.config.objective.loss(errors, self.scale[timesteps[rows].to(self.device)])
        self.scaler.scale(losses.sum() / self.config.batch_size).backward()
        detached = (e.detach() for e in (winner, loser, ref_winner, ref_loser))
        return losses.detach(), PairErrors(*detached)

    def _batch(self, draws: Draws, timesteps: Tensor, rows: Tensor) -> _Batch:
        pairs, (first, second) = draws.rows[rows], draws.posterior[:, rows]
        winner, loser = self.data.images(pairs)
        samples = [winner.mean + winner.std * first, loser.mean + loser.std * second]
        condition = self.data.condition(pairs, draws.drop[rows] < self.config.caption_dropout)
        latents = torch.cat(samples).to(self.device)
        noise = draws.noise[rows].repeat(2, 1, 1, 1).to(self.device)
        both = timesteps[rows].repeat(2).to(self.device)
        return _Batch(
            noisy=self.backbone.add_noise(latents, noise, both),
            target=self.backbone.target(latents, noise, both),
            timesteps=both,
            condition={k: torch.cat([v, v]).to(self.device) for k, v in condition.items()},
        )

    def _errors(self, network: nn.Module, batch: _Batch) -> Tensor:
        """Mean over C, H, W of the squared error of each sample, in float32."""
        noisy = lay_out(batch.noisy, self.config.channels_last)
        with autocast(self.config.precision, self.device):
            prediction = self.backbone.predict(network, noisy, batch.timesteps, batch.condition)
        return (prediction.float() - batch.target.float()).square().flatten(1).mean(1)

    @torch.no_grad()
    def _divergence(self, network: nn.Module, pairs: Tensor) -> float:
        """How much worse than the pretrained model ``network`` denoises the winners of ``pairs``.

        Its timesteps are uniform and its noise its own, so that arms with different laws are
        measured alike.
        """
        uniform, noise = self.stream.gate(self.step, len(pairs))
        timesteps = (uniform * len(self.backbone.snr)).long().to(self.device)
        winner, _ = self.data.images(pairs)
        latents, noise = winner.mean.to(self.device), noise.to(self.device)
        condition = self.data.condition(pairs, torch.zeros(len(pairs), dtype=torch.bool))
        batch = _Batch(
            noisy=self.backbone.add_noise(latents, noise, timesteps),
            target=self.backbone.target(latents, noise, timesteps),
            timesteps=timesteps,
            condition={name: values.to(self.device) for name, values in condition.items()},
        )
        return float((self._errors(network, batch) - self._errors(self.init, batch)).mean())

    def _metrics(
        self,
        parts: list[tuple[Tensor, PairErrors]],
        timesteps: Tensor,
        norm: float | None,
        lr: float,
        event: Event,
    ) -> StepMetrics:
        def mean(values: list[Tensor]) -> float:
            return float(torch.cat(values).mean())

        margins = [errors.margin for _, errors in parts]
        correct = [(m > 0).float() + 0.5 * (m == 0).float() for m in margins]
        return StepMetrics(
            step=self.step,
            loss=mean([losses for losses, _ in parts]),
            policy_winner=mean([e.policy_winner for _, e in parts]),
            policy_loser=mean([e.policy_loser for _, e in parts]),
            reference_winner=mean([e.reference_winner for _, e in parts]),
            reference_loser=mean([e.reference_loser for _, e in parts]),
            margin=mean(margins),
            accuracy=mean(correct),
            divergence=event.divergence,
            reference_action=event.action,
            grad_norm=norm,
            lr=lr,
            timestep_deciles=decile_counts(timesteps, len(self.backbone.snr)),
        )

    def _modules(self) -> dict[str, nn.Module]:
        average = {} if self.average is None else {"average": self.average}
        return {"policy": self.policy, **average, **self.reference.modules()}

    def _save(self, folder: Path) -> None:
        state = {
            "step": self.step,
            "run_id": self.config.run_id(),
            "reference": self.reference.state(),
            "scaler": self.scaler.state_dict(),
        }
        checkpoint.save(folder / CHECKPOINT, self._modules(), self.optimizer, state)

    def _resume(self, folder: Path) -> None:
        path = folder / CHECKPOINT
        if not path.exists():
            return
        state = checkpoint.read_state(path)
        if state["run_id"] != self.config.run_id():
            raise UserError(
                f"{path} belongs to another run: train into an empty folder, or delete it"
            )
        checkpoint.load(path, self._modules(), self.optimizer)
        self.step = state["step"]
        self.reference.load_state(state["reference"])
        self.scaler.load_state_dict(state["scaler"])
