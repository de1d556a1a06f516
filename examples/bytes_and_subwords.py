# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Bytes against subwords, on a laptop
#
# The same text, once as bytes and once as subwords, and a model of the same size on each. Bits per byte can be
# compared: both tokenizers give the text back, so both scores are about the same bytes.

# %%
import niblick as nb

SOURCE = "pydocs"
STEPS = 300

# %%
as_bytes = nb.prepare(SOURCE, "data/as-bytes", max_docs=80, val_docs=4)
as_subwords = nb.prepare(SOURCE, "data/as-subwords", max_docs=80, val_docs=4, tokenizer="sp:512")
assert as_bytes.dataset.val.text_hash == as_subwords.dataset.val.text_hash
assert as_subwords.dataset.val.lossless

# %% [markdown]
# A subword stands for several bytes, so a window of as much text has fewer tokens.

# %%
split = as_subwords.dataset.manifest["niblick"]["splits"]["train"]
bytes_per_token = split["bytes"] / split["tokens"]
print(f"{bytes_per_token:.2f} bytes a token")

# %%
WINDOW = 128


def train(data, name, tokens, vocabulary):
    return nb.train(
        "hnet-small",
        data,
        name=name,
        model__width=64,
        model__heads=2,
        model__kv_heads=1,
        model__levels=[],
        model__main__layout="T2",
        model__vocab_size=vocabulary,
        train__seq_len=tokens,
        train__batch_tokens=8 * tokens,
        train__micro_batch_tokens=8 * tokens,
        train__warmup_steps=0,
        train__val_every=0,
        score__seq_len=tokens,
        score__documents=1,
        schedule__steps=STEPS,
        schedule__max_seconds=None,
    )


of_bytes = train(as_bytes, "of-bytes", WINDOW, 260)
of_subwords = train(as_subwords, "of-subwords", round(WINDOW / bytes_per_token), 512)

# %% [markdown]
# ## Which is better?
#
# Each run has read as much text in as many steps. `compare` sets their scores beside each other.

# %%
for run in (of_bytes, of_subwords):
    print(f"{run.id}: {run.score:.4f} bits per byte, artifact {run.result.artifact_bytes:,} bytes")
nb.compare(of_bytes, of_subwords)
