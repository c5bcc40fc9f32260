"""Scores with the published packages. Runs in their environment, on what that holds alone.

Reads one JSON object a line, ``{"reward": name, "images": [paths], "prompts": [texts]}``, and
answers each with one line, ``{"scores": [numbers]}`` or ``{"error": text, "traceback": text}``.
Whatever the packages print goes to standard error.
"""

import argparse
import importlib
import json
import os
import sys
import tempfile
import traceback
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

HPS_FILES = {"hpsv2.0": "HPS_v2_compressed.pt", "hpsv2.1": "HPS_v2.1_compressed.pt"}
KEPT: list[Any] = []


def mend_torchvision() -> None:
    """Make torchvision importable beside a torch without CUDA.

    The published wheel needs the libraries of CUDA for its compiled operators. Without them its
    import ends at the first operator for which it registers a shape function; declaring the two
    operators concerned is enough. Nothing here calls them. A torchvision that imports is left as
    it is.
    """
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "operator torchvision::nms does not exist" not in str(error):
            raise
        import torch

        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define(
            "qnms(Tensor dets, Tensor scores, float iou_threshold, float dets_scale, "
            "int dets_zero_point) -> Tensor"
        )
        KEPT.append(library)  # its declarations end with it
        importlib.import_module("torchvision")


class HPSv2:
    """hpsv2's own ``img_score.score``, with a local checkpoint and no download.

    The package first fills a ViT-H/14 with LAION's weights, several gigabytes from the Hub, and
    then overwrites every one of them, strictly, with the checkpoint. Only the first step is left
    out, by asking the package's own constructor for no pretrained weights.
    """

    def __init__(self, name: str, files: dict[str, str], device: str) -> None:
        """Take the checkpoint; it is read anew at each call of the package's function."""
        from hpsv2 import img_score

        create = img_score.create_model_and_transforms

        def without_download(model: str, pretrained: str, **options: Any) -> Any:
            return create(model, None, **options)

        if "config.json" in files:
            _resize_clip(json.loads(Path(files["config.json"]).read_text(encoding="utf-8")))
        img_score.create_model_and_transforms = without_download
        img_score.device = device
        self.package = img_score
        self.checkpoint = files[HPS_FILES[name]]

    def score(self, images: list[str], prompts: list[str]) -> list[float]:
        """One call of the package for each prompt, with all images of it."""
        groups: dict[str, list[int]] = {}
        for index, prompt in enumerate(prompts):
            groups.setdefault(prompt, []).append(index)
        scores = [0.0] * len(images)
        for prompt, indices in groups.items():
            given = self.package.score([images[i] for i in indices], prompt, cp=self.checkpoint)
            for index, value in zip(indices, given, strict=True):
                scores[index] = float(value)
        return scores


class ImageReward:
    """image-reward's own ``ImageReward.score``, one image at a time.

    The package asks the Hub for the tokenizer ``bert-base-uncased``. Here it finds a folder of
    that name, with the vocabulary that the file tokenizer.json of that repository holds.
    """

    def __init__(self, name: str, files: dict[str, str], device: str) -> None:
        """Load the model with the package's ``load``."""
        import torch

        package = importlib.import_module("ImageReward")
        content = torch.load(files["ImageReward.pt"], map_location="meta", weights_only=True)
        shapes = {name: tuple(tensor.shape) for name, tensor in content.items()}
        text = json.loads(Path(files["med_config.json"]).read_text(encoding="utf-8"))
        _resize_blip(shapes, text["hidden_size"])
        with tempfile.TemporaryDirectory() as folder:
            _write_vocabulary(Path(files["tokenizer.json"]), Path(folder) / "bert-base-uncased")
            before = Path.cwd()
            os.chdir(folder)
            try:
                self.model = package.load(
                    files["ImageReward.pt"], device=device, med_config=files["med_config.json"]
                )
            finally:
                os.chdir(before)
        # The package loads without a word what lacks tensors, which would stay random.
        used = ("blip.visual_encoder.", "blip.text_encoder.", "mlp.")
        needed = [name for name, _ in self.model.named_parameters() if name.startswith(used)]
        if missing := [name for name in needed if name not in shapes]:
            raise ValueError(f"ImageReward.pt lacks {len(missing)} tensors, such as {missing[0]}")

    def score(self, images: list[str], prompts: list[str]) -> list[float]:
        """One call of the package for each image."""
        import torch

        with torch.inference_mode():
            pairs = zip(prompts, images, strict=True)
            return [float(self.model.score(prompt, image)) for prompt, image in pairs]


