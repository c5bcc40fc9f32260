"""Published checkpoints in PyTorch's format to safetensors with the names of transformers.

They are read without running any code that they might hold, once; the result is kept.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from trainers.files import sha256_file, write_atomically, write_text
from trainers.home import home
from trainers.input.tensors import Tensors, read_checkpoint, read_tensors


def read_converted(path: Path, convert: Callable[[Tensors], Tensors], version: int) -> Tensors:
    """The converted tensors of a checkpoint, from an earlier conversion if there was one.

    Args:
        path: The checkpoint: a mapping of names to tensors, or one below ``state_dict``.
        convert: What to rename.
        version: Raised when ``convert`` changes.

    Raises:
        UserError: If the file is something else, or a value is not finite.
    """
    target = home() / "converted" / f"{sha256_file(path)}-{version}.safetensors"
    witness = target.with_suffix(".sha256")
    # The hash is written last: a conversion that was cut short is made again.
    if witness.is_file() and target.is_file() and witness.read_text() == sha256_file(target):
        return read_tensors(target)
    converted = convert(read_checkpoint(path))
    tensors = {name: tensor.contiguous().clone() for name, tensor in converted.items()}
    write_atomically(target, lambda part: save_file(tensors, part, {"from": json.dumps(path.name)}))
    write_text(witness, sha256_file(target))
    return tensors


def _rename(
    tensors: Mapping[str, Tensor], rules: Mapping[str, str], unused: str | None = None
) -> Tensors:
    """Names by the first pattern that matches from the start.

    Those that ``unused`` matches go; those that nothing matches stay, to be refused.
    """
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        if unused is not None and re.match(unused, name):
            continue
        matches = ((re.match(pattern, name), new) for pattern, new in rules.items())
        match, new = next(((m, new) for m, new in matches if m), (None, ""))
        renamed[match.expand(new) + name[match.end() :] if match else name] = tensor
    return renamed


_BLOCK = r"transformer\.resblocks\.(\d+)\."
_OPEN_CLIP = {
    rf"{where}{_BLOCK}{part}": rf"{model}.encoder.layers.\1.{name}"
    for where, model in ((r"visual\.", "vision_model"), ("", "text_model"))
    for part, name in (
        (r"ln_1", "layer_norm1"),
        (r"ln_2", "layer_norm2"),
        (r"attn\.out_proj", "self_attn.out_proj"),
        (r"attn\.in_proj_", "self_attn.in_proj."),
        (r"mlp\.c_fc", "mlp.fc1"),
        (r"mlp\.c_proj", "mlp.fc2"),
    )
} | {
    r"visual\.class_embedding": "vision_model.embeddings.class_embedding",
    r"visual\.conv1": "vision_model.embeddings.patch_embedding",
    r"visual\.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    r"visual\.ln_pre": "vision_model.pre_layrnorm",
    r"visual\.ln_post": "vision_model.post_layernorm",
    r"visual\.proj": "visual_projection.weight",
    r"token_embedding": "text_model.embeddings.token_embedding",
    r"positional_embedding": "text_model.embeddings.position_embedding.weight",
    r"ln_final": "text_model.final_layer_norm",
    r"text_projection": "text_projection.weight",
    r"logit_scale": "logit_scale",
}


def clip_from_open_clip(tensors: Tensors) -> Tensors:
    """Tensors of an open_clip model as those of ``transformers.CLIPModel``."""
    converted: Tensors = {}
    for name, tensor in _rename(tensors, _OPEN_CLIP).items():
        if ".in_proj." in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                converted[name.replace("in_proj.", f"{part}_proj.")] = third
        else:
            # Projections are applied from the right there and from the left here.
            converted[name] = tensor.T if "projection" in name else tensor
    return converted


_BLIP = {
    r"blip\.visual_encoder\.blocks\.(\d+)\.norm(\d)": r"vision.encoder.layers.\1.layer_norm\2",
    r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.qkv": r"vision.encoder.layers.\1.self_attn.qkv",
    r"blip\.visual_encoder\.blocks\.(\d+)\.attn\.proj": (
        r"vision.encoder.layers.\1.self_attn.projection"
    ),
    r"blip\.visual_encoder\.blocks\.(\d+)\.mlp": r"vision.encoder.layers.\1.mlp",
    r"blip\.visual_encoder\.cls_token": "vision.embeddings.class_embedding",
    r"blip\.visual_encoder\.pos_embed": "vision.embeddings.position_embedding",
    r"blip\.visual_encoder\.patch_embed\.proj": "vision.embeddings.patch_embedding",
    r"blip\.visual_encoder\.norm": "vision.post_layernorm",
    r"blip\.text_encoder\.embeddings\.position_ids": "position_ids",
    r"blip\.text_encoder": "text",
    r"mlp": "head",
}


def blip_from_imagereward(tensors: Tensors) -> Tensors:
    """Tensors of an ImageReward checkpoint as those of :class:`bench.rewards.kit.blip.Blip`.

    Heads of BLIP's own training, which the reward does not use, are left out.
    """
    renamed = _rename(tensors, _BLIP, r"blip\.(?!visual_encoder\.|text_encoder\.)")
    renamed.pop("position_ids", None)
    return renamed
