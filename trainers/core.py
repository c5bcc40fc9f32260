"""The one training loop that every arm runs through."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers import checkpoint
from trainers.backbones import Backbone, Condition
from trainers.config import TrainConfig
from trainers.data.base import PairData
from trainers.errors import NotFinite, UserError
from trainers.files import clear, clear_parts, tell, writing
from trainers.input.tensors import not_finite
from trainers.machine.batches import split_batch
from trainers.machine.execution import (
    autocast,
    configure_network,
    enable_gradient_checkpointing,
    grad_scaler,
    set_matmul,
    to_device,
    to_memory_format,
)
from trainers.machine.processes import ALONE, Processes
from trainers.machine.sharding import full_tensor, gather_network
from trainers.metrics import MetricsLog, NoLog, StepMetrics, StepStatistics, log_sha256
from trainers.objectives import PairErrors
from trainers.record import CHECKPOINT, METRICS, write_record
from trainers.sealed import drop, take
from trainers.streams import Draws, Stream

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
        self,
        config: TrainConfig,
        backbone: Backbone,
        data: PairData,
        processes: Processes = ALONE,
    ) -> None:
        """Set a run up at step 0.

        Raises:
            UserError: If the batch cannot be split over the processes in equal parts, or a setting
                does not fit the backbone or needs a package that is not installed.
        """
        self.config = config
        self.backbone = backbone
        self.data = data
        self.processes = processes
        self.device = processes.device
        self.split = split_batch(config.batch_size, config.accumulation, processes.count)
        if processes.sharding:
            config.check_shardable()
        self.policy, self.init = config.weights.start(self._load, config.seed)
        self.reference = config.reference.start(self.init)
        self.average = None if config.ema is None else config.ema.start(self.policy)
        self._configure_networks()
        self.optimizer = config.optimizer.start(self.policy.parameters())
        self.scaler = grad_scaler(config.precision, self.device)
        self.stream = Stream(config.seed, len(data), data.latent_shape)
        self.scale = config.timesteps.scale.factors(backbone.snr).to(self.device)
        self.step = 0

    def _load(self) -> nn.Module:
        """The pretrained network; one that is to be sharded need not fit on the device."""
        network = self.backbone.load_network()
        return network.cpu() if self.processes.sharding else network

    def _configure_networks(self) -> None:
        """Shard and configure each network; a frozen reference is the pretrained one itself."""
        config, sharding = self.config, self.processes.sharding
        average = [] if self.average is None else [self.average]
        roles = (self.policy, self.init, self.reference.model, *average)
        networks = {id(n): n for n in map(config.weights.network, roles)}
        for network in networks.values():
            if sharding:
                sharding.shard(network)
            configure_network(network, config.channels_last, config.compile)
        if config.gradient_checkpointing:
            enable_gradient_checkpointing(config.weights.network(self.policy))

    @property
    def result(self) -> nn.Module:
        """What the run is for: the policy, or its average."""
        ema = self.config.ema
        if ema is None or self.average is None or ema.result == "policy":
            return self.policy
        return self.average

    def run(
        self,
        folder: Path,
        on_step: OnStep | None = None,
        checkpoint_every: int = 50,
        keep_checkpoint: bool = False,
    ) -> None:
        """Train to the end, from the checkpoint in ``folder`` if there is one.

        That may be one of a run of other length whose steps so far are the same. Leaves the
        network, the log of every step and a record of them in ``folder``, and the last checkpoint
        if it is to be kept. How often one is written changes nothing in the result.
        """
        self._resume(folder)
        main, log_file = self.processes.main, folder / METRICS
        if main:  # What an attempt has left that was cut short while it wrote the network.
            clear(folder / self.backbone.network_part)
        with closing(MetricsLog(log_file, keep=self.step) if main else NoLog()) as log:
            while self.step < self.config.steps:
                metrics = self.advance()
                log.write(metrics)
                if main and on_step is not None:
                    on_step(self.step, metrics)
                # The last step, too: what is trained is not lost while the network is written.
                if self.step % checkpoint_every == 0 or self.step == self.config.steps:
                    log.sync()
                    self._save(folder, log.sha256)
            log.sync()
        self._save_result(folder, keep_checkpoint)

    def _save_result(self, folder: Path, keep_checkpoint: bool) -> None:
        """Write what was trained; processes whose weights are needed for it take part."""
        result: nn.Module | None = self.result
        if self.processes.sharding:
            result = gather_network(self.result, self._load, self.processes.main)
        if self.processes.main and result is not None:
            with writing(folder):
                self.config.weights.save(result, self.backbone, folder)
            write_record(folder, self.config)
            if not keep_checkpoint:
                drop(folder / CHECKPOINT)

    def advance(self) -> StepMetrics:
        """Make one optimiser step."""
        config = self.config
        lr = config.optimizer.lr_at(self.step, config.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        first = self.step * config.batch_size
        draws = self.stream.at(first + self.processes.rank * self.split.rows, self.split.rows)
        timesteps = config.timesteps.law.timesteps(draws.uniform, len(self.backbone.snr))
        self.optimizer.zero_grad(set_to_none=True)
        parts = [
            self._backward(draws, timesteps, rows)
            for rows in torch.arange(self.split.rows).chunk(self.split.parts)
        ]
        columns = self.processes.gather(torch.cat(parts, dim=1))
        statistics, norm = self._update(columns, lambda: self._fault(draws, timesteps, columns))
        self.step += 1
        if config.ema is not None and self.average is not None:
            config.ema.after_step(self.step, self.average, self.policy)
        event = self.reference.after_step(
            self.step, self.policy, lambda network, n: self._divergence(network, first, n)
        )
        return statistics.metrics(self.step, norm, lr, event, len(self.backbone.snr))

    def _update(
        self, columns: Tensor, fault: Callable[[], str]
    ) -> tuple[StepStatistics, float | None]:
        """Apply the gradients; ``columns`` are the statistics of the batch, on the device.

        ``fault`` says what is wrong where they are not finite.

        Gives them and the norm of the gradients: None if they overflowed, and nothing was done. All
        comes from the device in one transfer, the only one that a step waits for (the scaler of
        float16 waits for one of its own).
        """
        self.processes.sum_gradients(self.policy)
        self.scaler.unscale_(self.optimizer)
        bound = self.config.optimizer.max_grad_norm
        norm = full_tensor(nn.utils.clip_grad_norm_(self.policy.parameters(), bound))
        values = torch.cat([columns.flatten(), norm.reshape(1)]).cpu()
        statistics = StepStatistics(values[:-1].view_as(columns))
        length = float(values[-1])
        finite = math.isfinite(length)
        # Float16 overflows at too large a loss scale; the scaler lowers it, but not below 1 here.
        mends = self.scaler.is_enabled() and self.scaler.get_scale() > 1
        if not finite and not (mends and statistics.finite):
            raise NotFinite(f"the gradient of step {self.step + 1} is not finite: {fault()}")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return statistics, length if finite else None

    @torch.no_grad()
    def _fault(self, draws: Draws, timesteps: Tensor, columns: Tensor) -> str:
        """Why a step was not finite, and what to do: what went in may not have been either.

        Each process says so of its own rows, and waits for no other.
        """
        batch = self._batch(draws, timesteps, torch.arange(self.split.rows))
        inputs = {"images": batch.noisy, "targets": batch.target, **batch.condition}
        if bad := not_finite(inputs.items()):
            return (
                f"the encodings of its pairs hold NaN or infinities ({', '.join(bad)}), from the "
                "autoencoder or a text encoder of the base model: delete them, and take another "
                "base model or data.precision float32"
            )
        if self.reference.model is self.init and not columns[3:5].isfinite().all():
            return "nor is what the pretrained network predicts: take another base model or float32"
        return "lower the learning rate"

    def _backward(self, draws: Draws, timesteps: Tensor, rows: Tensor) -> Tensor:
        """Add some rows' part to the gradients; gives the columns of :class:`StepStatistics`."""
        batch = self._batch(draws, timesteps, rows)
        # The reference first: what its forward takes is free again before the policy's is kept.
        with torch.no_grad():
            ref_winner, ref_loser = self._errors(self.reference.model, batch).chunk(2)
        winner, loser = self._errors(self.policy, batch).chunk(2)
        preference = to_device(self.data.preference(draws.rows[rows]).float(), self.device)
        errors = PairErrors(winner, loser, ref_winner, ref_loser, preference)
        steps = batch.timesteps[: len(rows)]
        losses = self.config.objective.loss(errors, self.scale[steps])
        loss = losses.sum() * self.processes.gradient_factor / self.config.batch_size
        self.scaler.scale(loss).backward()
        columns = (losses, winner, loser, ref_winner, ref_loser, steps)
        return torch.stack([column.detach().to(losses.dtype) for column in columns])

    def _batch(self, draws: Draws, timesteps: Tensor, rows: Tensor) -> _Batch:
        pairs, (first, second) = draws.rows[rows], draws.posterior[:, rows]
        winner, loser = self.data.images(pairs)
        samples = [winner.mean + winner.std * first, loser.mean + loser.std * second]
        condition = self.data.condition(pairs, draws.drop[rows] < self.config.caption_dropout)
        latents = to_device(torch.cat(samples), self.device)
        noise = to_device(draws.noise[rows], self.device).repeat(2, 1, 1, 1)
        both = to_device(timesteps[rows], self.device).repeat(2)
        condition = {name: to_device(values, self.device) for name, values in condition.items()}
        return _Batch(
            noisy=self.backbone.add_noise(latents, noise, both),
            target=self.backbone.target(latents, noise, both),
            timesteps=both,
            condition={name: torch.cat([values, values]) for name, values in condition.items()},
        )

    def _errors(self, network: nn.Module, batch: _Batch) -> Tensor:
        """Mean over C, H, W of the squared error of each sample, in float32."""
        set_matmul(self.config.matmul)  # Here, since encoding in the loop is always in float32.
        noisy = to_memory_format(batch.noisy, self.config.channels_last)
        with autocast(self.config.precision, self.device):
            prediction = self.backbone.predict(network, noisy, batch.timesteps, batch.condition)
        return (prediction.float() - batch.target.float()).square().flatten(1).mean(1)

    @torch.no_grad()
    def _divergence(self, network: nn.Module, first: int, count: int) -> float:
        """How much worse than the pretrained model ``network`` denoises the first winners.

        Its timesteps are uniform and its noise its own, so that arms with different laws are
        measured alike. Every process measures all of it, and the first one's value counts.
        """
        pairs = self.stream.rows(first, min(count, self.config.batch_size))
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
        worse = (self._errors(network, batch) - self._errors(self.init, batch)).mean()
        return self.processes.first(float(worse))

    def _modules(self) -> dict[str, nn.Module]:
        average = {} if self.average is None else {"average": self.average}
        return {"policy": self.policy, **average, **self.reference.modules()}

    def _save(self, folder: Path, log_sha256: str) -> None:
        state = {
            "step": self.step,
            "log": log_sha256,
            "prefix_id": self.config.prefix_id(),
            "reference": self.reference.state(),
            "scaler": self.scaler.state_dict(),
        }
        path = folder / CHECKPOINT if self.processes.main else None
        checkpoint.save(path, self._modules(), self.optimizer, state)

    def _resume(self, folder: Path) -> None:
        """Go on from a checkpoint, if it and the log up to it are as they were written."""
        path, first = folder / CHECKPOINT, self.processes.first
        if self.processes.main:
            clear_parts(folder)
        if not first(float(self.processes.main and take(path))):
            return
        state = checkpoint.read_state(path)
        same = state.get("prefix_id") == self.config.prefix_id()
        if not same or state["step"] > self.config.steps:
            raise UserError(
                f"{path} belongs to another run: train into an empty folder, or delete it"
            )
        if not first(float(self.processes.main and _logged(folder, state))):
            return
        checkpoint.load(path, self._modules(), self.optimizer)
        self.step = state["step"]
        self.reference.load_state(state["reference"])
        self.scaler.load_state_dict(state["scaler"])


def _logged(folder: Path, state: dict[str, Any]) -> bool:
    """Whether the steps before a checkpoint are in the log; without them, it is of no use."""
    if log_sha256(folder / METRICS, state["step"]) == state["log"]:
        return True
    tell(
        f"{folder / METRICS} is not what was written there (its sha256 differs): the run is made "
        "again from its first step"
    )
    drop(folder / CHECKPOINT)
    return False
