"""What can be chosen, read from the files alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from graft import paths
from graft.config.catalog import header, key_comments, list_options, read_primary, read_yaml, user_folders
from graft.errors import ConfigError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_the_header_is_the_comment_at_the_top_without_the_package_line(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "# @package _global_\n# First line.\n#\n#   graft train\n\n# not this\nx: 1\n")
    assert header(file) == ["First line.", "", "  graft train"]


def test_every_shipped_option_says_what_it_is() -> None:
    for options in list_options().values():
        for option in options.values():
            assert option.summary, option.path


def test_an_option_of_the_users_shadows_ours_and_the_others_stay(tmp_path: Path) -> None:
    ours = list_options()
    mine = write(tmp_path / "peft/lora.yaml", "# Mine.\n")
    write(tmp_path / "peft/zebra.yaml", "# Also mine.\n")
    write(tmp_path / "own_group/deep/one.yaml", "# A group of my own.\n")
    found = list_options([tmp_path])
    assert found["peft"]["lora"].path == mine
    assert found["peft"]["lora"].own
    assert not found["peft"]["full"].own
    assert list(found["peft"]) == sorted([*ours["peft"], "zebra"])
    assert found["own_group/deep"]["one"].summary == "A group of my own."
    assert found["model"] == ours["model"]


def test_the_first_of_several_folders_wins(tmp_path: Path) -> None:
    first = write(tmp_path / "a/peft/lora.yaml", "# A.\n")
    write(tmp_path / "b/peft/lora.yaml", "# B.\n")
    assert list_options([tmp_path / "a", tmp_path / "b"])["peft"]["lora"].path == first


def test_files_that_begin_with_an_underscore_are_parts_of_others_and_no_options(tmp_path: Path) -> None:
    assert "_loading" not in list_options()["data"]
    write(tmp_path / "data/_mine.yaml", "x: 1\n")
    write(tmp_path / ".ipynb_checkpoints/data/x.yaml", "x: 1\n")
    assert list_options([tmp_path]) == list_options()


def test_an_option_that_changes_everything_is_told_from_a_part(tmp_path: Path) -> None:
    options = list_options()
    assert all(option.whole for option in options["debug"].values())
    assert not any(option.whole for option in options["peft"].values())


def test_the_primary_config_says_what_is_chosen_where_nothing_is_said() -> None:
    train = read_primary("train")
    assert train.trains
    assert train.choices["peft"] == "lora"
    assert train.choices["task/loss"] == "cross_entropy"
    assert train.choices["data/split"] == "keep"
    assert train.choices["objective"] == []
    assert train.choices["experiment"] is None
    order = list(train.choices)
    assert order.index("task/loss") == order.index("task") + 1


def test_a_verb_that_does_not_train_has_only_its_own_keys() -> None:
    predict = read_primary("predict")
    assert not predict.trains
    assert predict.values["input"] == "???"
    assert predict.comments["input"].startswith("csv, tsv")


def test_a_primary_config_of_the_users_may_start_from_ours(tmp_path: Path) -> None:
    write(
        tmp_path / "mine.yaml", "defaults:\n- train\n- override /peft: full\n- extra: one\n- _self_\nseed: 7  # mine\n"
    )
    mine = read_primary("mine", [tmp_path])
    assert mine.trains
    assert mine.choices["peft"] == "full"
    assert mine.choices["extra"] == "one"
    assert mine.choices["optimizer"] == "adamw"
    assert mine.values["seed"] == 7
    assert mine.comments["seed"] == "mine"


def test_a_users_own_primary_config_shadows_ours(tmp_path: Path) -> None:
    path = write(tmp_path / "predict.yaml", "defaults: null\ninput: here.csv\n")
    read = read_primary("predict", [tmp_path])
    assert read.path == path
    assert read.values == {"input": "here.csv"}


def test_an_unknown_primary_config_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_primary("trian", [tmp_path])
    assert str(caught.value) == (
        f"there is no primary config trian.yaml in {tmp_path}, {paths.conf_dir()}. Did you mean 'train'?"
    )


def test_comments_beside_keys_are_read() -> None:
    comments = key_comments(paths.conf_dir() / "evaluate.yaml")
    assert comments["split"] == "train, validation or test"
    assert "defaults" not in comments


def test_broken_yaml_is_answered_with_file_and_line(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "x: 1\ny: [1, 2\nz: 3\n")
    with pytest.raises(ConfigError) as caught:
        read_yaml(file)
    assert str(caught.value).startswith(f"{file}: this is no valid YAML.")
    assert "line 3" in str(caught.value)


def test_yaml_that_is_no_mapping_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", "- 1\n- 2\n")
    with pytest.raises(ConfigError, match="a mapping of keys is expected, not list"):
        read_yaml(file)


def test_a_file_in_another_encoding_is_answered_with_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "peft/mine.yaml"
    file.parent.mkdir()
    file.write_bytes("# caf\xe9\n".encode("latin-1"))
    with pytest.raises(ConfigError) as caught:
        list_options([tmp_path])
    assert str(caught.value) == f"{file}: this is no UTF-8 text (byte 5). Save it as UTF-8."


def test_an_empty_file_is_an_empty_mapping(tmp_path: Path) -> None:
    assert read_yaml(write(tmp_path / "a.yaml", "# nothing\n")) == {}


def test_the_users_folders_are_those_given_then_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("GRAFT_CONF_DIR", str(tmp_path / "c"))
    monkeypatch.chdir(tmp_path)
    assert user_folders(["a", tmp_path / "b"]) == [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    assert user_folders(["c"]) == [tmp_path / "c"]


def test_every_folder_that_is_not_there_is_named_with_where_it_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_CONF_DIR", str(tmp_path / "c"))
    with pytest.raises(ConfigError) as caught:
        user_folders([tmp_path / "a"])
    first, second = caught.value.problems
    assert first.startswith(f"--config-dir: there is no folder '{tmp_path / 'a'}'.")
    assert first.endswith(f"graft configs copy peft/lora to={tmp_path / 'a'}")
    assert second.startswith(f"$GRAFT_CONF_DIR: there is no folder '{tmp_path / 'c'}'.")
