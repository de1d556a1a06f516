"""How many weights a model has, worked out from its config: nothing is made, and torch is not needed.

Each function counts one kind of module, and tests hold it against that module. Of blocks and
routers that were registered nothing is known here, so a model with such parts is made without memory and counted.
"""

from __future__ import annotations

from collections.abc import Callable

from niblick.model.model_config import (
    BlockConfig,
    LevelConfig,
    ModelConfig,
    StageConfig,
    is_soft,
    level_widths,
    parse_layout,
)


def parameter_count(config: ModelConfig) -> int:
    """Number of weights of a model that is never made; tied ones count once. Raises ConfigError if it cannot be made.

    A small model inside counts too.
    """
    config.expect_entropy()
    if not _is_ours(config):
        return _made(config)
    narrow, width = config.embed_width or config.width, config.width
    count = config.vocab_size * narrow
    count += parameter_count(config.entropy.model) if config.entropy else 0
    count += narrow * width if config.embed_width else 0
    count += sum((ngram.rows + width) * ngram.width for ngram in config.ngrams)
    count += 0 if config.tie_embeddings else width * config.vocab_size
    inner = level_widths(config.levels, config.main, config)[1:]
    count += sum(_level(level, config, within) for level, within in zip(config.levels, inner, strict=True))
    return count + _stage(config.main, config)


def _is_ours(config: ModelConfig) -> bool:
    letters = {letter for stage in config.stages() for letter in parse_layout(stage.layout)}
    return letters <= _BLOCKS.keys() and {level.router for level in config.levels} <= _ROUTERS.keys()


def _made(config: ModelConfig) -> int:
    import torch

    from niblick.model.lm import LM

    with torch.device("meta"):
        return sum(p.numel() for p in LM(config).parameters())


def _level(config: LevelConfig, model: BlockConfig, inner_width: int) -> int:
    block = config.block_config(model)
    width = block.width
    count = sum(_stage(stage, block) for stage in (config.encoder, config.decoder) if stage)
    count += _ROUTERS[config.router](width)
    if is_soft(config.router):
        return count + _linear(width, width, bias=True)
    count += _linear(width, width, config.residual_bias) + inner_width - width
    return count + (width if config.dechunk == "decay" else 0)


def _stage(config: StageConfig, model: BlockConfig) -> int:
    block = config.block_config(model)
    letters = parse_layout(config.layout)
    count = sum(_BLOCKS[letter](block) for letter in letters[: config.unique or None])
    count += len(letters) // 2 * block.width if config.skips else 0
    return count + (1 + config.norm_in) * _norm(block)


def _attention(block: BlockConfig) -> int:
    """Letter t."""
    width, kv_width = block.width, block.width // block.heads * block.kv_heads
    count = 2 * width * (width + kv_width)
    count += block.heads if block.qk_gain else 0
    count += 2 * width if block.residual_mix else 0
    return count + _scale(block) + _norm(block)


def _conv(block: BlockConfig) -> int:
    """Letter c."""
    return _causal_conv(block.width, block.conv_kernel) + _norm(block)


def _mamba(block: BlockConfig) -> int:
    """Letter m."""
    inner, heads = block.ssm_inner, block.ssm_heads
    mixed = inner + 2 * block.ssm_state
    count = _linear(block.width, inner + mixed + heads) + _causal_conv(mixed, block.conv_kernel)
    count += 3 * heads + inner + _linear(inner, block.width)
    return count + _scale(block) + _norm(block)


def _mlp(block: BlockConfig) -> int:
    """What capital letters have besides."""
    maps = 3 if block.mlp == "swiglu" else 2
    return maps * block.width * block.hidden + _scale(block) + _norm(block)


def _norm(block: BlockConfig) -> int:
    return block.width if block.norm_weights else 0


def _scale(block: BlockConfig) -> int:
    return block.width if block.branch_scale else 0


def _linear(into: int, out: int, bias: bool = False) -> int:
    return (into + bias) * out


def _causal_conv(channels: int, kernel: int) -> int:
    return channels * (kernel + 1)


_BLOCKS: dict[str, Callable[[BlockConfig], int]] = {
    "T": lambda block: _attention(block) + _mlp(block),
    "t": _attention,
    "C": lambda block: _conv(block) + _mlp(block),
    "c": _conv,
    "M": lambda block: _mamba(block) + _mlp(block),
    "m": _mamba,
}
_ROUTERS: dict[str, Callable[[int], int]] = {
    "cosine": lambda width: 2 * width * width,
    "cosine-threshold": lambda width: 2 * width * width + 1,
    "cosine-bias": lambda width: 2 * width * width + 1,
    "soft": lambda width: _linear(2 * width, 1, bias=True),
    "fixed": lambda width: 0,
    "whitespace": lambda width: 0,
    "entropy": lambda width: 0,
    "given": lambda width: 0,
    "score-function": lambda width: _linear(width, 1, bias=True),
    "gumbel": lambda width: _linear(width, 1, bias=True),
    "sombrero": lambda width: 2 * width * width,
    "coding-rate": lambda width: 0,
    "delayed": lambda width: 3 * width * width,
}
