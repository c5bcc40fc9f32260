"""Samplers by name, and which of them fit a backbone. Imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Any

from trainers.errors import UserError


@dataclass(frozen=True)
class Sampler:
    """A scheduler of diffusers, made from the config of the model's own."""

    scheduler: str
    """Name of the class."""
    process: str
    """Kind of backbone that it is for; see ``Backbone.process``."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What is set whatever the model's config says."""
    takes_eta: bool = False
    """Whether it can mix fresh noise in at each step."""

    def of(self, pipeline: Any) -> Any:
        """The scheduler for a pipeline."""
        import diffusers

        kind = getattr(diffusers, self.scheduler)
        return kind.from_config(pipeline.scheduler.config, **self.settings)


SAMPLERS = {
    # Its default clips x_0 to [-1, 1], which is meant for pixels, where a config does not say.
    "ddim": Sampler("DDIMScheduler", "diffusion", {"clip_sample": False}, takes_eta=True),
    "euler": Sampler("EulerDiscreteScheduler", "diffusion"),
    "dpm++": Sampler("DPMSolverMultistepScheduler", "diffusion"),
    "flow-euler": Sampler("FlowMatchEulerDiscreteScheduler", "flow"),
}


def fitting(name: str, backbone: str, eta: float = 0.0) -> Sampler:
    """The sampler called ``name``.

    Raises:
        UserError: If there is none, it does not fit the backbone, or takes no ``eta`` above 0.
    """
    from trainers.backbones import BACKBONES  # Heavy, and the names above need none of it.
    from trainers.input.checked import shown

    process = BACKBONES.get(backbone).process
    good = [known for known, sampler in SAMPLERS.items() if sampler.process == process]
    if name not in good:
        raise UserError(
            f"sampler {shown(name)} cannot sample from backbone {shown(backbone)}: set "
            f"generate.sampler to {' or '.join(good)}"
        )
    if eta and not SAMPLERS[name].takes_eta:
        able = [known for known in good if SAMPLERS[known].takes_eta]
        raise UserError(
            f"sampler {shown(name)} takes no eta: set generate.eta to 0"
            + (f", or generate.sampler to {' or '.join(able)}" if able else "")
        )
    return SAMPLERS[name]
