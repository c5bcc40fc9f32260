"""Samplers by name, and which of them fit a backbone. Imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Any

from trainers.backbones import BACKBONES
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


def fitting(name: str, backbone: str) -> Sampler:
    """The sampler called ``name``.

    Raises:
        UserError: If there is none, or it does not fit the backbone.
    """
    process = BACKBONES.get(backbone).process
    good = [known for known, sampler in SAMPLERS.items() if sampler.process == process]
    if name not in good:
        raise UserError(
            f"sampler {name!r} cannot sample from backbone {backbone!r}: set generate.sampler to "
            f"{' or '.join(good)}"
        )
    return SAMPLERS[name]
