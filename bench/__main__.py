"""`python -m bench`, and the console script `uqseg`."""

import sys


def main() -> None:
    """Run the command line, or say which environment lacks what it needs."""
    try:
        from bench.cli import main as run
    except KeyboardInterrupt:  # while torch is being imported
        sys.exit(130)
    except ModuleNotFoundError as error:
        sys.exit(
            f"error: {sys.executable} has no module '{error.name}'. Activate the project's environment with "
            "'. .venv/bin/activate', or make it with 'make .venv/installed' first."
        )
    run()


if __name__ == "__main__":
    main()
