"""Small models in the layouts of the published ones, with weights made from their names.

Imports numpy alone.
"""

import hashlib
import math
from typing import Any

import numpy as np

State = dict[str, np.ndarray]
Config = dict[str, Any]

CLIP_WORDS = 49408
BERT_WORDS = 30524


def _clip(
    vision: tuple[int, int, int, int], text: tuple[int, int, int], width: int, act: str
) -> dict[str, Any]:
    """A transformers ``CLIPConfig``.

    Args:
        vision: Width, heads, layers and patch of the image model.
        text: Width, heads and layers of the text model.
        width: Number of features.
        act: Activation. The published config of the models with quick_gelu says that the text
            ends with token 2, which transformers takes for the token of the largest number.
    """
    return {
        "model_type": "clip",
        "projection_dim": width,
        "text_config": {
            "hidden_size": text[0],
            "intermediate_size": 4 * text[0],
            "num_attention_heads": text[1],
            "num_hidden_layers": text[2],
            "max_position_embeddings": 77,
            "vocab_size": CLIP_WORDS,
            "hidden_act": act,
            "bos_token_id": 0 if act == "quick_gelu" else 49406,
            "eos_token_id": 2 if act == "quick_gelu" else 49407,
        },
        "vision_config": {
            "hidden_size": vision[0],
            "intermediate_size": 4 * vision[0],
            "num_attention_heads": vision[1],
            "num_hidden_layers": vision[2],
            "image_size": 224,
            "patch_size": vision[3],
            "hidden_act": act,
        },
    }


def _blip(vision: tuple[int, int, int, int], text: tuple[int, int, int, int]) -> dict[str, Any]:
    """ImageReward's BLIP; ``text`` is width, heads, layers and inner width of the text model."""
    return {
        "vision": {
            "hidden_size": vision[0],
            "intermediate_size": 4 * vision[0],
            "num_attention_heads": vision[1],
            "num_hidden_layers": vision[2],
            "image_size": 224,
            "patch_size": vision[3],
        },
        "text": {
            "hidden_size": text[0],
            "intermediate_size": text[3],
            "num_attention_heads": text[1],
            "num_hidden_layers": text[2],
            "vocab_size": BERT_WORDS,
            "max_position_embeddings": 512,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "pad_token_id": 0,
        },
    }


def _each(h14: Config, l14: Config, blip: Config) -> dict[str, Config]:
    """Architectures by reward, of those of ViT-H/14, ViT-L/14 and BLIP."""
    of_h = dict.fromkeys(("clip-h14", "pickscore", "hpsv2.0", "hpsv2.1"), h14)
    return {"clip": l14, **of_h, "aesthetic": l14, "imagereward": blip}


# OpenAI's package, BLIP and its text model take 64 channels for one head. The aesthetic head
# reads 768 features.
SMALL = _each(
    _clip((64, 4, 3, 32), (64, 4, 2), 48, "gelu"),
    _clip((128, 2, 3, 32), (128, 2, 2), 768, "quick_gelu"),
    _blip((128, 2, 2, 32), (96, 4, 2, 192)),
)
FULL = _each(
    _clip((1280, 16, 32, 14), (1024, 16, 24), 1024, "gelu"),
    _clip((1024, 16, 24, 14), (768, 12, 12), 768, "quick_gelu"),
    _blip((1024, 16, 24, 16), (768, 12, 12, 3072)),
)


def med_config(config: dict[str, Any]) -> dict[str, Any]:
    """The content of med_config.json, in the keys of the published file."""
    return config["text"] | {
        "architectures": ["BertModel"],
        "attention_probs_dropout_prob": 0.1,
        "hidden_dropout_prob": 0.1,
        "initializer_range": 0.02,
        "model_type": "bert",
        "type_vocab_size": 2,
        "encoder_width": config["vision"]["hidden_size"],
        "add_cross_attention": True,
    }


def weights(shapes: dict[str, tuple[int, ...]], salt: str) -> State:
    """Random tensors, float32 with values that float16 holds, the same wherever they are made."""
    return {name: _tensor(name, shape, salt) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...], salt: str) -> np.ndarray:
    if name == "logit_scale":
        return np.array(np.float16(math.log(100)), np.float32)
    seed = int.from_bytes(hashlib.sha256(f"{salt}/{name}".encode()).digest()[:8], "big")
    draw = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, dtype=np.float32)
    values = draw * _spread(name, shape)
    if _is_norm(name) and name.endswith("weight"):
        values += 1
    return values.astype(np.float16).astype(np.float32)


def _is_norm(name: str) -> bool:
    return any(part in name for part in ("ln_", "norm", "LayerNorm"))


def _spread(name: str, shape: tuple[int, ...]) -> float:
    """Standard deviation, such that what enters a layer matters in what leaves it."""
    if _is_norm(name) or name.endswith("bias"):
        return 0.1
    if "embed" in name and "patch_embed" not in name:
        return 0.5
    # Projections of CLIP are stored [in, out], all other matrices [out, in, ...].
    fan_in = shape[0] if name.endswith("proj") else math.prod(shape[1:])
    return 1.5 / math.sqrt(fan_in)


