"""torchvision beside a CPU-only torch, beside a complete one, and ResNet-18 with and without its trained weights.

What is imported, and in which order, is the point here, so most of it runs in fresh interpreters.
"""

from __future__ import annotations

import textwrap

import pytest

RUNS = "import torch, torchvision\ny = torchvision.models.resnet18()(torch.zeros(1, 3, 64, 64))\nprint(list(y.shape))\n"
MAKE = "from course_utils.torchvision_ops import make_importable\nprint(make_importable())\n"


@pytest.fixture(scope="module")
def cpu_only(python, tmp_path_factory):
    """Skip where the installed torchvision works by itself: built for this torch, as on Colab."""
    done = python("import torchvision", cwd=tmp_path_factory.mktemp("plain"), ok=False)
    if done.returncode == 0:
        pytest.skip("torchvision brings its own operators here")
    assert "operator torchvision::nms does not exist" in done.stderr


def test_makes_it_importable_and_twice_is_harmless(cpu_only, python, tmp_path):
    done = python(MAKE + RUNS + MAKE, cwd=tmp_path)
    assert done.stdout.split("\n")[:3] == ["True", "[1, 1000]", "False"]


def test_after_a_failed_import(cpu_only, python, tmp_path):
    """Somebody imports torchvision first, sees it fail, and then runs the first cell of the notebook."""
    code = "try:\n    import torchvision\nexcept RuntimeError as error:\n    print('failed')\n"
    done = python(code + MAKE + RUNS, cwd=tmp_path)
    assert done.stdout.splitlines() == ["failed", "True", "[1, 1000]"]


def test_transforms_and_datasets_work_and_nms_itself_still_fails(cpu_only, python, tmp_path):
    code = (
        MAKE
        + """
import torch, torchvision
from torchvision.transforms import v2
print(list(v2.Compose([v2.Resize(8), v2.CenterCrop(6)])(torch.zeros(3, 16, 20)).shape))
print(len(torchvision.datasets.FakeData(3)))
try:
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
except (NotImplementedError, RuntimeError) as error:
    print(type(error).__name__)
"""
    )
    printed = python(code, cwd=tmp_path).stdout.split()
    assert "".join(printed[1:5]) == "[3,6,6]3"
    assert printed[5] in ("NotImplementedError", "RuntimeError")


def test_does_nothing_where_the_operators_are_there(python, tmp_path):
    """Where torchvision is not complete by itself, two operators declared beforehand stand in for it."""
    code = """
        import torch
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        """
    if python("import torchvision", cwd=tmp_path, ok=False).returncode == 0:
        code = ""
    done = python(textwrap.dedent(code) + MAKE + RUNS + MAKE, cwd=tmp_path)
    assert done.stdout.splitlines() == ["False", "[1, 1000]", "False"]


def test_setup_is_enough(python, tmp_path):
    done = python("import course_utils as cu\ncu.setup()\n" + RUNS, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "[1, 1000]"


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """An empty cache, and an address that nobody can reach."""
    import torch

    from course_utils.lab import models

    monkeypatch.setattr(models, "_reachable", lambda url: False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))


def test_resnet18_without_network_is_random_but_always_the_same(offline, capsys):
    import torch

    import course_utils as cu

    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first = cu.resnet18()
    assert torch.equal(torch.rand(3), expected), "the caller's random numbers are not used up"
    assert "no pretrained weights here and no network, so the weights are random" in capsys.readouterr().out
    assert not first.training
    same, other = cu.resnet18(seed=0), cu.resnet18(seed=1)
    assert torch.equal(first.fc.weight, same.fc.weight)
    assert not torch.equal(first.fc.weight, other.fc.weight)
    with torch.no_grad():
        assert first(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


def test_resnet18_when_the_download_breaks(offline, monkeypatch, tmp_path, capsys):
    """The host answers, but what comes is not the file: a hotel's login page, say."""
    import torch

    import course_utils as cu
    from course_utils.lab import models

    asked = []

    def broken(url, dst, *args, **kwargs):
        asked.append(url)
        raise OSError("connection reset")

    monkeypatch.setattr(models, "_reachable", lambda url: True)
    monkeypatch.setattr(torch.hub, "download_url_to_file", broken)
    assert not cu.resnet18().training
    assert len(asked) == 1
    assert "the weights are random" in capsys.readouterr().out


def test_an_unreachable_host_is_noticed():
    from course_utils.lab.models import _reachable

    assert not _reachable("https://does-not-exist.invalid/weights.pth")
