"""Reading calls: into the script's own functions, and what is known of everybody else's."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence

from niblick.audit.flow_events import Finding
from niblick.audit.flow_expressions import Expressions
from niblick.audit.flow_values import Function, Scope, Value, blend

_PLAIN = frozenset(
    """
    float int str bool len round abs sum item cpu numpy tolist mean to double long half bfloat16 reshape view
    flatten squeeze unsqueeze detach clone contiguous expand expand_as permute transpose stack cat concatenate
    concat tensor as_tensor zeros_like empty_like ones_like full_like from_numpy all_reduce all_gather barrier log
    exp log2 log1p sqrt isfinite isnan nan_to_num clamp clip numel size dim type cuda pin_memory astype copy array
    asarray arange list tuple set enumerate zip range reversed isinstance hasattr broadcast repeat tile split chunk
    append format join get pop keys values items ravel unbind nonzero where any all prod cumsum float32 float64
    int64 int32 map filter iter next tobytes encode decode strip print repr new_zeros new_tensor masked_select
    narrow unfold roll pad type_as ceil floor pow glob Path fromfile load open read read_bytes sorted sort argsort
    topk max min is_tensor flip diff byte short
    """.split()  # noqa: SIM905
)
"""Calls that move, shape, load or add up values, and price nothing."""
_SAME = frozenset(
    """
    to train eval cuda cpu half bfloat16 float double requires_grad_ compile DDP DistributedDataParallel
    DataParallel parameters named_parameters modules named_modules children buffers state_dict items values
    zero_grad module fullgraph parameters_to_vector get_submodule unwrap_model
    """.split()  # noqa: SIM905
)
"""Calls that give a model, or its weights, back as they are."""
_UPDATES = ("update", "observe", "fit", "ingest", "partial_fit", "learn", "adapt", "train_on", "train_step", "absorb")
_COUNTS = ("bincount", "Counter", "unique", "histogram", "histc", "unique_consecutive")
_FITS = ("lstsq", "minimize", "curve_fit", "polyfit", "solve", "fit", "LBFGS", "minimize_scalar", "fmin", "brent")
_HASHES = ("hash", "bitwise_xor", "crc32", "adler32", "blake2b", "blake2s", "md5", "sha1", "sha256", "sha512", "xxhash",
           "xxh64", "xxh32", "xxh3_64", "murmurhash3_32", "mmh3")  # fmt: skip
_SHOWS = (
    "print",
    "log",
    "log0",
    "info",
    "write",
    "dump",
    "dumps",
    "print0",
    "master_print",
    "warning",
    "debug",
    "logln",
)
_WRAPS = ("compile", "partial", "wraps", "jit", "script", "DDP", "DistributedDataParallel", "checkpoint_wrapper")
_POSITIONS = ("nonzero", "argwhere", "flatnonzero")
_COSTS = ("cross_entropy", "nll_loss", "gather", "take_along_dim", "take_along_axis", "binary_cross_entropy")
_CALIBRATES = ("hessian", "calib", "awq", "gptq", "smoothquant", "collect_stat", "act_stat", "activation_stat")
_KNOWN = frozenset(
    """
    torch numpy sentencepiece tqdm huggingface_hub datasets triton wandb brotli zstandard tiktoken transformers
    einops safetensors scipy sklearn constriction numba mamba_ssm causal_conv1d flash_attn flash_attn_interface
    niblick pandas requests psutil yaml tokenizers deepspeed apex xformers liger_kernel regex zstd pyzstd
    """.split()  # noqa: SIM905
)
"""Packages whose functions do what their names say."""


class Calls(Expressions):
    """Gives the value of a call."""

    def call(self, node: ast.Call, scope: Scope) -> Value:
        """The value of a call: the script's own functions are gone through, others known by their names."""
        name = called(node)
        owner = self.value(node.func.value, scope) if isinstance(node.func, ast.Attribute) else None
        given = [self.value(argument, scope) for argument in node.args]
        words = {word.arg or "**": self.value(word.value, scope) for word in node.keywords}
        everything = [*given, *words.values()]
        function = self._function(node, owner, name, scope)
        if any(value.val() for value in everything):
            self.uses.add(Finding(node.lineno, f"{name or 'a call'} gets validation data"))
            if any(word in name.lower() for word in _CALIBRATES):
                self._calibrates(node, name, everything)
        if function is not None and function.function is not None:
            return self.enter(function.function, node, given, words)
        out = self._foreign(node, name, owner, function, given, words)
        out = self._traits(node, name, owner, everything, out)
        self._noted(node, name, owner, everything, out)
        return out

    def _function(self, node: ast.Call, owner: Value | None, name: str, scope: Scope) -> Value | None:
        if owner is not None:
            own = self.attribute(owner, name, node) if not owner.traits & {"module"} else None
            return own if own is not None and own.function is not None else None
        return self.value(node.func, scope)

    def enter(self, function: Function, node: ast.AST, given: Sequence[Value], words: dict[str, Value]) -> Value:
        """Go through one of the script's own functions."""
        raise NotImplementedError

    def _calibrates(self, node: ast.Call, name: str, values: Sequence[Value]) -> None:
        for region in (region for value in values for region in value.val()):
            if not any(other.overlaps(region) for other in self.scored):
                what = f"{name} is given validation data{self._from(node.lineno)} before that is scored"
                self.find("corrections", node.lineno, what)

    def _foreign(
        self, node: ast.Call, name: str, owner: Value | None, function: Value | None, given: list[Value],
        words: dict[str, Value],
    ) -> Value:  # fmt: skip
        everything = [*given, *words.values()]
        if owner is not None and not owner.traits & {"module"}:
            if owner.is_state and name in _SAME:
                return _copied(owner) if name == "state_dict" else owner
            if (out := self._inside(node, name, owner, everything)) is not None:
                return out
        if name in _WRAPS and given:
            return given[0]
        if name in ("deepcopy", "copy") and given and given[0].is_state:
            return _copied(given[0])
        if name in ("backward", "grad", "autograd"):
            return self._gradient(node, owner, everything)
        if name in _COUNTS or name in _FITS:
            return self._statistic(node, name, everything)
        for value in everything:  # functions that are handed on will be called
            if value.function is not None and not name.startswith("register"):
                self.enter(value.function, node, [v for v in everything if v is not value], {})
        if owner is not None and name.startswith("register") and "hook" in name:
            self.hooks += [value for value in given if value.function is not None]
        if name == "remove":
            self.hooks.clear()
        parts = everything if owner is None or owner.traits & {"module"} else [*everything, owner]
        if name in _PLAIN or name in _SHOWS:
            out = blend(parts)
            out.traits |= blend(parts[:1]).traits & {"text"} if name in ("join", "format", "glob", "Path") else set()
            for part in parts:
                if part.is_state and name in ("where", "clone", "detach", "stack", "cat"):
                    out.makers[id(part.root)] = part.root
            if len(parts) == 1 or name == "astype":
                out.newest = (owner or parts[0]).newest
            return _numbered(out, name, parts)
        who = owner if owner is not None and not owner.traits & {"module"} else function
        who = who if who is not None and not who.traits & {"module"} else None
        text = [owner] if owner is not None and who is owner and owner.regions else []
        out = self.ask(node, who, [*everything, *text], name)
        if who is not None and who.is_state and self.hooks and out.val():
            self._hooked(node, out)
        if out.is_state and not out.trials:
            out.trials = frozenset(self.loops)
        if who is None and {"foreign"} & _origin(owner, function) and out.val():
            self.unfollowed.add(Finding(node.lineno, f"validation data goes into {name}, which is not in this file"))
        return out

    def _hooked(self, node: ast.AST, seen: Value) -> None:
        hooks, self.hooks = self.hooks, []
        for hook in hooks:
            assert hook.function is not None
            inner = [blend([seen]) for _ in range(3)]
            for value in inner:
                value.costs, value.items = set(), None
            self.enter(hook.function, node, inner, {})
        self.hooks = hooks

    def _gradient(self, node: ast.Call, owner: Value | None, everything: list[Value]) -> Value:
        loss = (
            owner if owner is not None and not owner.traits & {"module"} else (everything[0] if everything else Value())
        )
        self.backward += 1
        self.trained |= {cost.number for cost in loss.costs}
        into = list(loss.makers.values()) + [value for value in everything[1:] if value.is_state]
        if loss.val():
            self.learn(loss, into, node.lineno, "learns by gradients from")
        for state in into:
            state.root.traits.add("trained")
        out = Value()
        for state in into:
            out.learned |= state.root.learned
        return out

    def _statistic(self, node: ast.Call, name: str, everything: list[Value]) -> Value:
        out = blend(everything)
        if not out.val():
            return out
        if name in _FITS:
            known = [v for v in out.val() if any(other.overlaps(v) for other in self.scored)]
            if len(known) < len(out.val()):
                self.find("corrections", node.lineno, f"{name} is fitted to validation data{self._from(node.lineno)}")
        table = Value()
        self.learn(out, [table], node.lineno, f"{name} of" if name in _COUNTS else f"{name} fits", must_be_scored=False)
        table.traits.discard("trained")
        return table

    def _inside(self, node: ast.Call, name: str, owner: Value, everything: list[Value]) -> Value | None:
        """Methods that change what they belong to."""
        given = blend(everything)
        line = node.lineno
        if name == "load_state_dict":
            owner.root.learned = set(given.learned)
            owner.root.chosen |= given.chosen
            return Value()
        if name in ("reset_parameters", "init_weights", "apply", "reset"):
            if name == "reset":
                owner.root.learned = set()
            owner.root.trials = frozenset(self.loops)
            return Value()
        if name == "copy_" and owner.is_state:
            if given.val():
                self._weights(owner, given, line)
            else:
                owner.root.learned = set(given.all_learned())
            return owner
        if name in ("index_put_", "index_add_", "scatter_add_", "put_", "scatter_", "at") and everything:
            keys = blend(everything[:2] if name != "index_put_" else everything[:1])
            if keys.val() and owner.is_state:
                self.learn(keys, [owner], line, "counts", must_be_scored=False)
                return owner
        learns = name in _UPDATES and owner.is_state and "list" not in owner.traits
        if learns and given.val() and not given.costs:
            self.learn(given, [owner], line, f"{name} learns from", must_be_scored=False)
            return Value()
        if name in ("append", "extend", "add", "insert", "add_", "appendleft", "sub_", "setdefault", "push") or (
            name.endswith("_") and not name.startswith("_") and name not in ("requires_grad_", "zero_")
        ):
            self._added(owner, name, everything, line)
            return owner if name.endswith("_") or name == "setdefault" else Value()
        if name in ("zero_", "clear"):
            owner.regions.clear()
            owner.costs.clear()
            owner.learned.clear()
            return owner
        if name == "sort" and "list" in owner.traits:
            owner.traits.add("sorted")
            owner.items = None
            return Value()
        return None

    def _added(self, owner: Value, name: str, everything: list[Value], line: int) -> None:
        for value in everything:
            self.settle(value, line, summed=True)
            owner.take(value)
            owner.place |= value.place | self.chosen_by(value, self.cuts)
            owner.makers |= value.makers
        if name in ("append", "extend", "insert", "push", "appendleft"):
            owner.items = None
            owner.traits.add("list")

    def _weights(self, owner: Value, given: Value, line: int) -> None:
        """Weights are set to something that follows from validation text."""
        known = [region for region in given.val() if any(other.overlaps(region) for other in self.scored)]
        self.learn(given, [owner], line, "sets weights by", must_be_scored=not known)

    def _traits(self, node: ast.Call, name: str, owner: Value | None, everything: list[Value], out: Value) -> Value:
        """What calls make of targets and distributions."""
        parts = everything if owner is None else [owner, *everything]
        target = any("target" in part.traits for part in everything)
        if name in ("softmax", "log_softmax"):
            out.traits = (out.traits - {"target"}) | {"dist"}
        elif name in _COSTS:
            out.traits -= {"dist", "target", "of target", "onehot"}
        elif name in ("item", "float") or (name in ("sum", "mean") and not everything):
            out.traits -= {"dist", "of target", "onehot"}
        elif name == "one_hot":
            out.traits = (out.traits - {"target"}) | {"onehot"}
        elif name in ("masked_fill", "masked_fill_", "where", "index_fill") and any(
            "of target" in part.traits and "bool" in part.traits for part in parts
        ):
            if any("dist" in part.traits for part in parts):
                self.bent(node, parts)
        elif out.makers and out.costs and name not in _PLAIN:
            out.traits -= {"target", "of target", "onehot"}
            out.traits = out.traits - {"dist"} if target else out.traits | {"dist"}
        if name in (
            "eq",
            "ne",
            "lt",
            "gt",
            "le",
            "ge",
            "isin",
            "logical_and",
            "logical_or",
            "startswith",
            "any",
            "all",
        ):
            out.traits = (out.traits - {"target", "key"}) | {"bool"}
        if name in ("len", "numel", "size", "dim", "nelement", "stat", "perf_counter", "time"):
            return Value(traits={"const"}, place=out.place)
        if name in _POSITIONS and any("bool" in part.traits for part in parts):
            return Value(traits={"const"}, place=out.place)  # where something stands is no text, as a count is none
        return out

    def _noted(self, node: ast.Call, name: str, owner: Value | None, everything: list[Value], out: Value) -> None:
        """What calls say of costs: shown, settled, chosen by; and keys."""
        line = node.lineno
        if name in ("masked_fill", "masked_fill_", "where", "index_fill", "mul", "mul_"):
            parts = everything if owner is None else [owner, *everything]
            for cost in parts:
                self.scaled(node, cost, blend([part for part in parts if part is not cost]))
        if name == "compress" and any(value.val() for value in everything):
            self.find("corrections", line, "validation text is packed, to be known before it is scored")
        if name in _SHOWS:
            for value in everything:
                self.show(value)
        if name in ("item", "float", "tolist", "numpy"):
            self.settle(out, line, summed=False)
        if name in _HASHES:
            parts = [part for value in everything for part in (value.items or [value])]
            self.mixed(node, [p for p in parts if "text" not in p.traits], name)
            out.traits.add("key")
        many = len(everything) > 1 or name in ("argmin", "argsort", "argmax", "topk", "nanargmin")
        if name in ("minimum", "fmin", "maximum", "fmax"):
            costs = [value for value in everything if value.costs or value.val()]
            if len(costs) > 1:
                self.find("corrections", line, f"{name} chooses by the cost of validation data")
        elif name in ("argmin", "amin", "nanargmin", "argsort", "argmax"):
            self.choose(out, node)
        elif name in ("min", "max", "sorted") and (many or out.trials):
            self.choose(out, node)
            if name == "sorted":
                out.traits.add("sorted")


