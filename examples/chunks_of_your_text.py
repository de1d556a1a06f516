# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Chunks of your own text
#
# An H-Net reads bytes, and a router decides where one chunk ends and the next begins. Here one learns that on a text of
# yours, and shows what it learned.

# %%
import niblick as nb

SOURCE = "pydocs"  # a file of yours, a folder, hf:OWNER/NAME, or a list of strings
STEPS = 300

# %% [markdown]
# ## Text to tokens
#
# The first documents are held out: nothing is learned from them.

# %%
data = nb.prepare(SOURCE, "data/own", max_docs=80, val_docs=4)
data

# %% [markdown]
# ## A small model
#
# One block outside, one inside, and a router between them that is asked for chunks of about six bytes.

# %%
run = nb.train(
    "hnet-small",
    data,
    model__width=64,
    model__heads=2,
    model__kv_heads=1,
    model__main__layout="T1",
    train__seq_len=128,
    train__batch_tokens=1024,
    train__micro_batch_tokens=1024,
    train__warmup_steps=0,
    train__val_every=0,
    score__seq_len=128,
    score__documents=1,
    schedule__steps=STEPS,
    schedule__max_seconds=None,
)
run.score  # bits per byte, of the artifact file, on held-out text

# %% [markdown]
# ## What it learned
#
# Every chunk with its place, its text and the probability of the boundary before it. In a notebook they are coloured.

# %%
model = nb.load(run)
chunks = model.chunks("The router decides where one chunk ends and the next begins.")
chunks

# %%
sizes = [len(chunk.text) for chunk in chunks]
print("|".join(chunk.text for chunk in chunks))
print(f"{len(chunks)} chunks of {sum(sizes) / len(sizes):.1f} characters")
