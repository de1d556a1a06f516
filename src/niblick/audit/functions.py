"""The audit of a function from ids to log-probabilities: asked about rows, scored as it would be, and watched."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from niblick.audit import text_checks as text
from niblick.audit.checks import Check, failed, not_applicable
from niblick.audit.function_checks import Effort, Function, audit_function
from niblick.audit.watched import listening
from niblick.audit.windows import function_windows
from niblick.data.dataset import Dataset, Split
from niblick.errors import ConfigError, NiblickError

ROWS, LENGTH = 4, 128
"""Windows that a model or function is asked about, and their tokens where every cut is to be tried."""


def load_function(module: str, name: str) -> Function:
    """Import `name` of a module or a .py file anew: f(ids_BL) → log-probabilities_BLV. Raises ConfigError if not."""
    sys.path.insert(0, os.getcwd())
    try:
        if module.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(module).stem, module)
            if spec is None or spec.loader is None or not Path(module).is_file():
                raise ConfigError(f"there is no file {module} to take {name} from")
            found = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(found)
        else:
            sys.modules.pop(module, None)  # what it remembers of earlier questions goes with it
            found = importlib.import_module(module)
        function = getattr(found, name, None)
    except NiblickError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise ConfigError(f"{module} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not callable(function):
        raise ConfigError(f"{module} has no function {name}: name a function from ids to log-probabilities")
    return function


def function_checks(module: str, name: str, data: str, effort: Effort) -> list[Check]:
    """All checks of a function by its name. Raises ConfigError if it is none, or raises, or no text is named."""
    if not data:
        load_function(module, name)
        raise ConfigError("a function is asked about real text: pass --data DIR")
    dataset = Dataset.open(data)
    vocab_size, bos_id = dataset.tokenizer.vocab_size, dataset.tokenizer.bos_id
    with listening() as files:

        def load() -> Function:
            return _checked(load_function(module, name), vocab_size)

        checks = audit_function(load(), sample_rows(dataset.val, bos_id, LENGTH), vocab_size, effort)
        if all(check.status == "pass" for check in checks):
            checks.append(function_windows(load, dataset.val, bos_id, vocab_size, effort.tokens))
        read = sorted(path for path in files if _inside(path, dataset.directory))
    why = "a function has no file, log or score of its own"
    artifact = not_applicable("artifact", why)
    if read:
        artifact = failed(
            "artifact", f"the function reads {read[0]}: the very text that it is to predict", files=read[:8]
        )
    others = [not_applicable(name, why) for name in ("score-first", "reproduction")]
    return [*checks, text.bytes_counted(dataset.val, dataset.tokenizer), artifact, *others]


def _inside(path: str, folder: Path) -> bool:
    return path.startswith(os.path.realpath(folder) + os.sep)


def _checked(function: Function, vocab_size: int) -> Function:
    def checked(ids_BL: Tensor) -> Tensor:
        try:
            log_p_BLV = function(ids_BL)
        except Exception as error:  # the user's code may raise anything
            raise ConfigError(f"the function raised {type(error).__name__}: {error}") from error
        expected = (*ids_BL.shape, vocab_size)
        if not isinstance(log_p_BLV, Tensor) or tuple(log_p_BLV.shape) != expected:
            shape = tuple(log_p_BLV.shape) if isinstance(log_p_BLV, Tensor) else type(log_p_BLV).__name__
            raise ConfigError(f"the function gave {shape}, expected log-probabilities of shape {expected}")
        return log_p_BLV.detach().cpu().clone()

    return checked


def sample_rows(split: Split, bos_id: int, length: int) -> Tensor:
    """Return ROWS windows of `length` tokens from the stream: its beginning, places drawn, and its end."""
    length = min(length, split.tokens)
    last = split.tokens - length
    drawn = np.random.default_rng(0).integers(0, last + 1, ROWS - 2).tolist()
    places = [0, *drawn, last]
    return torch.from_numpy(np.stack([split.slice(at, length).astype(np.int64) for at in places]))
