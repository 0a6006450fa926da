"""What is kept between calls is made once a stream, and nothing that a capture makes is kept."""

from __future__ import annotations

import copy
import pickle
import weakref

import pytest
import torch

from ntkfast import kept
from ntkfast.kept import Kept

CUDA = torch.device("cuda")  # a name: nothing is made there


class Device:
    """A device with a current stream, which may be captured."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream, self.capturing, self.made = 1, False, 0
        monkeypatch.setattr(kept, "_stream", lambda device: (self.stream, self.capturing))

    def make(self) -> int:
        self.made += 1
        return self.made


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def test_made_once_for_a_key(device: Device) -> None:
    values: Kept[int] = Kept(4)
    assert [values.get(key, CUDA, device.make) for key in "aabab"] == [1, 1, 2, 1, 2]


def test_another_stream_has_its_own(device: Device) -> None:
    values: Kept[int] = Kept(4)
    assert values.get("a", CUDA, device.make) == 1
    device.stream = 2
    assert [values.get("a", CUDA, device.make) for _ in range(2)] == [2, 2]
    device.stream = 1
    assert values.get("a", CUDA, device.make) == 1


def test_a_capture_takes_what_is_there_and_leaves_nothing(device: Device) -> None:
    values: Kept[int] = Kept(4)
    values.get("a", CUDA, device.make)
    device.stream, device.capturing = 2, True
    assert values.get("a", CUDA, device.make) == 1
    assert [values.get("b", CUDA, device.make) for _ in range(2)] == [2, 3]
    device.capturing = False
    assert values.get("b", CUDA, device.make) == 4


def test_what_a_capture_took_stays(device: Device) -> None:
    """Its graph goes on reading it, whatever is made and forgotten meanwhile."""
    values: Kept[torch.Tensor] = Kept(1)
    found = weakref.ref(values.get("a", CUDA, lambda: torch.ones(2)))
    device.stream, device.capturing = 2, True
    values.get("a", CUDA, lambda: torch.ones(2))
    device.stream, device.capturing = 3, False
    for key in "abc":
        values.get(key, CUDA, lambda: torch.ones(2))
    assert found() is not None


def test_copies_are_empty(device: Device) -> None:
    values: Kept[int] = Kept(4)
    values.get("a", CUDA, device.make)
    for copied in (copy.deepcopy(values), pickle.loads(pickle.dumps(values))):
        assert len(copied) == 0 and copied.get("a", CUDA, lambda: 7) == 7


def test_no_more_than_so_many(device: Device) -> None:
    values: Kept[int] = Kept(3)
    for key in range(10):
        values.get(key, CUDA, device.make)
        assert len(values) <= 3


def test_no_inference_tensors() -> None:
    values: Kept[torch.Tensor] = Kept(4)
    with torch.inference_mode():
        assert not values.get("a", torch.device("cpu"), lambda: torch.ones(2)).is_inference()
