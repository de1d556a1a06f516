"""A config's own code as one script: only what it and the user's recipe may reach, and what that weighs.

`sources` cuts modules into pieces, `reach` finds those that the program may reach, `parts` says what a config does not
use, `script` writes the rest down. Nothing is rewritten.
"""

from niblick.bundle.script import Script, make_script, reads_another_file

__all__ = ["Script", "make_script", "reads_another_file"]
