"""The data set and the reference models: what a lesson relies on, and what a damaged or missing file says."""

from __future__ import annotations

import json
import shutil
import socket

import numpy as np
import pytest

import course_utils as cu
from course_utils.lab import data, models
from course_utils.paths import data_path


@pytest.fixture
def own_data(folder, monkeypatch):
    """A copy of `data/` that a test may damage."""
    copy = folder / "data"
    shutil.copytree(data_path(), copy, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    monkeypatch.setattr(data, "data_path", lambda name="": copy / name)
    return copy


@pytest.fixture
def no_network(monkeypatch):
    """Every connection is refused at once, by a loopback port that nobody listens on: nothing leaves this machine."""
    from course_utils.torchvision_ops import make_importable

    make_importable()
    from torchvision.datasets import FashionMNIST

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setattr(FashionMNIST, "mirrors", [f"http://127.0.0.1:{port}/"])


@pytest.mark.parametrize(("part", "count"), [("test", 10_000), ("calibration", 1_000)])
def test_parts(part, count):
    images, labels = cu.fashion_mnist(part)
    assert (images.shape, images.dtype) == ((count, 28, 28), np.uint8)
    assert (labels.shape, labels.dtype) == ((count,), np.int64)
    assert np.bincount(labels).tolist() == [count // 10] * 10
    assert images.flags.writeable


def test_calibration_images_are_not_test_images():
    test = {image.tobytes() for image in cu.fashion_mnist("test")[0]}
    shared = [i for i, image in enumerate(cu.fashion_mnist("calibration")[0]) if image.tobytes() in test]
    assert not shared


def test_unknown_part():
    with pytest.raises(cu.CourseError, match=r"no part 'validation': ask for 'test', 'calibration' or 'train'"):
        cu.fashion_mnist("validation")


def test_damaged_file(own_data):
    file = own_data / "fashion-mnist" / "test-labels.gz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(cu.CourseError, match=r"test-labels\.gz' was changed or is damaged.*git checkout"):
        cu.fashion_mnist("test")


@pytest.mark.parametrize("name", ["fashion-mnist/test-images.gz", "SHA256SUMS"])
def test_missing_file(own_data, name):
    (own_data / name).unlink()
    with pytest.raises(cu.CourseError, match=rf"is missing: restore it with  git checkout -- data/{name}"):
        cu.fashion_mnist("test")


def test_weights_that_do_not_fit(own_data, monkeypatch):
    """A class that was changed must not run with half of its weights left random."""
    monkeypatch.setattr(models, "FashionResNet", lambda: models.nn.Sequential(models.nn.Linear(2, 2)))
    with pytest.raises(cu.CourseError, match=r"do not fit its class \(2 missing, \d+ unknown\)"):
        cu.fashion_resnet()


def test_training_set_without_network(folder, no_network, capfd):
    with pytest.raises(cu.CourseError, match=r"could not be downloaded into .*Check the network.*\('calibration'\)"):
        cu.fashion_mnist("train")
    assert not list(folder.rglob("*.*")), "a partial file would be taken for the whole one next time"
    assert capfd.readouterr().out == ""


def test_training_set_into_a_folder_that_is_a_file(folder, no_network):
    (folder / "work").write_text("")
    with pytest.raises(cu.CourseError, match="Cannot write 'fashion-mnist' into"):
        cu.fashion_mnist("train")


def test_normalize():
    images, _ = cu.fashion_mnist("calibration")
    ready = cu.normalize(images)
    assert (ready.shape, ready.dtype) == ((1000, 1, 28, 28), np.float32)
    assert ready[0, 0, 0, 0] == pytest.approx((images[0, 0, 0] / 255 - 0.2860) / 0.3530, abs=1e-6)
    assert abs(ready.mean()) < 0.05
    assert ready.std() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((28, 28), np.uint8),
        np.zeros((2, 28, 28), np.float32),
        np.zeros((2, 1, 28, 28), np.uint8),
        np.zeros((2, 32, 32), np.uint8),
        [1, 2, 3],
        None,
    ],
    ids=["one image", "float", "with channel", "32 pixels", "list", "nothing"],
)
def test_normalize_refuses(images):
    with pytest.raises(cu.CourseError, match=r"expects uint8 \[N, 28, 28\]"):
        cu.normalize(images)


def test_data_folder_is_small():
    size = sum(f.stat().st_size for f in data_path().rglob("*") if f.is_file() and ".training" not in f.parts)
    assert size <= 10e6


def test_reference_model_is_as_good_as_its_card_says():
    import torch

    card = json.loads(data_path("fashion_resnet.json").read_text())
    model = cu.fashion_resnet()
    parameters = sum(p.numel() for p in model.parameters())
    assert not model.training
    assert parameters == card["parameters"]
    assert 0.25e6 <= parameters <= 0.35e6, "the course speaks of 0.3 million weights"
    images, labels = cu.fashion_mnist("test")
    with torch.inference_mode():
        guesses = torch.cat([model(chunk).argmax(1) for chunk in torch.from_numpy(cu.normalize(images)).split(500)])
    accuracy = (guesses.numpy() == labels).mean()
    assert accuracy >= 0.93
    # Another processor may round a picture on the fence the other way.
    assert accuracy == pytest.approx(card["test_accuracy"], abs=3e-4)
