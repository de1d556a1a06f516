"""The command line: parse, call, print. Heavy imports wait until a command needs them, so that --help answers at once.

One file for each group of verbs; importing it registers them, in the order in which --help lists them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import NoReturn

from niblick.cli.app import app
from niblick.errors import NiblickError
from niblick.files import named, storage_trouble

# In the order of --help, which is that of a run's life.
# isort: off
from niblick.cli import remote_verbs  # noqa: F401
from niblick.cli import looking_verbs  # noqa: F401
from niblick.cli import data_verbs  # noqa: F401
from niblick.cli import training_verbs  # noqa: F401
from niblick.cli import watching_verbs  # noqa: F401
from niblick.cli import sweep_verbs  # noqa: F401
from niblick.cli import import_verbs  # noqa: F401
from niblick.cli import submitting_verbs  # noqa: F401
from niblick.cli import scoring_verbs  # noqa: F401
from niblick.cli import audit_verbs  # noqa: F401
from niblick.cli import packing_verbs  # noqa: F401
from niblick.cli import studying_verbs  # noqa: F401
from niblick.cli import text_verbs  # noqa: F401
from niblick.cli import ledger_verbs  # noqa: F401
# isort: on

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; a NiblickError becomes one sentence on stderr and its exit code."""
    try:
        try:
            app()
        finally:
            if sys.stdout:
                with named(Path("standard output")):
                    sys.stdout.flush()  # here, where a full disk behind it can still be told
    except SystemExit as end:
        if not end.code and int(os.environ.get("WORLD_SIZE") or 1) > 1:
            os._exit(0)  # threads of gloo outlive DDP (findings/), and can abort a rank whose interpreter is taken down
        raise
    except NiblickError as error:
        _end(str(error), error.exit_code)
    except KeyboardInterrupt:
        _end("interrupted", 130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        _end(storage_trouble(error), 2)


def _end(sentence: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):  # the terminal may have gone away
        print(f"niblick: {sentence}", file=sys.stderr, flush=True)
    sys.exit(code)
