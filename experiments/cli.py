"""The command line: ``optimizer COMMAND``; a command is imported when it is called, so that --help is quick."""

import sys
from importlib import import_module
from typing import Final

import click

from experiments.errors import ExperimentsError

# command: (module:function, what it does)
COMMANDS: Final = {
    "serve": ("experiments.commands.serve:serve", "Start the web processes and the background process."),
    "learn": ("experiments.commands.learn:learn", "Run the background process alone."),
    "analyse": ("experiments.commands.analyse:analyse", "Run queued analyses."),
    "migrate": ("experiments.commands.migrate:migrate_database", "Bring the database to the newest schema."),
    "decide": ("experiments.commands.decide:decide", "Decide for a list of customers, from a file into a file."),
    "score": ("experiments.commands.score:score", "Score a list of customers with a stored model of uplift."),
    "import": ("experiments.commands.import_:import_campaign", "Import a past randomised campaign, as logged."),
    "replay": ("experiments.commands.replay:replay_log", "Run the bandit against a past campaign's log."),
    "demo": ("experiments.commands.demo:demo", "Run the whole loop on simulated customers."),
    "plan": ("experiments.commands.plan:plan_experiment", "Say how many units and weeks an experiment needs."),
    "export": ("experiments.commands.export:export_rows", "Write decisions, outcomes or tallies to a file."),
    "recount": ("experiments.commands.recount:recount_tallies", "Prove that the tallies equal the raw rows."),
    "keys": ("experiments.commands.keys:keys", "Create, list and revoke API keys."),
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # as above
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # as above
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="optimizer")
def optimizer() -> None:
    """Decide which variant each customer gets, learn from what they do, promote what won.

    Settings come from OPTIMIZER_... in the environment; the flags of each command mirror them.
    """


def main() -> None:
    """Run a command; what the domain refuses is one line on standard error and exit status 1."""
    try:
        optimizer.main(prog_name="optimizer")
    except ExperimentsError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
