# %% [markdown]
# # 02 · Small types
#
# A language model has seven billion weights. In float32 they take 28 GB, in 4 bits each 3.5 GB. The standard has types
# for such numbers, and each came with a certain opset. Which of them does your runtime take, and what do they hold?
#
# You need the [core of lesson 02](../02_opsets.ipynb).
#
# After this page you will be able to
#
# - name the types of 8 bits and less, and the opset that brought each,
# - store a tensor in 4 bits, and find it in the file,
# - say what happens to a number that is too large,
# - find out which of these types your runtime takes.

# %%
import course_utils as cu

cu.setup()

# %% [markdown]
# ## What the standard has
#
# The operator `Cast` changes the type of a tensor. Its history tells which types came with which
# [opset](../glossary.md#opset):

# %%
cast = cu.operator_history("Cast").set_index("opset")
cast.loc[19:, ["what"]]

# %% [markdown]
# The number in a name counts bits. Integers are `int4`, `uint4`, `int2`, `uint2`. The others are floating point
# numbers: `e4m3` has 4 bits of exponent (the range) and 3 of mantissa (the precision), besides the sign. The ending
# `fn` means *finite*: there is no infinity ([float8](https://onnx.ai/onnx/technical/float8.html),
# [int4](https://onnx.ai/onnx/technical/int4.html)).
#
# The package `ml_dtypes`, which comes with `onnx`, brings these types to NumPy. These are all sixteen numbers of
# `float4e2m1`:

# %%
import ml_dtypes
import numpy as np

np.arange(16, dtype=np.uint8).view(ml_dtypes.float4_e2m1fn).astype(np.float32)

# %% [markdown]
# The distances grow with the numbers: 0.5 near zero, 2 at the end. An `int4` has the same sixteen places, with equal
# distances from −8 to 7.
#
# ## In the file
#
# We write 16 weights as `int4`, and look at the [initializer](../glossary.md#initializer).

# %%
from onnx import numpy_helper

weights = np.arange(-8, 8).astype(ml_dtypes.int4)
tensor = numpy_helper.from_array(weights, "W")
weights.nbytes, len(tensor.raw_data), tensor.raw_data.hex(" ")

# %% [markdown]
# NumPy spends a byte on each number, 16 together. The file takes 8: two numbers share a byte, the first one in the lower
# half. The first byte is `98`: 8 is the pattern of −8, 9 the pattern of −7. Reading gives the numbers back:

# %%
assert np.array_equal(numpy_helper.to_array(tensor), weights)
numpy_helper.to_array(tensor).astype(np.int8)

# %% [markdown]
# ## Too large
#
# This model turns numbers into a small type with `Cast`, and back into float32.


# %%
import onnx


def there_and_back(type_name, opset):
    number = onnx.TensorProto.DataType.Value(type_name)
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["": {opset}]>
        g (float[N] x) => (float[N] y)
        {{ q = Cast <to = {number}> (x)  y = Cast <to = 1> (q) }}""")
    return model.SerializeToString()


# %%
cast_int4 = there_and_back("INT4", 21)
onnx.checker.check_model(cast_int4, full_check=True)

# %% [markdown]
# The checker accepts the model. We feed it numbers that fit into `int4`, and two that do not: 9 and 500.

# %% tags=["remove-input"]
cu.quiz("02_small_types", 1)

# %%
import onnxruntime as ort

cpu = ["CPUExecutionProvider"]
feed = {"x": np.array([-3.3, 0.3, 1.7, 9, 500], np.float32)}
session = ort.InferenceSession(cast_int4, providers=cpu)
(as_int4,) = session.run(None, feed)
assert as_int4[:4].tolist() == [-3, 0, 2, -7]
as_int4

# %% [markdown]
# 9 became −7: ONNX Runtime keeps the lowest four bits. The standard leaves undefined what a number becomes that is too large.
# What comes out for 500 is of no use either. 1.7 is rounded to 2 here; cast to `int8` it becomes 1, as the table below
# shows. For a float8 type, `Cast` has an attribute `saturate`, which is on:

# %%
session = ort.InferenceSession(there_and_back("FLOAT8E4M3FN", 21), providers=cpu)
(as_float8,) = session.run(None, feed)
assert as_float8[4] == 448
as_float8

# %% [markdown]
# 500 became 448, the largest number of this type ([saturation](../glossary.md#saturation)). Small numbers lose digits:
# 0.3 became 0.3125.
#
# Weights are not cast. `QuantizeLinear` divides by a scale first
# ([scale and zero point](../glossary.md#scale-and-zero-point)). Here the scale is 0.5, and the zero point says the type:

# %%
quantizer = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
    g (float[N] x) => (float[N] y) <float s = {0.5}, int4 zero = {0}>
    { q = QuantizeLinear(x, s, zero)  y = DequantizeLinear(q, s, zero) }""")
