"""Execution providers that are plug-ins. Each test starts processes of its own: a registration lasts as long as its process."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import course_utils as cu
from course_utils.errors import CourseError
from course_utils.handin.assessing import read
from course_utils.lab import drivers, providers
from course_utils.processes import environment

INSTALLED = {plugin.name: bool(plugin.version) for plugin in providers.PLUGINS}
VULKAN = ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER")
webgpu = pytest.mark.skipif(not INSTALLED["WebGPU"], reason="onnxruntime-ep-webgpu is not installed")
qnn = pytest.mark.skipif(not INSTALLED["QNN"], reason="onnxruntime-qnn is not installed")
openvino = pytest.mark.skipif(not INSTALLED["OpenVINO"], reason="onnxruntime-ep-openvino is not installed")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only there WebGPU computes through Vulkan")

START = """
import sys
import numpy as np
import onnxruntime as ort
import course_utils as cu
def sentence(function, *given):
    try:
        return "worked: " + repr(function(*given))
    except cu.CourseError as error:
        assert "\\n" not in str(error)
        return str(error)
def there(name):
    return [device for device in ort.get_ep_devices() if device.ep_name == name]
"""


def ran(script: str, *given: object, path: Path | None = None, **variables: str) -> str:
    """What a Python program prints, which must come to its end. path: of packages that come before the installed ones."""
    env = {name: value for name, value in environment().items() if name not in VULKAN} | variables
    if path is not None:
        env["PYTHONPATH"] = os.pathsep.join([str(path), env["PYTHONPATH"]])
    command = [sys.executable, "-c", START + script, *map(str, given)]
    child = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False)
    assert child.returncode == 0, child.stdout + child.stderr
    return child.stdout


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two nodes with fixed shapes: every provider takes them."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[1, 4] x) => (float[1, 4] y) { a = Relu(x)  y = Add(a, a) }""")
    onnx.save(model, tmp_path / "small.onnx")
    return tmp_path / "small.onnx"


@pytest.fixture(scope="module")
def works() -> dict[str, str]:
    """Name of a plug-in → "works", or why it does not."""
    table = cu.provider_plugins()
    return dict(zip(table["plug-in"], table["here"], strict=True))


def must_work(works: dict[str, str], name: str) -> None:
    if works[name] != "works":  # where CI installed it, it must work
        (pytest.fail if os.environ.get("CI") == "true" and INSTALLED[name] else pytest.skip)(works[name])


# The table, and the second provider


def test_the_table_has_a_sentence_for_each(works):
    table = cu.provider_plugins().set_index("plug-in")
    for name, installed in INSTALLED.items():
        row = table.loc[name]
        assert bool(row["version"]) is installed
        assert bool(row["devices"]) or row["here"] != "works"
        if not installed:
            assert "is not installed" in row["here"]
            assert "onnx-scroll[" in row["here"]
        assert row["licence"]
        assert row["MB"] > 0


def test_the_table_registers_nothing():
    said = ran(
        "before = ort.get_available_providers(); cu.provider_plugins(); print(before == ort.get_available_providers())"
    )
    assert said.split() == ["True"]


def test_a_second_provider_is_there_for_everyone(small, works):
    said = ran(
        """
devices, options = cu.second_provider()
more = ort.SessionOptions()
more.log_severity_level = 4
more.add_provider_for_devices(devices, options)
session = ort.InferenceSession(sys.argv[1], more, enable_fallback=0)
print(session.get_providers()[0], session.run(None, {"x": np.full((1, 4), 2, np.float32)})[0].tolist(), "torch" in sys.modules)
""",
        small,
    )
    expected = next((name for name, here in works.items() if here == "works"), "")
    assert (f"The second provider is {expected}".lower() if expected else "the cpu provider stands in") in said.lower()
    assert said.splitlines()[-1].endswith("ExecutionProvider [[4.0, 4.0, 4.0, 4.0]] False")


