"""A config's own code as one script: what it and the user's recipe may reach, as it stands, and what that weighs."""

from niblick.bundle.maker import Script, make_script

__all__ = ["Script", "make_script"]