onnx.checker.check_model(quantizer, full_check=True)
session = ort.InferenceSession(quantizer.SerializeToString(), providers=cpu)
(quantized,) = session.run(None, feed)
assert quantized.max() == 3.5
quantized

# %% [markdown]
# Everything above 3.5 became 3.5, which is 7 times the scale. `QuantizeLinear` saturates.
# [Lesson 07](../07_quantization.ipynb) chooses the scale from the data.
#
# ## What your runtime takes
#
# The standard has a type, but has the runtime a [kernel](../glossary.md#kernel) for it? We try `Cast` for each type, in
# an opset that has the type. Shown is the number that comes back for 1.7, or the runtime's refusal.

# %%
since = {"INT8": 13, "FLOAT8E4M3FN": 19, "FLOAT8E5M2": 19, "INT4": 21, "UINT4": 21}
since |= {"FLOAT4E2M1": 23, "FLOAT8E8M0": 24, "INT2": 25, "UINT2": 25}
taken = {}
for type_name, opset in since.items():
    model = there_and_back(type_name, opset)
    onnx.checker.check_model(model, full_check=True)
    try:
        session = ort.InferenceSession(model, providers=cpu)
        taken[type_name] = str(session.run(None, feed)[0][2])
    except Exception as error:
        taken[type_name] = type(error).__name__

# %%
import pandas as pd

assert taken["FLOAT4E2M1"] == "NotImplemented"
assert taken["INT8"] == "1.0" and taken["INT4"] == "2.0"
pd.DataFrame({"opset": since, "1.7 becomes": taken})

# %% [markdown]
# The checker accepts all of them, and this runtime refuses one: `FLOAT4E2M1` has no kernel for the CPU. `FLOAT8E8M0` has
# only powers of two: it is a type for scales. `INT2` ends at 1, so 2 becomes −2.
#
# ## What computes with them
#
# Can an operator compute with such a type? We ask for a matrix product of two `int4` tensors.

# %%
product = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 21]>
    g (int4[2, 2] a, int4[2, 2] b) => (int4[2, 2] c) { c = MatMul(a, b) }""")
try:
    ort.InferenceSession(product.SerializeToString(), providers=cpu)
except Exception as error:
    refused = str(error).partition("Type Error: ")[2]
print(refused)
assert "int4" not in str(onnx.defs.get_schema("MatMul").type_constraints)

# %% [markdown]
# Already the standard says no: `MatMul` takes no `int4`. In a usual file the weights are stored in 4 bits, and
# `DequantizeLinear` turns them into float32 before the product. That makes the file smaller. It makes the model faster
# only where the runtime has a kernel that reads 4 bits directly, such as `MatMulNBits` of `com.microsoft`
# ([weight-only](../glossary.md#weight-only)).
# [Language models in 8 and 4 bits](07_language_models.ipynb) measures both.

# %% [markdown]
# ## Recap
#
# - float8 came with opset 19, int4 with 21, float4 with 23, int2 with 25. The file packs two int4 into a byte.
# - `Cast` to a small integer lets numbers overflow in ONNX Runtime, and the standard leaves it undefined. `QuantizeLinear` saturates: use it for weights.
# - The checker speaks for the standard only. Load the model to see whether your runtime takes the type.
# - Use 4 bits for the weights of large models, unless your target lacks a kernel for them. Then int8 is the safe type.
#
# **Back:** [02 · Opsets](../02_opsets.ipynb). **Next:** [03 · Tracing versus scripting](../03_tracing_vs_scripting.ipynb).