def test_without_any_package(tmp_path, small):
    """A path hook hides them: what somebody sees who installed no extra."""
    hidden = "import importlib.util as u; real = u.find_spec; u.find_spec = lambda n, p=None: None if n.startswith('onnxruntime_') else real(n, p)"
    said = ran(
        hidden
        + """
print(cu.provider_plugins()["version"].tolist())
print(sentence(cu.provider_devices, "QNN"))
devices, options = cu.second_provider()
print([device.ep_name for device in devices], options)
print(sentence(cu.strict_session, sys.argv[1], "WebGpuExecutionProvider"))
print(type(cu.strict_session(sys.argv[1], devices)).__name__)
""",
        small,
    ).splitlines()
    assert said[0] == "['', '', '']"
    assert "'onnxruntime-qnn' is not installed" in said[1]
    assert "onnx-scroll[qnn]" in said[1]
    assert said[2].startswith("No plug-in works on this machine, so the CPU provider stands in")
    assert said[3] == "['CPUExecutionProvider'] {}"
    assert "'onnxruntime-ep-webgpu' is not installed" in said[4]
    assert said[5] == "InferenceSession"


@pytest.mark.parametrize(
    ("name", "words"), [("WebGP", "Did you mean 'WebGPU'"), ("CUDA", "It has 'WebGPU', 'QNN'"), (3, "no plug-in 3")]
)
def test_a_name_that_is_none(name, words):
    with pytest.raises(CourseError, match=words):
        cu.provider_devices(name)


@pytest.mark.parametrize("name", ["WebGPU", "QNN"])
def test_registered_once(name, works):
    must_work(works, name)
    plugin = next(p for p in providers.PLUGINS if p.name == name)
    said = ran(
        """
first, second = cu.provider_devices(sys.argv[1]), cu.provider_devices(sys.argv[2])
print([a is b for a, b in zip(first, second)], len(there(sys.argv[2])) == len(first))
""",
        name, plugin.provider,
    )  # fmt: skip
    assert said.split() == ["[True]", "True"]


@webgpu
def test_registered_by_hand_before(works):
    """Too early: without its driver the plug-in offered nothing, and stays registered."""
    must_work(works, "WebGPU")
    said = ran("""
import onnxruntime_ep_webgpu as package
ort.register_execution_provider_library(package.get_ep_name(), package.get_library_path())
print(len(there(package.get_ep_name())) <= len(cu.provider_devices("WebGPU")), len(there(package.get_ep_name())))
""")
    assert said.split() == ["True", "1"]


# Libraries that are none, and drivers that do not work

ABORTS = "#include <stdlib.h>\n__attribute__((constructor)) static void go(void) { abort(); }\n"


def compiled(source: str, file: Path) -> Path:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    file.with_suffix(".c").write_text(source)
    subprocess.run([compiler, "-shared", "-fPIC", str(file.with_suffix(".c")), "-o", str(file)], check=True, timeout=60)
    return file


def package(folder: Path, library: Path) -> Path:
    """A package that stands before the real one, with a library of ours."""
    module = folder / "packages" / "onnxruntime_ep_webgpu"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text(f"def get_library_path():\n    return {str(library)!r}\n")
    return module.parent


LIBRARIES = {
    "not there": (lambda folder: folder / "nothing.so", "cannot be registered .*nothing.so"),
    "text": (lambda folder: folder / "text.so", "cannot be registered .*text.so"),
    "no plug-in": (
        lambda folder: compiled("int nothing;\n", folder / "plain.so"),
        "cannot be registered .*CreateEpFactories",
    ),
    "aborts": (
        lambda folder: compiled(ABORTS, folder / "aborts.so"),
        r"its library ended the process that tried it \(signal SIGABRT\)",
    ),
}


@linux
@pytest.mark.parametrize("kind", LIBRARIES)
def test_a_library_that_is_no_plugin(kind, tmp_path):
    make, words = LIBRARIES[kind]
    (tmp_path / "text.so").write_text("a plug-in\n" * 100)
    said = ran('print(sentence(cu.provider_devices, "WebGPU"))', path=package(tmp_path, make(tmp_path)))
    assert said.startswith("WebGPU (onnxruntime-ep-webgpu")
    assert re.search(words, said), said


@linux
def test_a_package_without_its_library(tmp_path):
    path = package(tmp_path, tmp_path / "any")
    (path / "onnxruntime_ep_webgpu" / "__init__.py").write_text("")
    said = ran('print(sentence(cu.provider_devices, "WebGPU"))', path=path)
    assert "get_library_path" in said