def called(node: ast.AST) -> str:
    """The last name in the function of a call; "" for anything that is no call."""
    if not isinstance(node, ast.Call):
        return ""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _origin(owner: Value | None, function: Value | None) -> set[str]:
    return (owner.traits if owner is not None else set()) | (function.traits if function is not None else set())


def foreign(module: str) -> bool:
    """Whether a module is none that is known."""
    top = module.partition(".")[0]
    return top not in _KNOWN and top not in sys.stdlib_module_names


def _copied(value: Value) -> Value:
    out = blend([value])
    out.makers, out.trials, out.fields = {}, value.trials, dict(value.fields)
    return out


def _numbered(out: Value, name: str, parts: Sequence[Value]) -> Value:
    """Numbers stay known through `int`, `max` and `min`."""
    numbers = [part.number for part in parts]
    if name in ("int", "max", "min", "abs") and numbers and None not in numbers:
        known = [number for number in numbers if number is not None]
        out.number = max(known) if name == "max" else min(known)
    if name in ("list", "tuple", "iter", "sorted", "reversed", "set") and parts:
        out.items = parts[0].items if name != "reversed" else None
        out.traits |= (parts[0].traits & {"const"}) | {"list"}
    elif name in ("zip", "enumerate") or (name == "items" and parts):
        out.items = None
    if all("const" in part.traits for part in parts) and not out.regions and name in _NUMBERS:
        return Value(traits={"const"}, number=out.number, place=out.place)
    return out


_NUMBERS = ("int", "float", "max", "min", "abs", "round", "len", "range", "sum")
