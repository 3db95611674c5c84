# %% [markdown]
# # 02 · Domains and functions
#
# The checker refuses a file from a colleague: *No opset import for domain 'com.microsoft'*. Another file holds a single
# node, and it is a whole forest of decision trees. Their operators do not come from the standard's main list.
#
# You need the [core of lesson 02](../02_opsets.ipynb).
#
# After this page you will be able to
#
# - say to whom an operator belongs, and where it will run,
# - export a model of scikit-learn,
# - define an operator of your own in the file, and convert such a file.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## Whose operator is it?
#
# The standard's main list, `ai.onnx`, is one [domain](../glossary.md#domain) among several. A model names an
# [opset](../glossary.md#opset) for **each** domain that its nodes use:
#
# | domain | what it holds | where it runs |
# |---|---|---|
# | `ai.onnx`, or empty | [neural networks, tensors](https://onnx.ai/onnx/operators/) | everywhere |
# | `ai.onnx.ml` | trees, scalers, text encoders | in runtimes that chose to have it |
# | `com.microsoft` | [faster and joined operators](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md) | ONNX Runtime only |
# | your own | what you like | where your definition is known |
#
# Here is a node from `com.microsoft`. The header names only `ai.onnx`:

# %%
import onnx

unnamed = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    tiny (float[4] x) => (float[4] y) { y = com.microsoft.QuickGelu(x) }""")

# %% tags=["remove-input"]
cu.quiz("02_domains_and_functions", 1)


# %%
def complaint(model):
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        return str(error).strip().splitlines()[0]


complaint(unnamed)

# %% [markdown]
# The checker insists on the domain. Now ONNX Runtime:

# %%
import numpy as np
import onnxruntime as ort

cpu = ["CPUExecutionProvider"]
feed = {"x": np.linspace(-2, 2, 4, dtype=np.float32)}

# %%
session = ort.InferenceSession(unnamed.SerializeToString(), providers=cpu)
session.run(None, feed)[0]

# %% [markdown]
# It runs the file, because it knows `com.microsoft` itself. Another program may not be so generous. So name the domain:

# %%
named = onnx.ModelProto.FromString(unnamed.SerializeToString())
named.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
assert complaint(unnamed) and complaint(named) is None
{o.domain or "ai.onnx": o.version for o in named.opset_import}

# %% [markdown]
# Now the checker accepts it. It does not look into the node: it has no definition of `QuickGelu`. Only the runtime can
# say whether that node is right.
#
# ## From another framework
#
# Trees come from other frameworks. The report says that a model of *any supported framework* can be written as ONNX. We
# try a forest of [scikit-learn](https://scikit-learn.org/stable/), through its converter
# [skl2onnx](https://onnx.ai/sklearn-onnx/). It is one of the packages that the lessons need only once. Where it is
# not installed, these cells are skipped, and the claim says so.

# %%
import importlib.util

installed = importlib.util.find_spec("skl2onnx") is not None
evidence = {"skl2onnx is installed": installed}

# %%
if installed:
    from sklearn.ensemble import RandomForestClassifier

    pictures, labels = cu.fashion_mnist("test")
    flat = cu.normalize(pictures[:3000]).reshape(3000, -1)
    forest = RandomForestClassifier(20, max_depth=8, random_state=0)
    forest.fit(flat[:2000], labels[:2000])

# %% [markdown]
# The forest has learned from 2000 pictures. One call writes it as ONNX:

# %%
if installed:
    from skl2onnx import to_onnx

    trees = to_onnx(forest, flat[:1], options={"zipmap": False})
    print([(node.domain, node.op_type) for node in trees.graph.node])

# %% [markdown]
# The whole forest is one node of `ai.onnx.ml`. Does ONNX Runtime name the same classes, for 1000 new pictures?

# %%
if installed:
    session = ort.InferenceSession(trees.SerializeToString(), providers=cpu)
    name = session.get_inputs()[0].name
    same = (
        session.run(None, {name: flat[2000:]})[0] == forest.predict(flat[2000:])
    ).mean()
    print(f"{same:.1%} the same")

# %% [markdown]
# A converter knows a list of classes. We derive our own class and change nothing in it:

# %%
if installed:

    class OurForest(RandomForestClassifier):
        """The same forest, but the converter does not know this class."""

    refused = None
    try:
        to_onnx(OurForest(2).fit(flat[:100], labels[:100]), flat[:1])
    except Exception as error:
        refused = type(error).__name__
    print(refused)

# %% [markdown]
# The converter refuses it. Each framework has an exporter or a converter of its own, and each has its list.

# %%
if installed:
    evidence["the forest is one node, of the domain ai.onnx.ml"] = [
        n.domain for n in trees.graph.node
    ] == ["ai.onnx.ml"]
    close = (
        "ONNX Runtime names the same classes, of 1000 pictures all but ten at most"
    )
    evidence[close] = same > 0.99
    unknown = "the converter refuses a class that it does not know"
    evidence[unknown] = refused == "MissingShapeCalculator"

# %% tags=["hide-input"]
cu.claim("any-framework-exports", evidence)

# %% [markdown]
# ## Your own domain
#
# An operator of your own needs no program in C++, as long as you can say it in standard operators. The model carries a
# **function**: the definition stands in the file (see [step by step](01_step_by_step.ipynb)). The header names the
# domain and its version.

# %%
one = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["": 17, "school": 1]>
    g (float[4] x) => (float[4] y) { y = school.Swish(x) }
    <domain: "school", opset_import: ["": 17]>
    Swish (a) => (b) { s = Sigmoid(a)   b = Mul(a, s) }""")
assert complaint(one) is None

# %% [markdown]
# ONNX Runtime puts the definition in place of the node. Swish is $x / (1 + e^{-x})$:

# %%
session = ort.InferenceSession(one.SerializeToString(), providers=cpu)
swish = feed["x"] / (1 + np.exp(-feed["x"]))
assert np.allclose(session.run(None, feed)[0], swish, atol=1e-6)

# %% [markdown]
# The numbers are right, and no program in C++ was needed.
#
# ## The converter drops functions
#
# We convert the model with the function to opset 21 of `ai.onnx`.

# %%
from onnx import version_converter

later = version_converter.convert_version(one, 21)
assert len(one.functions) == 1 and not later.functions
len(one.functions), len(later.functions)

# %% [markdown]
# The converter has dropped the function and kept the node that needs it. ONNX Runtime says:

# %%
try:
    ort.InferenceSession(later.SerializeToString(), providers=cpu)
except Exception as error:
    print(str(error).strip().rpartition(": ")[2])

# %% [markdown]
# Without its definition, nobody knows what the node means. The way out is `onnx.inliner`: it puts the definition in
# place of the call, and then we convert.

# %%
import onnx.inliner

inlined = onnx.inliner.inline_local_functions(one)
sound = version_converter.convert_version(inlined, 21)
session = ort.InferenceSession(sound.SerializeToString(), providers=cpu)
assert np.allclose(session.run(None, feed)[0], swish, atol=1e-6)
[node.op_type for node in sound.graph.node]

# %% [markdown]
# Two standard operators, opset 21, and the right numbers.

# %% [markdown]
# ## Recap
#
# - Name every domain that your nodes use. The checker insists, and ONNX Runtime does not.
# - Use operators of `com.microsoft` only for files that ONNX Runtime will run. Use the standard's unless you must.
# - A converter of another framework knows a list of classes. Compare its file with the original.
# - Define your own operator as a function in the file. Inline it before you convert the model.
#
# **Back:** [02 · Opsets](../02_opsets.ipynb). **Next:** [small types](02_small_types.ipynb).
