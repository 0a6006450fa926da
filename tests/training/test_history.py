"""Histories: series by group, and files that survive a killed run."""

import copy
import json

import pytest

from ntkfast.training import History


def filled() -> History:
    history = History()
    history.add(0, loss={"u": 2.0, "r": 9.0}, error=1.0)
    history.add(100, loss={"u": 0.1, "r": 1 / 3}, weights={"u": 3.0, "r": 1.5}, seconds=0.25)
    history.add(100, error=0.5, spectrum={"u": [3.0, 1.0]})
    return history


def test_series_hold_values_at_the_iterations_that_have_them():
    history = filled()
    assert history.loss["r"].iterations == [0, 100] and list(history.loss["r"]) == [9.0, 1 / 3]
    assert history.weights["u"].iterations == [100]
    assert history.error[-1] == 0.5 and history.seconds[-1] == 0.25
    assert history.spectrum == {"u": {100: [3.0, 1.0]}}


def test_what_is_saved_is_loaded_bit_for_bit(tmp_path):
    filled().save(tmp_path / "new" / "folder")
    assert History.load(tmp_path / "new" / "folder").records == filled().records


def test_a_stream_is_on_disk_before_it_is_closed_and_older_records_are_replaced(tmp_path):
    (tmp_path / "history.jsonl").write_text('{"iteration": 7, "error": 3}\n')
    history = filled()
    history.stream(tmp_path)
    history.add(200, error=0.1)
    assert History.load(tmp_path).records == history.records
    history.close()


def test_the_unfinished_line_of_a_killed_run_is_left_out(tmp_path):
    path = filled().save(tmp_path)
    path.write_text(path.read_text() + '{"iteration": 200, "err')
    assert History.load(tmp_path).records == filled().records


def test_a_state_is_plain_and_brings_everything_back():
    history = History()
    history.load_state_dict(json.loads(json.dumps(filled().state_dict())))
    assert history.records == filled().records


def test_a_folder_without_history_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a file .*history.jsonl, got none"):
        History.load(tmp_path)


def test_a_file_that_is_no_history_is_refused(tmp_path):
    for text in ("no record\n", "[1, 2]\n", '{"error": 3}\n'):
        (tmp_path / "history.jsonl").write_text(text)
        with pytest.raises(ValueError, match="expected a record a line in .*history.jsonl, got"):
            History.load(tmp_path)


def test_a_history_that_is_saved_where_it_streams_goes_on_streaming(tmp_path):
    history = History()
    history.stream(tmp_path)
    history.add(0, seconds=1.0)
    history.save(tmp_path)
    history.add(1, seconds=2.0)
    history.close()
    assert sorted(History.load(tmp_path).records) == [0, 1]


def test_a_copy_does_not_write_to_the_stream(tmp_path):
    history = History()
    history.stream(tmp_path)
    history.add(0, error=1.0)
    other = copy.deepcopy(history)
    other.add(1, error=2.0)
    history.close()
    assert list(History.load(tmp_path).records) == [0] and list(other.records) == [0, 1]
    history.add(0, error=3.0)
    assert history.continues(tmp_path, 1) and not copy.deepcopy(history).continues(tmp_path, 1)


@pytest.mark.parametrize("iteration", ["null", '"a"', "1.5"])
def test_a_record_of_no_iteration_is_refused(tmp_path, iteration):
    (tmp_path / "history.jsonl").write_text(f'{{"iteration": {iteration}, "error": 1.0}}\n')
    with pytest.raises(ValueError, match="expected a record a line"):
        History.load(tmp_path)
