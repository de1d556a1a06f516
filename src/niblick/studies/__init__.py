"""Published studies as code: each reads like its recipe, trains its runs as sweeps, and writes its tables."""

from __future__ import annotations

from niblick.studies.outer import outer
from niblick.studies.repeatability import repeatability
from niblick.studies.rescue import rescue
from niblick.studies.router_study import routers
from niblick.studies.routers2026 import routers2026
from niblick.studies.softchunk import softchunk
from niblick.studies.sprint import sprint
from niblick.studies.study import Study
from niblick.studies.study1 import study1
from niblick.studies.study2 import study2

STUDIES: dict[str, Study] = {
    study.__name__: study
    for study in (study1, study2, softchunk, routers, routers2026, outer, sprint, rescue, repeatability)
}
"""Studies by name."""