def driver_file(folder: Path, library: Path | str) -> Path:
    file = folder / "driver.json"
    about = {"file_format_version": "1.0.0", "ICD": {"library_path": str(library), "api_version": "1.1.0"}}
    file.write_text(json.dumps(about))
    return file


DRIVERS = {
    "no file": lambda folder: folder / "driver.json",
    "its library is not there": lambda folder: driver_file(folder, folder / "nothing.so"),
    "its library is no driver": lambda folder: driver_file(folder, compiled("int nothing;\n", folder / "plain.so")),
    "aborts": lambda folder: driver_file(folder, compiled(ABORTS, folder / "aborts.so")),
}


@linux
@webgpu
@pytest.mark.parametrize("kind", DRIVERS)
def test_a_driver_that_does_not_work_is_named(kind, tmp_path):
    """The user named it, so no other one is taken in its place."""
    file = DRIVERS[kind](tmp_path)
    said = ran('print(sentence(cu.provider_devices, "WebGPU"))', VK_ICD_FILENAMES=str(file))
    assert f"the Vulkan driver '{file}'" in said, said
    assert ("ended the process that tried it (signal SIGABRT)" in said) is (kind == "aborts")


@linux
@webgpu
def test_a_driver_that_never_answers(tmp_path):
    source = "#include <unistd.h>\n__attribute__((constructor)) static void go(void) { sleep(600); }\n"
    file = driver_file(tmp_path, compiled(source, tmp_path / "waits.so"))
    said = ran(
        """
from course_utils.lab import providers
providers.SECONDS = 5
print(sentence(cu.provider_devices, "WebGPU"))
""",
        VK_ICD_FILENAMES=str(file),
    )
    assert f"the Vulkan driver '{file}' gave no answer within 5 s: name another one" in said


@linux
def test_a_driver_that_the_user_names_comes_first(monkeypatch, tmp_path):
    for name in VULKAN:
        monkeypatch.delenv(name, raising=False)
    free = drivers.ways()
    assert free[0].variables == ()
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "mine.json"))
    assert all(dict(way.variables)["VK_ICD_FILENAMES"] == str(tmp_path / "mine.json") for way in drivers.ways())
    assert "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER" not in dict(drivers.ways()[0].variables)
    assert drivers.driver() == str(tmp_path / "mine.json")
    monkeypatch.setenv("ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER", "0")
    assert len(drivers.ways()) == 1


@openvino
def test_a_plugin_without_a_device_says_so(works):
    if works["OpenVINO"] == "works":
        pytest.skip("OpenVINO has a device here")
    said = ran('print(sentence(cu.provider_devices, "OpenVINO")); print(there("OpenVINOExecutionProvider"))')
    assert "offers no device; it needs a processor, graphics card or NPU of Intel" in said
    assert said.splitlines()[-1] == "[]"


# strict_session


def test_a_plugin_asked_for_by_its_name(small, works):
    must_work(works, "WebGPU")
    said = ran(
        """
print(sentence(cu.strict_session, sys.argv[1], "WebGpuExecutionProvider"))
devices = cu.provider_devices("WebGPU")
print(ort.InferenceSession(sys.argv[1], providers=["WebGpuExecutionProvider"]).get_providers())
print(sentence(cu.strict_session, sys.argv[1], "WebGpuExecutionProvider"))
print(cu.strict_session(sys.argv[1], devices).get_providers()[0])
""",
        small,
    ).splitlines()
    assert "installed but not registered in this process" in said[0]
    assert said[1] == "['CPUExecutionProvider']", "without a word"
    assert "by its name a plug-in runs nothing" in said[2]
    assert said[3] == "WebGpuExecutionProvider"


@pytest.mark.parametrize("name", ["WebGPU", "QNN"])
def test_nodes_that_a_plugin_does_not_take_are_named(name, works, tmp_path):
    must_work(works, name)
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[4, 4] x) => (float[4, 4] y) { a = Relu(x)  d = Det(a)  y = Mul(a, d) }""")
    onnx.save(model, tmp_path / "det.onnx")
    said = ran(
        """
