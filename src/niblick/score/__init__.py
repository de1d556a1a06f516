"""Scores: bits per byte of a model on held-out text, and of general compressors beside it.

The package can be called: `niblick.score(f, data)` scores any function from ids to log-probabilities (see
`any_function.score_function`). The natural name of that function is the package's own. An attribute of that name on
`niblick` would be replaced by the package as soon as anything imports one of its modules.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from niblick.score.any_function import score_function

        return score_function(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
