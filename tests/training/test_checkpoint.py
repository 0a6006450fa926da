"""Checkpoints: whole or absent, and plain data."""

import numpy as np
import pytest
import torch

from ntkfast.training.checkpoint import load_state, replace_file, save_state, writable_folder


def test_a_state_comes_back_as_it_was(tmp_path):
    state = {"t": torch.rand(3, dtype=torch.float64), "n": 5, "names": {"a": [1, 2.5, None]}}
    save_state(tmp_path / "deep" / "state.pt", state)
    back = load_state(tmp_path / "deep" / "state.pt")
    assert torch.equal(back.pop("t"), state.pop("t")) and back == state


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path):
    path = tmp_path / "file"
    replace_file(path, lambda file: file.write(b"old"))

    def fails(file):
        file.write(b"ne")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        replace_file(path, fails)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_cannot_be_written_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a folder that can be written, got '.*file/below'"):
        writable_folder(tmp_path / "file" / "below")


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(ValueError, match="expected a checkpoint at '.*none.pt', got no file"):
        load_state(tmp_path / "none.pt")


def test_numpy_numbers_are_saved_as_plain_ones(tmp_path):
    save_state(tmp_path / "state.pt", {"lr": [np.float64(0.5), (np.int64(2),)]})
    assert load_state(tmp_path / "state.pt") == {"lr": [0.5, (2,)]}


def test_a_state_that_could_not_be_loaded_is_refused_and_the_old_file_kept(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"n": 1})
    with pytest.raises(ValueError, match="expected a state of tensors"):
        save_state(path, {"n": np.zeros(2).__array_interface__, "f": object()})
    assert load_state(path) == {"n": 1}
