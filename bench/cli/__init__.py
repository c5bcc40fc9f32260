"""The command line: parse, call, print. Nothing heavy is imported before a command runs.

One file holds each group of commands, and this one names them all. Exit codes: 0 done; 1 wrong
usage, spec or input; 2 some runs failed (the table is still written, its gaps marked); 75 a stage
left before its time was up, and 130 interrupted: the same command goes on.
"""

import os
import sys
from typing import Annotated, Any

import typer

from bench import __version__
from bench.cli import (
    about,
    boards,
    data,
    experiments,
    mini,
    official,
    process,
    results,
    scores,
    store,
)
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
    experiments.stage,
    experiments.plan,
    experiments.train,
    about.convert,
    experiments.generate,
    experiments.export,
    scores.score,
    scores.prefetch,
    results.table,
    results.figures,
    results.report,
    results.images,
    results.power,
    boards.leaderboard,
    boards.verify,
    boards.compare,
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


NO_MEMORY = ("failed to map segment", "annot allocate memory")
"""What the loader of libraries says where there is too little of it."""


def main() -> None:
    """Entry point: errors that the user can mend are one line, whatever else is a bug."""
    process.settle()
    sys.exit(process.leave(run(sys.argv[1:])))


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        code: Any = app(arguments, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = process.INTERRUPTED
    except (Exception, SystemExit) as error:
        message = _line(error)
        if message is None or os.environ.get("DPO_BENCH_DEBUG"):
            raise
        if message:  # Empty where a command without arguments has printed its help instead.
            typer.echo(f"bench: {message}", err=True)
        return 1
    if code == process.INTERRUPTED:  # Typer turns an interruption into this code itself.
        process.tell_interrupted()
    return code if isinstance(code, int) else 0


def _line(error: BaseException) -> str | None:
    """What is told of an error; None for an exit, or for a bug, whose traceback is wanted."""
    from trainers.registry import blamed

    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, typer.TyperException):
        return error.format_message()
    if (line := blamed(error)) is not None:
        return line
    if isinstance(error, ImportError) and any(said in str(error) for said in NO_MEMORY):
        return (
            f"out of memory: {error.name or 'a library'} cannot be loaded: allow more (ulimit -v)"
        )
    if (line := blamed(error)) is not None:
        return line
    if isinstance(error, MemoryError):
        return f"out of memory: {str(error) or 'take fewer --workers or smaller batches'}"
    if isinstance(error, OSError):  # No room, no right, no such device: of the machine, not of us.
        place = f"{error.filename}: "[:200] if error.filename else ""
        return f"{place}{error.strerror or error}"
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "no thread can be started: allow more processes or memory (ulimit -u, ulimit -v)"
    return None
