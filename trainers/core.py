"""The one training loop that every arm runs through."""

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainers import checkpoint
from trainers.backbones import Backbone
from trainers.config import TrainConfig
from trainers.data.base import PairData
from trainers.errors import NotFinite, UserError
from trainers.examples import Examples, Inputs, check_columns
from trainers.files import clear, clear_parts, tell, writing
from trainers.input.tensors import not_finite
from trainers.machine.batches import split_batch
from trainers.machine.execution import (
    configure_network,
    enable_gradient_checkpointing,
    grad_scaler,
)
from trainers.machine.leaving import asked, leave_if_asked
from trainers.machine.processes import ALONE, Processes
from trainers.machine.sharding import full_tensor, gather_network
from trainers.metrics import (
    MetricsLog,
    NoLog,
    StepMetrics,
    StepStatistics,
    columns_of,
    log_sha256,
)
from trainers.objectives import Batch, Values
from trainers.objectives.means import as_state, group_means, group_size, stepped
from trainers.record import CHECKPOINT, METRICS, write_record
from trainers.reference_errors import known_positions, spares_network
from trainers.references import Event
from trainers.sealed import drop, take
from trainers.streams import Draws, Stream

OnStep = Callable[[int, StepMetrics], None]
Means = list[Values]
"""Of safeguard and objective, in this order: means over the group of each row, by name."""


