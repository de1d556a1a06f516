"""The command line: parse, call, print. Heavy imports wait until a command needs them, so that --help answers at once.

One file for each group of verbs; importing it registers them, in the order in which --help lists them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import NoReturn

from niblick.cli.app import app
from niblick.errors import NiblickError
from niblick.files import named

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


_TROUBLE = {
    errno.ENOSPC: "the disk is full: make room, and call it again",
    errno.EDQUOT: "the disk quota is used up: make room, and call it again",
    errno.EFBIG: "the file would be larger than is allowed here: raise that limit, or write elsewhere",
    errno.EROFS: "it lies on a file system that is read-only: choose a folder that can be written",
    errno.EACCES: "you may not: change its permissions, or choose another folder",
    errno.EPERM: "you may not: change its permissions, or choose another folder",
    errno.ENOENT: "it is not there, or was moved or removed meanwhile: look where it is, and call it again",
    errno.ENOTDIR: "a part of that path is a file: name another folder",
    errno.EIO: "the disk failed: look at it before anything else",
    errno.EMFILE: "too many files are open: raise `ulimit -n`",
    errno.ENAMETOOLONG: "the name is too long: give a shorter one",
}
"""What to do about what a disk can do to any verb."""


def storage_trouble(error: OSError) -> str:
    """Return a sentence on a file that could not be read or written; what was there before is as it was."""
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    where = f"{' → '.join(names)} cannot be read or written" if names else "a file cannot be written"
    return f"{where}: {_TROUBLE.get(error.errno or 0, error.strerror or str(error))}"


def _end(sentence: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):  # the terminal may have gone away
        print(f"niblick: {sentence}", file=sys.stderr, flush=True)
    sys.exit(code)
