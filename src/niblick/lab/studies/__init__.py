"""Published studies as code: each reads like its recipe, trains its runs as sweeps, and writes its tables."""

from __future__ import annotations

from niblick.lab.studies.outer import outer
from niblick.lab.studies.repeatability import repeatability
from niblick.lab.studies.rescue import rescue
from niblick.lab.studies.routers import routers
from niblick.lab.studies.softchunk import softchunk
from niblick.lab.studies.sprint import sprint
from niblick.lab.studies.study import Study
from niblick.lab.studies.study1 import study1
from niblick.lab.studies.study2 import study2

STUDIES: dict[str, Study] = {
    study.__name__: study for study in (study1, study2, softchunk, routers, outer, sprint, rescue, repeatability)
}
"""Studies by name."""
