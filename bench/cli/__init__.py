"""The command line: parse, call, print. Nothing heavy is imported before a command runs.

One file holds each group of commands, and this one names them all. Exit codes: 0 done; 1 wrong
usage, spec or input; 2 some runs failed (the table is still written, its gaps marked); 130
interrupted, to be resumed by the same command.
"""

import os
import sys
from typing import Annotated, Any

import typer

from bench import __version__
from bench.cli import about, data, experiments, mini, official, results, scores, store
from trainers.errors import UserError

app = typer.Typer(
    name="bench",
    help="Which ingredients of diffusion preference optimisation really help?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dpo-bench {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if debug:
        os.environ["DPO_BENCH_DEBUG"] = "1"
    # Read by transformers when it is imported; workers inherit it.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


for command in (
    experiments.ablate,
    experiments.plan,
    experiments.train,
    about.convert,
    experiments.generate,
    experiments.export,
    scores.score,
    scores.prefetch,
    results.table,
    results.power,
    about.list_plugins,
    about.doctor,
):
    app.command("list" if command is about.list_plugins else None)(command)
for name, group in {
    "mini": mini.app,
    "official": official.app,
    "data": data.app,
    "store": store.app,
}.items():
    app.add_typer(group, name=name)


def main() -> None:
    """Entry point: errors that the user can mend are one line, whatever else is a bug."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        code: Any = app(arguments, standalone_mode=False)
    except (typer.TyperException, UserError) as error:
        if os.environ.get("DPO_BENCH_DEBUG"):
            raise
        message = str(error) if isinstance(error, UserError) else error.format_message()
        if message:  # Empty where a command without arguments has printed its help instead.
            typer.echo(f"bench: {message}", err=True)
        return 1
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    if code == 130:  # Typer turns an interruption into this code itself.
        typer.echo("bench: interrupted; the same command goes on from here", err=True)
    return code if isinstance(code, int) else 0
