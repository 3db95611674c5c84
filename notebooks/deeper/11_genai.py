# %% [markdown]
# # 11 · GenAI and its builder
#
# You have written the loop of lesson 11. The next model has other names for its cache, another
# [chat template](../glossary.md#chat-template) and another mark for the end. Must you write the loop again? The library
# [ONNX Runtime GenAI](https://onnxruntime.ai/docs/genai/) has the loop, and a builder that makes the file for it.
#
# You need the [core of lesson 11](../11_language_models.ipynb), with its packages. There is no wheel of `onnxruntime-genai` for
# Macs with an Intel processor.
#
# After this page you will be able to
#
# - build a file in 4 bits, with its configuration, from a checkpoint,
# - write text with GenAI as it comes, with the search that you choose,
# - check that GenAI and a loop of your own write the same tokens.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## What the builder reads
#
# The builder reads a [checkpoint](../glossary.md#checkpoint): a folder with weights, a configuration and a tokenizer, as the library
# [transformers](https://huggingface.co/docs/transformers) stores them. `cu.checkpoint` writes SmolLM2 in this form, with
# weights of 16 bits.

# %%
from pathlib import Path

HERE = Path("work/11_genai")
tokenizer = cu.checkpoint(HERE / "checkpoint")
{file.name: file.stat().st_size for file in sorted(HERE.glob("checkpoint/*"))}

# %% [markdown]
# ## Build it
#
# The builder does not trace the model, as an exporter does. It knows the layers of some families of models, and
# writes their nodes one after the other. SmolLM2 has the layers of a Llama, which is one of them. The command is
# `python -m onnxruntime_genai.models.builder -i checkpoint -o model -p int4 -e cpu -c cache --extra_options hf_token=false`. We
# call the two functions behind it, because so we can collect what they print. `-c` is a folder for temporary files, and
# `hf_token=false` means: no account of a model hub.

# %%
import io
import logging
from contextlib import redirect_stderr, redirect_stdout
from onnxruntime_genai.models import builder
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
logging.disable(logging.INFO)  # the quantizer names each node
how = "", str(HERE / "checkpoint"), str(HERE / "model"), "int4", "cpu", str(HERE)
with redirect_stdout(io.StringIO()) as said, redirect_stderr(said):
    options = builder.parse_extra_options(*how, ["hf_token=false"])
    builder.create_model(*how, **options)

# %%
{file.name: file.stat().st_size for file in sorted(HERE.glob("model/*"))}

# %% [markdown]
# The graph, the weights, the tokenizer, the chat template, and a configuration for GenAI. Which operators are in the graph?

# %%
MODEL = HERE / "model" / "model.onnx"
counts, own = cu.op_histogram(MODEL), "com.microsoft::"
assert counts[f"{own}MatMulNBits"] == 5 * counts[f"{own}GroupQueryAttention"] + 1
counts.head(8).to_frame()

# %% [markdown]
# Five products in each layer, and not seven: the weights for query, key and value are one matrix here.
# [`GroupQueryAttention`](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention)
# rotates, attends and appends to the [cache](../glossary.md#kv-cache). `GatherBlockQuantized` reads the table of words in
# 4 bits. All operators with `com.microsoft` before the name belong to ONNX Runtime, not
# to the standard: another runtime need not know them.
#
# ## What genai_config.json says
#
# It tells the loop what we wrote by hand in lesson 11.

# %%
import json

config = json.loads((HERE / "model" / "genai_config.json").read_text())
config

# %% [markdown]
# `%d` stands for the number of a layer. So GenAI knows which output becomes which input, how large the cache is for a
# token, and at which token an answer ends. The part `search` says how a token is chosen from the scores. `do_sample` is false:
# greedy decoding. A program may change this part for each answer.
#
# ## A chat template, and text as it comes
#
# A program may change the configuration before it loads the model. We ask for one thread, to compare speeds later. The template
# takes a list of messages, as JSON.

# %%
import onnxruntime_genai as og

settings, one = og.Config(str(HERE / "model")), {"intra_op_num_threads": 1}
settings.overlay(json.dumps({"model": {"decoder": {"session_options": one}}}))
model = og.Model(settings)
words = og.Tokenizer(model)
talk = [{"role": "user", "content": "What is the capital of Italy?"}]
prompt = words.apply_chat_template(messages=json.dumps(talk))
ids = words.encode(prompt)
assert "system" in prompt and list(ids) == tokenizer.encode(prompt).ids
print(prompt)

# %% [markdown]
# It writes more than we did in lesson 11: it begins with a message of the *system*. So take the template that
# belongs to the checkpoint, and do not write your own. The tokenizer of GenAI gives the same numbers as ours, for this text.
#
# Now the loop. A `Generator` keeps the cache and all tokens. `create_stream` makes text of the tokens as they come. A
# program prints each piece at once; we join them with a bar, to see them.

# %% tags=["remove-input"]
cu.quiz("11_genai", 1)


# %%
def generator(**search):
    params = og.GeneratorParams(model)
    params.set_search_options(**search)
    return og.Generator(model, params)


writer, text, pieces = generator(max_length=64), words.create_stream(), []
writer.append_tokens(ids)
while not writer.is_done():
    writer.generate_next_token()
    pieces.append(text.decode(writer.get_next_tokens()[0]))
assert "Rome" in "".join(pieces) and len(ids) + len(pieces) <= 64
"|".join(pieces)

