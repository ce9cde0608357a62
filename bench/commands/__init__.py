"""The commands, a file for each subject: arguments in, lines out; the work lies in the modules that they call."""

import typer

app = typer.Typer(
    name="bench",
    help="Train uncertainty methods for segmentation, score them against several readers, and report.",
    epilog="Exit codes: 0 done, 1 a failure, 2 a request that cannot be met. --debug, anywhere, shows tracebacks.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