from course_utils.lab.providers import plugin_of
devices = cu.provider_devices(sys.argv[2])
print(sentence(cu.strict_session, sys.argv[1], devices, plugin_of(devices[0].ep_name).options))
""",
        tmp_path / "det.onnx", name,
    )  # fmt: skip
    assert "of 3 nodes, and the CPU would run " in said
    assert "1 Det" in said


@qnn
def test_free_sizes_and_a_provider_that_fails(works, tmp_path):
    must_work(works, "QNN")
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }""")
    onnx.save(model, tmp_path / "free.onnx")
    said = ran(
        """
import onnxruntime_qnn
devices = cu.provider_devices("QNN")
print(sentence(cu.strict_session, sys.argv[1], devices, {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}))
print(sentence(cu.strict_session, sys.argv[1], devices, {"backend_path": "/no/such.so"}))
print(sentence(cu.strict_session, sys.argv[1], devices))
""",
        tmp_path / "free.onnx",
    )
    assert "The option 'backend_path' names '/no/such.so', and there is no such file" in said
    assert (
        "it takes none of 1 nodes, and the CPU would run 1 Relu; it needs fixed shapes, and a size of the input 'x'"
        in said
    )
    assert "Could not determine default backend path for device." in said  # QNN prints lines of its own among them


def test_devices_that_are_none(small):
    own = cu.provider_devices("CPU")
    assert cu.strict_session(small, own).get_providers() == ["CPUExecutionProvider"]
    with pytest.raises(CourseError, match="an empty list: it expects a provider's name, or a list of devices"):
        cu.strict_session(small, [])
    with pytest.raises(CourseError, match="a value of type int"):
        cu.strict_session(small, 5)
    with pytest.raises(CourseError, match="it expects a provider's name, or a list of devices"):
        cu.strict_session(small, [own[0], "CPU"])
    with pytest.raises(CourseError, match="knows no options, and it was given tempo"):
        cu.strict_session(small, own, {"tempo": "presto"})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "small.onnx"}, "a model of type str"),
        ({"feed": None}, "a feed of type NoneType"),
        ({"providers": "CPUExecutionProvider"}, "it takes a list of names, or of"),
        ({"providers": [5]}, "it takes a list of names, or of"),
        ({"providers": ("CPUExecutionProvider", {})}, "it takes a list of names, or of"),
        ({"providers": [("CPUExecutionProvider", ["a"])]}, "it takes a list of names, or of"),
    ],
)
def test_placed_says_what_it_takes(changed, words, small):
    right = {
        "model": onnx.load(small),
        "feed": {"x": np.ones((1, 4), np.float32)},
        "providers": ["CPUExecutionProvider"],
    }
    assert cu.placed(**right)["error"] is None
    with pytest.raises(CourseError, match=words):
        cu.placed(**right | changed)


def test_outputs_without_numbers_are_placed(small):
    text = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (string[N] x) => (string[N] y) { y = Identity(x) }""")
    assert cu.placed(text, {"x": np.array(["a"], object)}, ["CPUExecutionProvider"])["difference"] is None


def test_a_short_name_and_options_that_are_none(small):
    with pytest.raises(
        CourseError, match=r"no execution provider 'webgpu'. Did you mean the devices cu.provider_devices\('WebGPU'\)"
    ):
        cu.strict_session(small, "webgpu")
    with pytest.raises(CourseError, match="options of type list: it expects a dict"):
        cu.strict_session(small, "CPUExecutionProvider", ["a"])


@webgpu
def test_threads_that_register_at_once(works):
    """Registered too early, so that it is unregistered: by one thread only, before another has the devices."""
    must_work(works, "WebGPU")
    said = ran("""
import threading
import onnxruntime_ep_webgpu as package
ort.register_execution_provider_library(package.get_ep_name(), package.get_library_path())
found = []
threads = [threading.Thread(target=lambda: found.append(cu.provider_devices("WebGPU"))) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found), all(mine[0] is there(package.get_ep_name())[0] for mine in found))
""")
    assert said.split() == ["6", "True"]


def test_devices_of_two_providers_and_one_that_is_gone(small, works):
    """What is left of a device points to freed memory: to read its name ends the process, or gives nonsense."""
    must_work(works, "QNN")
    said = ran(
        """