# %% [markdown]
# `max_length` counts **all** tokens, the prompt, too. And why has the text a stream of its own? Because a token is not
# always a piece of text:

# %%
ship, text = words.encode("🚢 naïve"), words.create_stream()
alone = [words.decode(ship[n : n + 1]) for n in range(len(ship))]
together = [text.decode(token) for token in ship]
assert "".join(together) == "🚢 naïve" != "".join(alone)
alone, together

# %% [markdown]
# The ship takes several tokens, and none of them is a character. The stream waits until the character is complete.
#
# ## A second turn
#
# The generator keeps the cache, so the next question needs only **its** tokens. We apply the template to the whole talk,
# and append what is new.

# %%
answer = words.decode(writer.get_sequence(0)[len(ids) :])
talk += [{"role": "assistant", "content": answer}]
talk += [{"role": "user", "content": "What is the capital of Spain?"}]
whole = words.encode(words.apply_chat_template(messages=json.dumps(talk)))
kept = writer.token_count()
assert whole[:kept].tolist() == writer.get_sequence(0).tolist()
f"{len(whole)} tokens, {len(whole) - kept} of them new"

# %% [markdown]
# Are the scores those of a generator that reads the whole talk anew? We compare with two such: one gets the talk as a whole,
# the other in two parts.

# %%
ways = {"kept": [whole[kept:]], "anew": [whole], "parts": [whole[:30], whole[30:]]}
scores = {}
for way, parts in ways.items():
    reader = writer if way == "kept" else generator(max_length=64)
    for part in parts:
        reader.append_tokens(part)
    scores[way] = reader.get_logits()[0, -1]
assert len({row.argmax() for row in scores.values()}) == 1
{way: float(abs(row - scores["anew"]).max()) for way, row in scores.items()}

# %% [markdown]
# All choose the same token, but the kept cache gives other scores. Only one thing differs: there, the tokens of the answer went
# in one at a time. So for one token this file computes other numbers than for several at once. An
# answer in a second turn may differ from one that is computed anew, and a test of a chat must allow it.
#
# ## The same tokens as our own loop
#
# We run the same file in plain ONNX Runtime, with the loop of lesson 11. It needs one input more: a mask of the tokens that
# count. Here all do.

# %%
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = 1
session = ort.InferenceSession(MODEL, options)

# %%
import numpy as np

CACHE = [value.name for value in session.get_inputs()][2:]


def own(ids, count):
    fresh, chosen = ids.tolist(), []
    cache = [np.zeros((1, 3, 0, 64), "float32")] * len(CACHE)
    for _ in range(count):
        mask = np.ones((1, len(ids) + len(chosen)), "int64")
        feed = {"input_ids": np.array([fresh]), "attention_mask": mask}
        logits, *cache = session.run(None, feed | dict(zip(CACHE, cache)))
        fresh = [int(logits[0, -1].argmax())]
        chosen += fresh
    return chosen


# %% [markdown]
# And GenAI, with what follows the prompt as a list. Both continue the beginning of our story.


# %%
def genai(ids, count, **search):
    writer = generator(max_length=len(ids) + count, **search)
    writer.append_tokens(ids)
    while not writer.is_done():
        writer.generate_next_token()
    return writer.get_sequence(0)[len(ids) :].tolist()


# %%
story = words.encode(cu.story())[:64]
assert own(story, 24) == genai(story, 24)
words.decode(np.array(genai(story, 24)))

# %% [markdown]
# The same 24 tokens: for this text, GenAI and our loop agree. Is it faster? Our loop gets a new cache from each step, with
# the old one copied into it. GenAI has room for `max_length` tokens from the beginning, and writes into it. In the
# third row it may not do so.

# %%
calls = {"own": lambda: own(story, 24), "GenAI": lambda: genai(story, 24)}
calls["not shared"] = lambda: genai(story, 24, past_present_share_buffer=False)
cu.compare(calls, rounds=3, warmup=1)

# %% [markdown]
# The file and the number of threads are the same, so what differs is the loop. Look at the quartiles, too: where they overlap, no
# row has won. So take GenAI for what you need not write, and measure its speed with your own model and texts. Give both
# the same number of threads, or you compare the threads.
#
# ## Another search
#
# With `do_sample`, a token is drawn by its chance. As in a loop by hand, a seed makes the text come back.

# %%
draw = {"do_sample": True, "top_k": 20, "temperature": 0.8}
texts = [genai(ids, 24, **draw, random_seed=seed) for seed in (1, 1, 2)]
assert texts[0] == texts[1] != texts[2]
[words.decode(np.array(text)) for text in texts]

# %% [markdown]
# GenAI sends telemetry of its own, beside that of ONNX Runtime. The same variable `ORT_DISABLE_TELEMETRY` switches both off;
# the page [Telemetry](05_telemetry.ipynb) tells more, and the tests of this course hold it for GenAI, too.

# %% [markdown]
# ## Recap
#
# - The builder makes a file from a checkpoint of a family that it knows. A model of your own kind you export, as in lesson 11.
# - `genai_config.json` says the names, the sizes, the mark for the end, and the search. Read it before you trust a file.
# - Take the chat template from the checkpoint, and decode with a stream.
# - For the next turn, append only what is new. Small differences in the scores are no mistake.
# - Write a loop of your own once, to compare: greedy, it gives the same tokens.
#
# **Next:** back to [lesson 11](../11_language_models.ipynb).
