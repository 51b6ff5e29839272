import pytest

from deepfake_detectors.dataset_scripts._builder import components, split_by_group
from deepfake_detectors.dataset_scripts._files import open_image


def test_components_join_through_shared_nodes():
    groups = components([("b", "c"), ("a", "b"), ("x",), ("z", "y")])
    assert groups == {"a": "a", "b": "a", "c": "a", "x": "x", "y": "y", "z": "y"}


def test_components_do_not_depend_on_order():
    links = [(1, 2), (3, 4), (2, 3), (9, 8), (5,)]
    assert components(links) == components(reversed(links))


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_split_keeps_groups_whole(seed):
    groups = [f"g{index % 13}" for index in range(100)]
    train, validation = split_by_group(groups, 0.2, seed)
    assert sorted(train + validation) == list(range(100))
    assert not {groups[i] for i in train} & {groups[i] for i in validation}
    assert 20 <= len(validation) <= 28  # a group has seven or eight rows


def test_split_follows_from_seed_and_groups_alone():
    groups = [f"g{index % 13}" for index in range(100)]
    chosen = {groups[i] for i in split_by_group(groups, 0.3, 0)[1]}
    assert chosen == {groups[::-1][i] for i in split_by_group(groups[::-1], 0.3, 0)[1]}
    assert chosen != {groups[i] for i in split_by_group(groups, 0.3, 1)[1]}


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 2])
def test_split_refuses_other_fractions(fraction):
    with pytest.raises(ValueError, match=f"fraction is {fraction}"):
        split_by_group(["a", "b"], fraction, 0)


@pytest.mark.parametrize("groups", [[], ["a"], ["a", "a"]])
def test_split_needs_two_groups(groups):
    with pytest.raises(ValueError, match="cannot be split"):
        split_by_group(groups, 0.5, 0)


def test_large_last_group_leaves_something_to_train_on():
    train, validation = split_by_group(["a", "b"], 0.99, 0)
    assert len(train) == len(validation) == 1


@pytest.mark.parametrize("content", [b"", b"not a picture"])
def test_unreadable_picture_is_named(tmp_path, content):
    path = tmp_path / "face.jpg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"face\.jpg .* cannot be decoded"):
        open_image(path)