devices = cu.provider_devices("QNN")
print(sentence(cu.strict_session, sys.argv[1], devices + cu.provider_devices("CPU")))
ort.unregister_execution_provider_library("QNNExecutionProvider")
print(sentence(cu.strict_session, sys.argv[1], devices))
print(len(cu.provider_devices("QNN")))
""",
        small,
    ).splitlines()
    assert (
        said[0]
        == "These devices belong to CPUExecutionProvider, QNNExecutionProvider: give the devices of one provider."
    )
    assert said[1].startswith("A device of this list is gone")
    assert said[2] == "1"


def test_the_doctor_names_the_plugin_that_brings_a_provider(small):
    report = cu.doctor(small, run=True, provider="QNNExecutionProvider")
    (error,) = [f for f in report.findings if f.code.id == "provider-missing"]
    assert "It comes as a plug-in, onnxruntime-qnn" in error.cure
    assert "cu.provider_devices('QNN')" in error.cure


# Compiled code


def context(**more: object) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    node = helper.make_node("EPContext", ["x"], ["y"], "context", domain="com.microsoft", main_context=1, **more)
    graph = helper.make_graph([node], "g", [value("x", 1, [1, 4])], [value("y", 1, [1, 4])])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


BESIDE = {"embed_mode": 0, "ep_cache_context": "code.bin", "source": "QNNExecutionProvider", "ep_sdk_version": "2.51"}


def test_the_doctor_says_what_code_is_bound_to(tmp_path):
    (tmp_path / "code.bin").write_bytes(b"\1" * 100)
    onnx.save(context(**BESIDE), tmp_path / "m.onnx")
    report = cu.doctor(tmp_path / "m.onnx", run=True)
    assert report.codes == ["made-for-one-provider"]
    assert "bound to QNNExecutionProvider (SDK 2.51), in the file 'code.bin' beside it." in report.findings[0].cause
    assert "It was not run: it is bound to one provider" in str(report)
    assert not report.unfinished
    inside = cu.doctor(context(embed_mode=1, ep_cache_context=b"\1" * 2000, source="QNNExecutionProvider"))
    assert "bound to QNNExecutionProvider, 2.0 kB inside the file." in inside.findings[0].cause


def test_large_code_inside_a_file_is_stepped_over(tmp_path):
    onnx.save(
        context(embed_mode=1, ep_cache_context=bytes(220 * 2**20), source="QNNExecutionProvider"), tmp_path / "m.onnx"
    )
    report = cu.doctor(tmp_path / "m.onnx")
    assert report.codes == ["made-for-one-provider"]
    assert "230.7 MB inside the file" in report.findings[0].cause


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("code.bin", "compiled-code-missing", "In the model's folder there is no file 'code.bin'"),
        ("a" * 5000, "compiled-code-missing", "no file 'aaaa"),
        ("", "compiled-code-missing", "does not name its file"),
        ("../code.bin", "external-path-outside", "It names '../code.bin' as the file of its compiled code"),
        ("/etc/passwd", "external-path-outside", "'/etc/passwd'"),
        ("C:\\code.bin", "external-path-outside", "code.bin"),
    ],
)
def test_code_that_is_missing_or_outside(name, code, words, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "code.bin").write_bytes(b"\1")
    onnx.save(context(**BESIDE | {"ep_cache_context": name}), tmp_path / "in" / "m.onnx")
    report = cu.doctor(tmp_path / "in" / "m.onnx")
    (error,) = [f for f in report.findings if f.severity == "error"]
    assert error.code.id == code
    assert words in error.cause


@pytest.mark.parametrize(
    ("name", "code"), [("code.bin", "compiled-code-missing"), ("../code.bin", "external-path-outside")]
)
def test_every_node_of_one_file_is_counted(name, code, tmp_path):
    model = context(**BESIDE | {"ep_cache_context": name})
    second = model.graph.node.add()
    second.CopyFrom(model.graph.node[0])
    second.name, second.input[0], second.output[0] = "second", "y", "z"
    onnx.save(model, tmp_path / "m.onnx")
    (error,) = [f for f in cu.doctor(tmp_path / "m.onnx").findings if f.code.id == code]
    assert [place.index for place in error.where] == [0, 1]
    assert code == "external-path-outside" or "It would hold the code of 2 nodes." in error.cause


def test_thousands_of_files_are_a_few_findings(tmp_path):
    model = context(**BESIDE)
    (node,) = model.graph.node
    for i in range(1, 1000):
        more = model.graph.node.add()
        more.CopyFrom(node)
        more.input[0], more.output[0] = f"z{i - 1}" if i > 1 else "y", f"z{i}"
        (file,) = [a for a in more.attribute if a.name == "ep_cache_context"]
        file.s = f"{'../' if i % 2 else ''}code{i}.bin".encode()
    onnx.save(model, tmp_path / "m.onnx")
    found = cu.doctor(tmp_path / "m.onnx").findings
    assert sum(f.code.id == "compiled-code-missing" for f in found) == 1
    assert sum(f.code.id == "external-path-outside" for f in found) == 1
    assert any("496 more" in f.cause for f in found)
    assert sum(f.code.id == "made-for-one-provider" for f in found) == 5


def test_code_of_another_node_needs_no_file(tmp_path):
    model = context(**BESIDE)
    (main,) = [a for a in model.graph.node[0].attribute if a.name == "main_context"]
    main.i = 0
    onnx.save(model, tmp_path / "m.onnx")
    assert cu.doctor(tmp_path / "m.onnx").codes == ["made-for-one-provider"]


def test_an_answer_may_hold_no_compiled_code():
    from course_utils.exercises import task

    for model in (context(**BESIDE), context(embed_mode=1, ep_cache_context=b"\1")):
        with pytest.raises(CourseError, match="hand in the model that it was compiled from"):
            read(task("1.1"), model.SerializeToString(), "1.1.onnx")


def test_code_of_another_provider_is_refused_by_name(tmp_path):
    onnx.save(context(**BESIDE), tmp_path / "m.onnx")
    with pytest.raises(CourseError, match="compiled for QNNExecutionProvider, and no other provider can run it"):
        cu.strict_session(tmp_path / "m.onnx", "CPUExecutionProvider")


@pytest.mark.parametrize(
    "odd",
    [
        {"source": 3},
        {"source": b"\xff\n" * 1000},
        {"source": "", "ep_cache_context": 5},
        {"source": "", "ep_cache_context": b"\xff"},
        {"source": "", "ep_cache_context": "a" * 5000},
    ],
)
def test_odd_attributes_of_compiled_code_get_a_sentence(odd):
    with pytest.raises(CourseError) as raised:
        cu.strict_session(context(**BESIDE | odd), "CPUExecutionProvider")
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 700


@qnn
def test_code_that_qnn_compiled(works, tmp_path, small):
    must_work(works, "QNN")
    said = ran(
        """
