# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # A model in one megabyte
#
# Weights are trained once, and packed in any number of ways. Here they are packed plainly, and then as well as fits
# into a million bytes.

# %%
import niblick as nb

SOURCE = "pydocs"
STEPS = 300
CAP = 1_000_000

# %%
data = nb.prepare(SOURCE, "data/megabyte", max_docs=80, val_docs=4)
run = nb.train(
    "hnet-small",
    data,
    model__width=160,
    model__main__layout="T2",
    train__seq_len=128,
    train__batch_tokens=512,
    train__micro_batch_tokens=512,
    train__warmup_steps=0,
    train__val_every=0,
    score__seq_len=128,
    score__documents=1,
    schedule__steps=STEPS,
    schedule__max_seconds=None,
)
print(f"as trained: {run.result.artifact_bytes:,} bytes, {run.score:.4f} bits per byte")

# %% [markdown]
# ## The best weights that fill a cap
#
# `fit` measures what rounding each tensor costs on training text, and spends the bytes where they matter.

# %%
packed = nb.fit(run, artifact_bytes=CAP, codec="zlib", gptq=False, tokens=512)
print(f"fitted: {packed.bytes:,} bytes, {packed.score:.4f} bits per byte")
assert packed.bytes <= CAP

# %% [markdown]
# The file is all there is of it: whoever has it has the model.

# %%
model = nb.load(packed)
print(model.generate("The ", max_bytes=40, seed=1))
