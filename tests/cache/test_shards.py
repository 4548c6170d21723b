"""Shards: what is stored is what comes back, and any change to a file is noticed."""

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from potstill.cache.encoding import ShardDraft
from potstill.cache.records import canonical_json, read_record, write_record
from potstill.cache.shards import ShardedRows, join_shards, open_shard, write_shard
from potstill.errors import CacheError, OutputError


def digests_of(count):
    return [f"{number:064x}" for number in range(count)]


def shard_of(features, logits, kept=None):
    """The arrays of a shard with these rows."""
    draft = ShardDraft(kept, with_features=True)
    draft.add(features, logits)
    return draft.arrays(digests_of(len(features)))


def test_rows_equal_a_plain_array_in_any_order():
    generator = np.random.default_rng(0)
    parts = [generator.normal(size=(rows, 3)).astype(np.float16) for rows in (4, 1, 7)]
    whole = np.concatenate(parts)
    numbers = np.repeat(np.arange(3), [4, 1, 7])
    offsets = np.concatenate([np.arange(rows) for rows in (4, 1, 7)])
    order = generator.permutation(12)
    rows = ShardedRows(parts, numbers[order], offsets[order])
    assert rows.shape == (12, 3)
    assert rows.dtype == np.float16
    for wanted in (np.arange(12), np.array([3, 3, 0, 11]), np.array([], dtype=np.int64), np.array([-1])):
        np.testing.assert_array_equal(rows[wanted], whole[order][wanted])
    np.testing.assert_array_equal(np.asarray(rows), whole[order])
    with pytest.raises(IndexError):
        rows[np.array([12])]
    with pytest.raises(TypeError, match="one-dimensional integer array"):
        rows[np.ones(12, dtype=bool)]


def test_shards_of_different_width_come_in_the_wider_one():
    rows = ShardedRows(
        [np.ones((1, 2), np.float16), np.full((1, 2), 1e6, np.float32)], np.array([0, 1]), np.array([0, 0])
    )
    assert rows[np.array([1, 0])].tolist() == [[1e6, 1e6], [1.0, 1.0]]


def test_joined_shards_are_what_one_writing_gives(tmp_path):
    """To the byte; and the files are what the safetensors library reads."""
    features, logits = torch.randn(9, 3), torch.randn(9, 12)
    whole = shard_of(features, logits)
    write_shard(tmp_path / "whole.safetensors", whole)
    pieces = [tmp_path / f"piece-{number}.safetensors" for number in range(3)]
    for path, rows in zip(pieces, (slice(0, 4), slice(4, 5), slice(5, 9)), strict=True):
        write_shard(path, {name: array[rows] for name, array in whole.items()})
    join_shards(tmp_path / "joined.safetensors", pieces)
    for suffix in (".safetensors", ".json"):
        assert (tmp_path / f"joined{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    read = load_file(tmp_path / "joined.safetensors")
    assert set(read) == set(whole)
    for name, array in whole.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)


def test_one_wide_piece_makes_a_wide_shard(tmp_path):
    """Features too large for float16 come in float32; nothing is cut."""
    pieces = [tmp_path / "narrow.safetensors", tmp_path / "wide.safetensors"]
    for path, scale in zip(pieces, (1.0, 1e6), strict=True):
        write_shard(path, shard_of(torch.full((2, 3), scale), None))
    assert [open_shard(path)["features"].dtype for path in pieces] == [np.float16, np.float32]
    join_shards(tmp_path / "joined.safetensors", pieces)
    assert open_shard(tmp_path / "joined.safetensors")["features"].tolist() == [[1.0] * 3] * 2 + [[1e6] * 3] * 2


DENSE = {"digests", "features", "shifted", "maximum", "log_sum_exp"}
TOP = {"digests", "features", "shifted", "maximum", "indices", "tails", "mean", "deviation"}


@pytest.mark.parametrize(("num_classes", "kept", "names"), [(12, None, DENSE), (12, 10, TOP), (70_000, 10, TOP)])
def test_a_shard_comes_back_as_memory_maps(tmp_path, num_classes, kept, names):
    arrays = shard_of(torch.randn(5, 3), torch.randn(5, num_classes), kept)
    write_shard(tmp_path / "shard-000000.safetensors", arrays)
    opened = open_shard(tmp_path / "shard-000000.safetensors")
    assert set(opened) == names
    for name, array in arrays.items():
        assert isinstance(opened[name], np.memmap)
        assert opened[name].dtype == array.dtype
        np.testing.assert_array_equal(opened[name], array)
    assert [row.tobytes().hex() for row in opened["digests"]] == digests_of(5)


def test_every_bit_and_every_truncation_of_a_shard_is_noticed(tmp_path):
    path = tmp_path / "shard-000000.safetensors"
    write_shard(path, shard_of(torch.randn(2, 3), None))
    for file in (path, path.with_suffix(".json")):
        content = file.read_bytes()
        for bit in range(0, 8 * len(content), 5):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            file.write_bytes(changed)
            with pytest.raises(CacheError, match="damaged"):
                open_shard(path)
        for length in (0, 1, len(content) // 2, len(content) - 1):
            file.write_bytes(content[:length])
            with pytest.raises(CacheError, match="damaged"):
                open_shard(path)
        file.write_bytes(content)
        assert len(open_shard(path)["digests"]) == 2
    path.unlink()
    with pytest.raises(CacheError, match="missing though its record exists"):
        open_shard(path)


def test_records_round_trip_and_refuse_nan(tmp_path):
    body = {"b": [1, 2.5, None], "a": {"ä": True}}
    write_record(tmp_path / "record.json", body)
    assert read_record(tmp_path / "record.json") == body
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError):
        write_record(tmp_path / "file" / "record.json", {})


def test_a_single_shard_is_gathered_by_value():
    part = np.arange(6, dtype=np.float32).reshape(3, 2)
    rows = ShardedRows([part], np.zeros(2, dtype=np.int64), np.array([2, 0]))
    taken = rows[np.array([0, 1])]
    assert taken.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert not np.shares_memory(taken, part)