import os, onnxruntime_qnn
devices, told = cu.provider_devices("QNN"), {"backend_path": onnxruntime_qnn.get_qnn_htp_path()}
options = ort.SessionOptions()
options.log_severity_level = 4
options.add_provider_for_devices(devices, told)
os.chdir(sys.argv[2])
for embed in (True, False):
    ort.ModelCompiler(options, sys.argv[1], embed_compiled_data_into_model=embed).compile_to_file(f"{embed}.onnx")
    session = cu.strict_session(f"{embed}.onnx", devices, told)
    print(session.run(None, {"x": np.full((1, 4), 2, np.float32)})[0].tolist())
print(sentence(cu.strict_session, "True.onnx", "CPUExecutionProvider"))
(binary,) = [name for name in os.listdir(".") if name.endswith(".bin")]
os.rename(binary, "elsewhere")
print(sentence(cu.strict_session, "False.onnx", devices, told))
os.rename("elsewhere", binary)
""",
        small, tmp_path,
    ).splitlines()  # fmt: skip
    said = [line for line in said if "LIBNATIVE" not in line]
    assert said[:2] == ["[[4.0, 4.0, 4.0, 4.0]]"] * 2
    assert "the file is code that was compiled for QNNExecutionProvider" in said[2]
    assert "which is not beside it: copy it there" in said[3]
    onnx.save(context(**BESIDE | {"ep_cache_context": "a" * 5000}), tmp_path / "long.onnx")
    said = ran(
        'devices = cu.provider_devices("QNN"); print(sentence(cu.strict_session, sys.argv[1], devices))',
        tmp_path / "long.onnx",
    )
    assert "which is not beside it: copy it there" in said, "QNN itself would end the process"
    for embed, words in (("True", "inside the file"), ("False", "beside it")):
        report = cu.doctor(tmp_path / f"{embed}.onnx", run=True)
        assert report.codes == ["made-for-one-provider"], report
        assert "bound to QNNExecutionProvider (SDK v" in report.findings[0].cause
        assert words in report.findings[0].cause
