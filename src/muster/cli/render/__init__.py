"""``muster render``: what follows from the cluster file for other programs, shown, compared, checked or written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from muster.cli.options import Commands

if TYPE_CHECKING:
    from muster.app.outputs import Models


class Outputs(Commands):
    """One command for each output, made when it is asked for.

    Args:
        features: returns the features that may offer some; None: ours.
    """

    def __init__(self, *given: Any, features: Models | None = None, **named: Any) -> None:
        super().__init__(*given, **named)
        self._features = features

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        from muster.app import outputs
        from muster.features import settings_models

        return sorted(o.output.word for o in outputs.offers(self._features or settings_models))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        from muster.app import outputs
        from muster.cli.render.command import command_of
        from muster.features import settings_models

        found = outputs.offer(name, self._features or settings_models)
        if found is None:
            # click knows from these which are near a wrong one.
            self.commands = {word: click.Command(word) for word in self.list_commands(ctx)}
            return None
        return command_of(found)


@click.group(cls=Outputs)
def render() -> None:
    """Show or write the configuration of other programs."""
