import hashlib

import torch

from cm3leon import fingerprints


def test_a_files_fingerprint_is_that_of_its_content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(3_000_000))
    expected = hashlib.sha256(bytes(3_000_000)).hexdigest()
    assert fingerprints.of_file(path) == expected


def test_weights_are_told_apart_by_name_shape_and_value_alone():
    one = {"a": torch.arange(6.0), "b": torch.ones(2)}
    same = {"b": torch.ones(2).half(), "a": torch.arange(6.0)}
    assert fingerprints.of_weights(one) == fingerprints.of_weights(same)
    for other in (
        {"a": torch.arange(6.0), "c": torch.ones(2)},
        {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)},
        {"a": torch.arange(6.0) + 1, "b": torch.ones(2)},
        {"a": torch.arange(6.0)},
    ):
        assert fingerprints.of_weights(one) != fingerprints.of_weights(other)
