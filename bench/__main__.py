"""`python -m bench`, and the console script `uqseg`."""

import os
import sys


def main() -> None:
    """Run the command line, or say which environment lacks what it needs."""
    # Threads without work sleep instead of spinning, which is set before torch is imported. Two runs of two threads
    # each on two cores, as a second terminal starts them, take 0.3 s for a step of a U-Net; spinning they took 0.8 s.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
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
