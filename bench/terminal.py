"""What every command prints with: JSON on standard output, and libraries kept quiet."""

import json
from typing import Any

import typer


def silence_libraries() -> None:
    """Switch off the progress bars of diffusers and transformers, and their advice."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for logging in (diffusers_logging, transformers_logging):
        logging.disable_progress_bar()
        logging.set_verbosity_error()


def print_json(value: Any) -> None:
    """Print data as JSON."""
    typer.echo(json.dumps(value, indent=1))


def say(line: str) -> None:
    """Print a line at once, from whichever process."""
    print(line, flush=True)
