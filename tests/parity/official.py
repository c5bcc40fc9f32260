"""Computes golden.json with the published implementations, at small size.

Run in the environment that ``bench official build`` makes, by its Python::

    ~/.cache/dpo-bench/official/bin/python tests/parity/official.py

What computes is published code throughout: the packages hpsv2, image-reward, open_clip and clip,
and transformers 4.55 for PickScore, whose authors give a snippet for it. Sizes and weights are
ours (checkpoints.py). Float32 on the CPU, one thread, one image at a time. Where the code asks
for CUDA's autocast, as hpsv2 does, that is off on the CPU. An EXIF orientation is applied before,
since none of them does it; what they give without that is noted beside.
"""

import argparse
import importlib.util
import json
import re
import resource
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from cases import GOLDEN, PROMPTS, STRANGE, digest, features, images, pairs, plain, source
from checkpoints import HEAD, HPS, NAMES, OPEN_CLIP, write
from PIL import ImageOps
from vocabulary import clip_ids, clip_tokenizer, merges

HERE = Path(__file__).parent


def load_worker():
    """bench/official/worker.py, without the package around it, which this environment lacks."""
    path = HERE.parents[1] / "bench/official/worker.py"
    spec = importlib.util.spec_from_file_location("worker", path)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    return worker


def until_end(ids) -> list[int]:
    """Token ids up to the one whose features CLIP reads, the first of the largest number."""
    row = [int(i) for i in ids]
    return row[: row.index(max(row)) + 1]


def openai_clip(folder: Path):
    """OpenAI's package, ViT-L/14: the CLIP score as image-reward's CLIPScore computes it."""
    import clip
    from torch.nn.functional import normalize

    model, preprocess = clip.load(str(folder / OPEN_CLIP), device="cpu")

    def text(prompt):
        return model.encode_text(clip.tokenize(prompt, truncate=True))

    def image(given):
        return model.encode_image(preprocess(given)[None])

    return SimpleNamespace(
        pixels=preprocess,
        tokens=lambda prompt: until_end(clip.tokenize(prompt, truncate=True)[0]),
        text=text,
        image=image,
        score=lambda i, p: 100 * (normalize(image(i)) * normalize(text(p))).sum(),
    )


def aesthetic(folder: Path):
    """The head as image-reward ships it, on the features of OpenAI's package."""
    import torch
    from ImageReward.models.AestheticScore import MLP
    from torch.nn.functional import normalize

    tower = openai_clip(folder)
    head = MLP(768).eval()
    head.load_state_dict(torch.load(folder / HEAD))
    return SimpleNamespace(
        pixels=tower.pixels,
        image=tower.image,
        score=lambda i, _: head(normalize(tower.image(i)).float()),
    )


