"""Weights to bytes: schemes, GPTQ, residuals, sensitivities, and fits to a cap.

The package can be called: `niblick.pack(state_dict, scheme, cap)` packs anyone's weights (see `weights.pack_weights`).
It is so because the natural name of that function is the package's own.
"""

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from niblick.pack.weights import pack_weights

        return pack_weights(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
