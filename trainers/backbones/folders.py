"""Parts of a model as folders in the diffusers layout, read and written."""

import json
from pathlib import Path
from typing import Any

from trainers.files import write_text


def save_part(model: Any, folder: Path) -> None:
    """Write a diffusers model: the same bytes wherever it was loaded from.

    ``save_pretrained`` puts the path that the weights came from into the config.
    """
    model.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("_name_or_path", None)
    write_text(path, json.dumps(config, indent=2, sort_keys=True) + "\n")