def _resize_clip(config: dict[str, Any]) -> None:
    """Let hpsv2's name ViT-H-14 mean the architecture of a transformers ``CLIPConfig``.

    For tests; the published config says what the package's own does, which then stays.
    """
    from hpsv2.src.open_clip import factory

    vision, text = config["vision_config"], config["text_config"]
    asked = {
        "embed_dim": config["projection_dim"],
        "vision_cfg": {
            "image_size": vision.get("image_size", 224),
            "patch_size": vision["patch_size"],
            "width": vision["hidden_size"],
            "layers": vision["num_hidden_layers"],
            "head_width": vision["hidden_size"] // vision["num_attention_heads"],
        },
        "text_cfg": {
            "context_length": text.get("max_position_embeddings", 77),
            "vocab_size": text.get("vocab_size", 49408),
            "width": text["hidden_size"],
            "heads": text["num_attention_heads"],
            "layers": text["num_hidden_layers"],
        },
    }
    if factory._MODEL_CONFIGS["ViT-H-14"] != asked:
        factory._MODEL_CONFIGS["ViT-H-14"] = asked


def _resize_blip(shapes: dict[str, tuple[int, ...]], text_width: int) -> None:
    """Let image-reward's ViT and head have other sizes than the published ones. For tests.

    The text encoder has its sizes from med_config.json in any case.
    """
    width, _, patch, _ = shapes["blip.visual_encoder.patch_embed.proj.weight"]
    if (width, patch, text_width) == (1024, 16, 768):
        return
    package: Any = importlib.import_module("ImageReward.ImageReward")
    blip: Any = importlib.import_module("ImageReward.models.BLIP.blip_pretrain")
    vit = importlib.import_module("ImageReward.models.BLIP.vit")
    depth = len({name.split(".")[3] for name in shapes if ".visual_encoder.blocks." in name})
    head = package.MLP

    def create_vit(_: str, side: int, *__: Any) -> tuple[Any, int]:
        model = vit.VisionTransformer(
            img_size=side, patch_size=patch, embed_dim=width, depth=depth, num_heads=width // 64
        )
        return model, width

    blip.create_vit = create_vit
    package.MLP = lambda _: head(text_width)


def _write_vocabulary(tokenizer: Path, folder: Path) -> None:
    ids = json.loads(tokenizer.read_text(encoding="utf-8"))["model"]["vocab"]
    words = sorted(ids, key=ids.__getitem__)
    if [ids[word] for word in words] != list(range(len(words))):
        raise ValueError(f"{tokenizer}: the numbers of the vocabulary have gaps")
    folder.mkdir()
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": true}', encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")


def check() -> dict[str, str]:
    """Import both packages; versions by name."""
    mend_torchvision()
    for module in ("hpsv2.img_score", "ImageReward"):
        importlib.import_module(module)
    names = ("hpsv2", "image-reward", "torch", "torchvision", "transformers", "pillow")
    return {name: version(name) for name in names}


def serve(files: dict[str, str], device: str, answers: IO[str]) -> None:
    """Answer the lines of standard input until it ends."""
    mend_torchvision()
    scorers: dict[str, Any] = {}
    for line in sys.stdin:
        try:
            request = json.loads(line)
            name = request["reward"]
            if name not in scorers:
                kind = ImageReward if name == "imagereward" else HPSv2
                scorers[name] = kind(name, files, device)
            answer = {"scores": scorers[name].score(request["images"], request["prompts"])}
        except Exception as error:  # told to the caller, who raises it
            why = f"{type(error).__name__}: {error}"
            answer = {"error": why, "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    """Command line: ``--check``, or ``--files JSON --device DEVICE`` to serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="import the packages, print versions")
    parser.add_argument("--files", type=json.loads, default={}, help="paths by name, as JSON")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    # Before anything is imported: libraries print, and standard output is for answers alone.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    if given.check:
        answers.write(json.dumps(check()) + "\n")
        answers.flush()
    else:
        serve(given.files, given.device, answers)


if __name__ == "__main__":
    main()
