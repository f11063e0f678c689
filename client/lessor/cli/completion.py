"""``lessor completion``: the script with which a shell completes command lines of this program."""

from __future__ import annotations

from typing import Final

import click

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_LESSOR_COMPLETE"


HELP: Final = """Print the script that completes commands, engines, roles and lease ids in a shell.

\b
bash:  eval "$(lessor completion bash)"     in ~/.bashrc
zsh:   eval "$(lessor completion zsh)"      in ~/.zshrc, after compinit
fish:  lessor completion fish | source      in ~/.config/fish/config.fish

Names are asked from the server that your variables or the current context name, for at most a second.
"""


@click.command("completion", help=HELP)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script for a shell."""
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - only for this

    made = get_completion_class(shell)
    assert made is not None, shell
    click.echo(made(click.get_current_context().find_root().command, {}, "lessor", VARIABLE).source())
