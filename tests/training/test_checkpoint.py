"""Checkpoints: whole or absent, and plain data."""

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
    with pytest.raises(ValueError, match="expected a checkpoint at '.*none.pt'"):
        load_state(tmp_path / "none.pt")
