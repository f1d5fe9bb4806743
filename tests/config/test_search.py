"""Where Hydra looks for configs: the user's folders first, in our own applications only."""

from __future__ import annotations

from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from graft import paths
from graft.config.search import register, searching, session
from graft.config.versions import version_base


def searched() -> list[tuple[str, str]]:
    path = GlobalHydra.instance().config_loader().get_search_path().get_path()
    return [(one.provider, one.path.removeprefix("file://")) for one in path]


def test_the_users_folders_come_before_ours_the_first_given_first(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with session([tmp_path / "a", tmp_path / "b"]):
        ours = searched()
    files = [path for provider, path in ours if provider in ("user", "main")]
    assert files == [str(tmp_path / "a"), str(tmp_path / "b"), str(paths.conf_dir())]


def test_the_folders_are_forgotten_behind_the_block(tmp_path: Path) -> None:
    with session([tmp_path]):
        pass
    with session():
        assert "user" not in [provider for provider, _ in searched()]


def test_other_hydra_applications_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs.yaml").write_text("x: 1\n", encoding="utf-8")
    (tmp_path / "user").mkdir()
    with (
        searching([tmp_path / "user"]),
        initialize_config_dir(str(tmp_path), job_name="theirs", **version_base()),
    ):
        assert "user" not in [provider for provider, _ in searched()]
        assert compose("theirs").x == 1


def test_registering_again_changes_nothing() -> None:
    register()
    register()
    with session():
        assert [provider for provider, _ in searched()].count("schema") == 1