def open_clip_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensors of a CLIP model in the layout that OpenAI, open_clip and hpsv2 share."""
    vision, text, width = config["vision_config"], config["text_config"], config["projection_dim"]
    v, t, patch = vision["hidden_size"], text["hidden_size"], vision["patch_size"]
    spots = (vision["image_size"] // patch) ** 2 + 1
    shapes: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "positional_embedding": (text["max_position_embeddings"], t),
        "token_embedding.weight": (text["vocab_size"], t),
        "text_projection": (t, width),
        **_pair("ln_final", t),
        "visual.class_embedding": (v,),
        "visual.positional_embedding": (spots, v),
        "visual.conv1.weight": (v, 3, patch, patch),
        "visual.proj": (v, width),
        **_pair("visual.ln_pre", v),
        **_pair("visual.ln_post", v),
    }
    for part, prefix in ((vision, "visual."), (text, "")):
        size, inner = part["hidden_size"], part["intermediate_size"]
        for layer in range(part["num_hidden_layers"]):
            name = f"{prefix}transformer.resblocks.{layer}"
            shapes |= {
                f"{name}.attn.in_proj_weight": (3 * size, size),
                f"{name}.attn.in_proj_bias": (3 * size,),
                **_linear(f"{name}.attn.out_proj", size, size),
                **_linear(f"{name}.mlp.c_fc", inner, size),
                **_linear(f"{name}.mlp.c_proj", size, inner),
                **_pair(f"{name}.ln_1", size),
                **_pair(f"{name}.ln_2", size),
            }
    return shapes


def to_transformers(state: State) -> State:
    """The same CLIP model in the layout of transformers."""
    out: State = {"logit_scale": state["logit_scale"]}
    whole = {
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    }
    out |= {new: state[old] for old, new in whole.items()}
    out["text_projection.weight"] = np.ascontiguousarray(state["text_projection"].T)
    out["visual_projection.weight"] = np.ascontiguousarray(state["visual.proj"].T)
    moved = {
        "ln_final": "text_model.final_layer_norm",
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
    }
    inside = {
        "attn.out_proj": "self_attn.out_proj",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
    }
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if stem in moved:
            out[f"{moved[stem]}.{kind}"] = value
        elif "resblocks" in name:
            model = "vision_model" if name.startswith("visual.") else "text_model"
            layer, _, rest = name.partition("resblocks.")[2].partition(".")
            home = f"{model}.encoder.layers.{layer}"
            if rest.startswith("attn.in_proj_"):
                kind = rest.removeprefix("attn.in_proj_")
                for letter, part in zip("qkv", np.split(value, 3), strict=True):
                    out[f"{home}.self_attn.{letter}_proj.{kind}"] = np.ascontiguousarray(part)
            else:
                block, _, kind = rest.rpartition(".")
                out[f"{home}.{inside[block]}.{kind}"] = value
    return out


def head_shapes() -> dict[str, tuple[int, ...]]:
    """Tensors of the published aesthetic head."""
    return _head("layers", 768)


def imagereward_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Tensors of ImageReward.pt, for an architecture of :func:`_blip`."""
    vision, text = config["vision"], config["text"]
    v, t, patch = vision["hidden_size"], text["hidden_size"], vision["patch_size"]
    eyes, words = "blip.visual_encoder", "blip.text_encoder"
    shapes: dict[str, tuple[int, ...]] = {
        f"{eyes}.cls_token": (1, 1, v),
        f"{eyes}.pos_embed": (1, (vision["image_size"] // patch) ** 2 + 1, v),
        f"{eyes}.patch_embed.proj.weight": (v, 3, patch, patch),
        f"{eyes}.patch_embed.proj.bias": (v,),
        **_pair(f"{eyes}.norm", v),
        f"{words}.embeddings.word_embeddings.weight": (text["vocab_size"], t),
        f"{words}.embeddings.position_embeddings.weight": (text["max_position_embeddings"], t),
        **_pair(f"{words}.embeddings.LayerNorm", t),
        **_linear("blip.vision_proj", 256, v),
        **_linear("blip.text_proj", 256, t),
        **_head("mlp.layers", t),
    }
    for layer in range(vision["num_hidden_layers"]):
        name, inner = f"{eyes}.blocks.{layer}", vision["intermediate_size"]
        shapes |= _pair(f"{name}.norm1", v) | _pair(f"{name}.norm2", v)
        shapes |= _linear(f"{name}.attn.qkv", 3 * v, v) | _linear(f"{name}.attn.proj", v, v)
        shapes |= _linear(f"{name}.mlp.fc1", inner, v) | _linear(f"{name}.mlp.fc2", v, inner)
    for layer in range(text["num_hidden_layers"]):
        name, inner = f"{words}.encoder.layer.{layer}", text["intermediate_size"]
        for attention, source in (("attention", t), ("crossattention", v)):
            shapes |= _linear(f"{name}.{attention}.self.query", t, t)
            shapes |= _linear(f"{name}.{attention}.self.key", t, source)
            shapes |= _linear(f"{name}.{attention}.self.value", t, source)
            shapes |= _linear(f"{name}.{attention}.output.dense", t, t)
            shapes |= _pair(f"{name}.{attention}.output.LayerNorm", t)
        shapes |= _linear(f"{name}.intermediate.dense", inner, t)
        shapes |= _linear(f"{name}.output.dense", t, inner)
        shapes |= _pair(f"{name}.output.LayerNorm", t)
    return shapes


def _head(prefix: str, width: int) -> dict[str, tuple[int, ...]]:
    sizes = (width, 1024, 128, 64, 16, 1)
    places = (0, 2, 4, 6, 7)
    shapes: dict[str, tuple[int, ...]] = {}
    for place, inner, outer in zip(places, sizes[:-1], sizes[1:], strict=True):
        shapes |= _linear(f"{prefix}.{place}", outer, inner)
    return shapes


def _linear(name: str, outer: int, inner: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outer, inner), f"{name}.bias": (outer,)}


def _pair(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}
