# %% [markdown]
# # 04 · Recurrent networks
#
# You train an LSTM that reads text. The file must take texts of any length, and your notebook exports several versions
# in a row. The second export fails.
#
# You need the [core of lesson 04](../04_dynamic_axes.ipynb).
#
# After this page you will be able to
#
# - export a recurrent network for any batch and any length,
# - say why each export needs a fresh process,
# - check that the file holds one `LSTM` node.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## A script for the export
#
# An LSTM is a loop over the steps. [In ONNX it is one operator](https://onnx.ai/onnx/operators/onnx__LSTM.html), which
# takes any length. In PyTorch 2.13 the first export of an LSTM in a process spoils the next one. So the network and its
# export stand in a file, and each export runs in a process of its own. The network:

# %%
tagger = """
import sys
import torch

class Tagger(torch.nn.Module):  # tokens int64 [batch, length] → float32 [batch, 2]
    def __init__(self):
        super().__init__()
        self.embed, self.score = torch.nn.Embedding(50, 16), torch.nn.Linear(16, 2)
        self.read = torch.nn.LSTM(16, 16, batch_first=True)

    def forward(self, tokens):
        return self.score(self.read(self.embed(tokens))[0][:, -1])
"""

# %% [markdown]
# The export. The seed makes the weights the same each time. The script writes each file that is named in the command.

# %%
export = """
def made():
    torch.manual_seed(0)
    return Tagger().eval()

if __name__ == "__main__":
    tokens, axes = torch.ones(2, 6, dtype=torch.int64), ({0: "batch", 1: "length"},)
    for file in sys.argv[1:]:
        torch.onnx.export(made(), (tokens,), file, dynamic_shapes=axes,
                          external_data=False, verbose=False)
"""

# %% [markdown]
# We write both parts into one file.

# %%
import sys
from pathlib import Path

_ = Path("work/04_tagger.py").write_text(tagger + export, encoding="utf-8")

# %% [markdown]
# ## One process, one export

# %%
import subprocess

script = [sys.executable, "-W", "ignore", "work/04_tagger.py"]
first = subprocess.run([*script, "work/04_lstm.onnx"], check=False)
first.returncode

# %% [markdown]
# The code 0 means that there was no error. (PyTorch 2.11 writes no file here.) Is there an `LSTM` node, and is every
# length right? We compare with the same network in PyTorch.

# %%
import runpy

import torch

assert first.returncode == 0 or torch.__version__ < "2.13"
network = runpy.run_path("work/04_tagger.py")["made"]()
tokens = torch.randint(0, 50, (2, 6))

# %%
probe = None
if first.returncode == 0:
    probe = cu.probe_sizes("work/04_lstm.onnx", tokens, network)
    assert (probe["verdict"] == "free").all()
    assert cu.op_histogram("work/04_lstm.onnx")["LSTM"] == 1
probe

# %% [markdown]
# One `LSTM` node, every batch, every length, and the numbers of PyTorch.
#
# ## One process, two exports
#
# Now the same call twice in one process:

# %%
files = ["work/04_lstm_1.onnx", "work/04_lstm_2.onnx"]
for file in files:
    Path(file).unlink(missing_ok=True)

# %%
keep = {"capture_output": True, "text": True, "encoding": "utf-8"}
twice = subprocess.run([*script, *files], check=False, **keep)
[Path(file).exists() for file in files]

# %% [markdown]
# In PyTorch 2.13 the first file is there, the second is not. The process ended with an error:

# %%
lines = twice.stderr.splitlines()
print(*[line for line in lines if "static shape" in line][:1])

# %% [markdown]
# The length, which was free in the first export, is a fixed size in the second. Restart the kernel of your notebook before you export again, or use a script as we did. And probe each file.

# %% [markdown]
# ## Recap
#
# - A recurrent network becomes one node, which takes any batch and any length.
# - Export each recurrent network in a fresh process, unless your version of PyTorch has been shown to do without.
# - Ask with names in quotes, and probe the file.
#
# **Back:** [04 · Dynamic axes](../04_dynamic_axes.ipynb). **Next:** [Static again](04_static_again.ipynb).