class Trainer:
    """A run: the policy, its reference and average, the optimiser and the stream of examples."""

    def __init__(
        self,
        config: TrainConfig,
        backbone: Backbone,
        data: PairData,
        processes: Processes = ALONE,
        known: Tensor | None = None,
    ) -> None:
        """Set a run up at step 0.

        Args:
            config: The run.
            backbone: Its model.
            data: Its pairs.
            processes: Those that train it.
            known: Errors of the pretrained network at the first ``k`` positions of the stream,
                ``float32[images, k]``: no network is run, or held, for them. A run whose weights
                are sharded computes its own.

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
        check_columns(config.objective, data)
        if processes.sharding:
            config.check_shardable()
        known = None if processes.sharding else known
        if known is not None:
            known = known[:, : known_positions(config)]
        spared = known is not None and spares_network(config, known.shape[1])
        held = config.objective.referenced and not spared
        self.policy, self.init = config.weights.start(self._load, config.seed, held)
        self.reference = None if self.init is None else config.reference.start(self.init)
        self.average = None if config.ema is None else config.ema.start(self.policy)
        self._configure_networks()
        self.optimizer = config.optimizer.start(self.policy.parameters())
        self.scaler = grad_scaler(config.precision, self.device)
        self.stream = Stream(config.seed, len(data), data.latent_shape)
        self.scale = config.timesteps.scale.factors(backbone.snr).to(self.device)
        self.examples = Examples(config, backbone, data, self.stream, self.scale, known)
        self.groups = [group_size(plugin, config.batch_size) for plugin in config.averaging]
        self.looks_ahead = config.looks_ahead(self.split)
        self.state = as_state(config.objective.initial_state(), self.device)
        self.step = 0

    def _load(self) -> nn.Module:
        """The pretrained network; one that is to be sharded need not fit on the device."""
        network = self.backbone.load_network()
        return network.cpu() if self.processes.sharding else network

    def _configure_networks(self) -> None:
        """Shard and configure each network; a frozen reference is the pretrained one itself."""
        config, sharding = self.config, self.processes.sharding
        roles = (self.policy, self.init, self._reference, self.average)
        held = (config.weights.network(role) for role in roles if role is not None)
        networks = {id(network): network for network in held}
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

        Raises:
            Leave: If the process is asked to leave, once there is a checkpoint.
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
                last = self.step == self.config.steps
                if self.step % checkpoint_every == 0 or last or asked():
                    log.sync()
                    self._save(folder, log.sha256)
                    leave_if_asked()
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
        draws = self.stream.at(first + self._offset, self.split.rows)
        timesteps = config.timesteps.law.timesteps(draws.uniform, len(self.backbone.snr))
        self.optimizer.zero_grad(set_to_none=True)
        parts = torch.arange(self.split.rows).chunk(self.split.parts)
        means = self._means_ahead(draws, timesteps, parts) if self.looks_ahead else None
        columns = [
            self._backward(draws.part(rows), timesteps[rows], _pick(means, rows)) for rows in parts
        ]
        names = columns[0].keys()
        stacked = torch.stack([torch.cat([part[name] for part in columns]) for name in names])
        statistics, norm = self._update(
            [*names], self.processes.gather(stacked), lambda: self._fault(draws, timesteps)
        )
        event = self._act(first)
        return statistics.metrics(self.step, norm, lr, event, len(self.backbone.snr))

    @property
    def _offset(self) -> int:
        """Where this process's rows begin in a batch."""
        return self.processes.rank * self.split.rows

    @property
    def _reference(self) -> nn.Module | None:
        """The network of the reference, if there is one."""
        return None if self.reference is None else self.reference.model

    def _act(self, first: int) -> Event:
        """Count the step, whose batch began at ``first``; let average and reference follow."""
        self.step += 1
        if self.config.ema is not None and self.average is not None:
            self.config.ema.after_step(self.step, self.average, self.policy)
        if self.reference is None:
            return Event("none", None)
        return self.reference.after_step(
            self.step, self.policy, lambda network, n: self._divergence(network, first, n)
        )

    def _update(
        self, names: list[str], columns: Tensor, fault: Callable[[], str]
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
        found = values[:-1].view_as(columns)
        statistics = StepStatistics(dict(zip(names, found, strict=True)))
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
    def _fault(self, draws: Draws, timesteps: Tensor) -> str:
        """Why a step was not finite, and what to do: what went in may not have been either.

        Each process says so of its own rows, and waits for no other.
        """
        inputs = self.examples.inputs(draws, timesteps, self.policy)
        shown = {"images": inputs.noisy, "targets": inputs.target, **inputs.condition}
        if bad := not_finite(shown.items()):
            return (
                f"the encodings of its pairs hold NaN or infinities ({', '.join(bad)}), from the "
                "autoencoder or a text encoder of the base model: delete them, and take another "
                "base model or data.precision float32"
            )
        errors = self.examples.known_errors(draws)
        if errors is None and self.init is not None:
            errors = self.examples.errors(self.init, inputs)
        if errors is not None and not errors.isfinite().all():
            return "nor is what the pretrained network predicts: take another base model or float32"
        return "lower the learning rate"

    def _backward(self, draws: Draws, timesteps: Tensor, means: Means | None) -> Values:
        """Add some rows' part to the gradients; gives the columns of :class:`StepStatistics`."""
        config = self.config
        inputs = self.examples.inputs(draws, timesteps, self.policy)
        batch = self.examples.batch(inputs, draws, self.policy, self._reference)
        if means is None:
            means = self._averaged(self._statistics(inputs, draws, batch))
        guarded = config.safeguard.guard(replace(batch, means=means[0]))
        shown = replace(guarded, means=means[1], state=self.state)
        losses = config.objective.losses(shown)
        loss = losses.sum() * self.processes.gradient_factor / config.batch_size
        self.scaler.scale(loss).backward()
        with torch.no_grad():
            figures = [config.safeguard.figures(replace(batch, means=means[0])),
                       config.objective.figures(shown)]  # fmt: skip
        return columns_of(losses.detach(), batch, self.examples.sides(draws), *figures)

    @torch.no_grad()
    def _statistics(self, inputs: Inputs, draws: Draws, batch: Batch) -> Means:
        """What safeguard and objective look at means of, row by row."""
        if self.config.objective.mismatched and self._reference is not None:
            captions = self.stream.captions_of_next(draws.positions, self.config.batch_size)
            args = (inputs, draws, captions, self.policy, self._reference)
            batch = replace(batch, mismatched=self.examples.mismatched(*args))
        return [plugin.statistics(batch) for plugin in self.config.averaging]

    @torch.no_grad()
    def _means_ahead(self, draws: Draws, timesteps: Tensor, parts: Sequence[Tensor]) -> Means:
        """The means of this process's rows, by a pass over all of the batch."""
        found: list[Means] = []
        for part in parts:
            own_draws = draws.part(part)
            inputs = self.examples.inputs(own_draws, timesteps[part], self.policy)
            batch = self.examples.batch(inputs, own_draws, self.policy, self._reference)
            found.append(self._statistics(inputs, own_draws, batch))
        whole: Means = []
        for columns in zip(*found, strict=True):
            names = [*columns[0]]
            own = [torch.cat([part[name] for part in columns]) for name in names]
            every = self.processes.gather(torch.stack(own)) if own else own
            whole.append(dict(zip(names, every, strict=True)))
        rows = torch.arange(self.split.rows) + self._offset
        return _pick(self._averaged(whole), rows.to(self.device)) or []

    def _averaged(self, statistics: Means) -> Means:
        """Means over groups, with which the objective's state goes on."""
        pairs = zip(statistics, self.groups, strict=True)
        means = [group_means(values, group) for values, group in pairs]
        self.state = stepped(self.config.objective, self.state, means[1])
        return means

    @torch.no_grad()
    def _divergence(self, network: nn.Module, first: int, count: int) -> float:
        """How much worse than the pretrained model ``network`` denoises the first winners.

        Its timesteps are uniform and its noise its own, so that arms with different laws are
        measured alike. Every process measures all of it, and the first one's value counts.
        """
        assert self.init is not None, "a reference that measures has a pretrained network"
        pairs = self.stream.rows(first, min(count, self.config.batch_size))
        inputs = self.examples.winners(pairs, *self.stream.gate(self.step, len(pairs)))
        now, then = (self.examples.errors(each, inputs) for each in (network, self.init))
        return self.processes.first(float((now - then).mean()))

    def _modules(self) -> dict[str, nn.Module]:
        average = {} if self.average is None else {"average": self.average}
        reference = {} if self.reference is None else self.reference.modules()
        return {"policy": self.policy, **average, **reference}

    def _save(self, folder: Path, log_sha256: str) -> None:
        state = {
            "step": self.step,
            "log": log_sha256,
            "prefix_id": self.config.prefix_id(),
            "reference": {} if self.reference is None else self.reference.state(),
            "objective": {name: float(value) for name, value in self.state.items()},
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
        if self.reference is not None:
            self.reference.load_state(state["reference"])
        self.state = as_state(state["objective"], self.device)
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


def _pick(means: Means | None, rows: Tensor) -> Means | None:
    """The means of some rows."""
    if means is None:
        return None
    return [{name: column[rows] for name, column in values.items()} for values in means]
