"""The commands. Each module holds a Typer application, imported when one of its commands is asked for."""

from inspect import cleandoc

import typer


def epilog(*examples: tuple[str, str], notes: str = "", more: str = "") -> str:
    """Return what stands below a command's options: command lines with what each is for, then paragraphs.

    notes, more: each indented as its own lines are.
    """
    width = max(len(line) for line, _purpose in examples)
    lines = [f"  $ {line:<{width}}  {purpose}".rstrip() for line, purpose in examples]
    # Typer leaves a paragraph that begins with \b as it is written, and wraps the others.
    return "\n".join(["\b", "Examples:", *lines, "", cleandoc(notes), "", cleandoc(more)]).rstrip()


def help_without_command(context: typer.Context) -> None:
    """Print the help of a group that was called without a command; that is wrong use."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