def laion_clip(folder: Path):
    """open_clip's ViT-H/14."""
    import open_clip

    given = json.loads((folder / "config.json").read_text())
    vision, text = given["vision_config"], given["text_config"]
    config = {
        "embed_dim": given["projection_dim"],
        "vision_cfg": {
            "image_size": vision["image_size"],
            "patch_size": vision["patch_size"],
            "width": vision["hidden_size"],
            "layers": vision["num_hidden_layers"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
        },
        "text_cfg": {
            "context_length": text["max_position_embeddings"],
            "vocab_size": text["vocab_size"],
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
        },
    }
    (folder / "ours-h.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "ours-h.json")
    model, _, preprocess = open_clip.create_model_and_transforms(
        "ours-h", pretrained=str(folder / OPEN_CLIP)
    )
    model.eval()
    tokenizer = open_clip.get_tokenizer("ours-h")

    def unit(values):
        return values / values.norm(dim=-1, keepdim=True)

    def text_features(prompt):
        return model.encode_text(tokenizer([prompt]))

    def image_features(given):
        return model.encode_image(preprocess(given)[None])

    return SimpleNamespace(
        pixels=preprocess,
        tokens=lambda prompt: until_end(tokenizer([prompt])[0]),
        text=text_features,
        image=image_features,
        score=lambda i, p: 100 * (unit(image_features(i)) @ unit(text_features(p)).T),
    )


def pickscore(folder: Path):
    """transformers' CLIPModel and CLIPProcessor, as PickScore's authors use them."""
    from transformers import (
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        CLIPTokenizer,
        CLIPTokenizerFast,
    )

    # From the vocabulary, not from our tokenizer.json, which is compared with what comes out.
    words = folder / "words"
    words.mkdir(exist_ok=True)
    (words / "vocab.json").write_text(json.dumps(clip_ids()))
    (words / "merges.txt").write_text("\n".join(["#version: 0.2", *merges(), ""]))
    CLIPTokenizer(str(words / "vocab.json"), str(words / "merges.txt")).save_pretrained(words)
    tokenizer = CLIPTokenizerFast.from_pretrained(words)
    compare_tokenizer(tokenizer.backend_tokenizer.to_str())
    processor = CLIPProcessor(CLIPImageProcessor(), tokenizer)
    model = CLIPModel.from_pretrained(folder, torch_dtype="float32").eval()

    def pixels(given):
        return processor(images=given, return_tensors="pt")["pixel_values"][0]

    def read(prompt):
        return processor(
            text=prompt, padding=True, truncation=True, max_length=77, return_tensors="pt"
        )

    def unit(values):
        return values / values.norm(dim=-1, keepdim=True)

    def text(prompt):
        return model.get_text_features(**read(prompt))

    def image(given):
        return model.get_image_features(**processor(images=given, return_tensors="pt"))

    return SimpleNamespace(
        pixels=pixels,
        tokens=lambda prompt: until_end(read(prompt)["input_ids"][0]),
        text=text,
        image=image,
        score=lambda i, p: model.logit_scale.exp() * (unit(text(p)) @ unit(image(i)).T),
    )


def hpsv2(folder: Path, name: str):
    """hpsv2's ``img_score.score``, through the worker, which only forgoes the download."""
    from hpsv2 import img_score

    path = str(folder / HPS[name])
    files = {HPS[name]: path, "config.json": str(folder / "config.json")}
    load_worker().HPSv2(name, files, "cpu")
    img_score.model_dict.clear()
    img_score.initialize_model()
    model, preprocess = img_score.model_dict["model"], img_score.model_dict["preprocess_val"]
    tokenizer = img_score.get_tokenizer("ViT-H-14")

    def score(image, prompt):
        return img_score.score(image, prompt, cp=path)[0]

    score(plain(images()["exact"]), "")  # loads the checkpoint, which the features need
    return SimpleNamespace(
        pixels=preprocess,
        tokens=lambda prompt: until_end(tokenizer([prompt])[0]),
        text=lambda prompt: model.encode_text(tokenizer([prompt])),
        image=lambda given: model.encode_image(preprocess(given)[None]),
        score=score,
    )


def imagereward(folder: Path):
    """image-reward's ``ImageReward.score``, through the worker."""
    names = ("ImageReward.pt", "med_config.json", "tokenizer.json")
    files = {name: str(folder / name) for name in names}
    model = load_worker().ImageReward("imagereward", files, "cpu").model

    def tokens(prompt):
        given = model.blip.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
        )
        return [int(i) for i in given.input_ids[0][given.attention_mask[0] == 1]]

    return SimpleNamespace(
        pixels=model.preprocess,
        tokens=tokens,
        image=lambda given: model.blip.visual_encoder(model.preprocess(given)[None])[0, 0],
        score=lambda i, p: model.score(p, i),
    )


MAKERS = {
    "clip": openai_clip,
    "clip-h14": laion_clip,
    "pickscore": pickscore,
    "aesthetic": aesthetic,
    "hpsv2.0": lambda folder: hpsv2(folder, "hpsv2.0"),
    "hpsv2.1": lambda folder: hpsv2(folder, "hpsv2.1"),
    "imagereward": imagereward,
}
"""From a folder that checkpoints.py wrote to a published implementation, by reward."""


def golden_of(official, shown, stored) -> dict[str, object]:
    """Everything that is kept of one implementation.

    Args:
        official: The implementation.
        shown: Upright images by name.
        stored: The images as their files hold them.
    """
    import torch

    out: dict[str, object] = {"refuses": {}, "pixels": {}, "image": {}}
    with torch.inference_mode():
        seen = {}
        for name, image in shown.items():
            seen[name] = image
            try:
                official.image(image)
            except RuntimeError as error:
                out["refuses"][name] = str(error).splitlines()[0]
                seen[name] = plain(image)
            out["pixels"][name] = digest(official.pixels(seen[name]).numpy())
            out["image"][name] = features(official.image(seen[name]).numpy())
        if hasattr(official, "tokens"):
            out["tokens"] = {name: official.tokens(text) for name, text in PROMPTS.items()}
        if hasattr(official, "text"):
            texts = PROMPTS.items()
            out["text"] = {name: features(official.text(text).numpy()) for name, text in texts}
        out["scores"] = [
            [image, text, round(float(official.score(seen[image], PROMPTS[text])), 8)]
            for image, text in pairs()
        ]
        lying = stored["turned"]
        out["lying"] = {
            "pixels": digest(official.pixels(lying).numpy()),
            "score": float(official.score(lying, PROMPTS["plain"])),
        }
        out["rgb"] = {
            name: float(official.score(plain(stored[name]), PROMPTS["plain"])) for name in STRANGE
        }
    return out


def compare_tokenizer(theirs: str) -> None:
    """Our tokenizer.json of CLIP must be what transformers makes of the same vocabulary."""
    given, made = json.loads(theirs), clip_tokenizer()
    given["model"]["merges"] = [" ".join(pair) for pair in given["model"]["merges"]]
    for part in ("normalizer", "pre_tokenizer", "post_processor", "model", "added_tokens"):
        if given[part] != made[part]:
            raise ValueError(f"{part}: transformers makes {given[part]!s:.300}")


def write_golden(versions: dict[str, str]) -> None:
    """Write golden.json, from all implementations at small size."""
    stored = images()
    shown = {name: ImageOps.exif_transpose(image) for name, image in stored.items()}
    rewards = {}
    with tempfile.TemporaryDirectory() as work:
        for name in NAMES:
            folder = Path(work) / name
            folder.mkdir()
            write(name, folder)
            rewards[name] = found = golden_of(MAKERS[name](folder), shown, stored)
            values = [score for _, _, score in found["scores"]]
            print(f"{name}: scores {min(values):.4f} to {max(values):.4f}", found["refuses"])
    sources = {name: source(image) for name, image in stored.items()}
    result = {"versions": versions, "sources": sources, "rewards": rewards}
    text = json.dumps(result, indent=1)
    text = re.sub(r"\[\s*([^\[\]{}]*?)\s*\]", lambda m: f"[{' '.join(m[1].split())}]", text)
    GOLDEN.write_text(text + "\n")


def score_some(name: str, folder: Path, some: list[list[str]]) -> dict[str, object]:
    """Scores of pairs of image and prompt, with the time they took and the peak of memory."""
    import torch

    stored = images()
    official = MAKERS[name](folder)
    start = time.perf_counter()
    with torch.inference_mode():
        scores = [float(official.score(plain(stored[i]), PROMPTS[p])) for i, p in some]
    return {"scores": scores, "seconds": time.perf_counter() - start, "bytes": peak()}


def peak() -> int:
    """Largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Write golden.json, or score pairs with one implementation and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reward", choices=NAMES, help="score with this one alone")
    parser.add_argument("--folder", type=Path, help="its files, as checkpoints.py writes them")
    parser.add_argument("--pairs", type=json.loads, help="names of images and prompts, as JSON")
    given = parser.parse_args()
    versions = load_worker().check()
    import torch

    torch.set_num_threads(1)
    if given.reward:
        print(json.dumps(score_some(given.reward, given.folder, given.pairs)))
    else:
        more = {name: importlib.import_module(name).__version__ for name in ("numpy", "PIL")}
        write_golden(versions | more)


if __name__ == "__main__":
    main()
