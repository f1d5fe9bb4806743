from __future__ import annotations

from pathlib import Path

import pytest

from graft import paths


def test_the_shipped_configs_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert paths.conf_dir().is_absolute()
    assert (paths.conf_dir() / "train.yaml").is_file()


def test_the_copy_inside_an_installed_package_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel has its own copy; what lies two folders above site-packages is no business of ours."""
    package = tmp_path / "lib" / "site-packages" / "graft"
    (package / "conf").mkdir(parents=True)
    (tmp_path / "lib" / "conf").mkdir()
    monkeypatch.setattr(paths, "PACKAGE", package)
    assert paths.conf_dir() == package / "conf"


def test_the_folder_beside_the_sources_serves_where_nothing_is_packaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "src" / "graft")
    assert paths.conf_dir() == tmp_path / "conf"


def test_there_is_no_user_folder_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAFT_CONF_DIR", raising=False)
    assert paths.user_conf_dir() is None
    monkeypatch.setenv("GRAFT_CONF_DIR", "")
    assert paths.user_conf_dir() is None


@pytest.mark.parametrize(
    ("variable", "function"),
    [("GRAFT_CONF_DIR", "user_conf_dir"), ("GRAFT_LOGS", "logs_dir"), ("GRAFT_CACHE", "cache_dir")],
)
def test_a_variable_moves_a_folder(
    variable: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    assert getattr(paths, function)() == (tmp_path / "elsewhere").resolve()


@pytest.mark.parametrize(
    ("variable", "function"),
    [("GRAFT_CONF_DIR", "user_conf_dir"), ("GRAFT_LOGS", "logs_dir"), ("GRAFT_CACHE", "cache_dir")],
)
def test_a_relative_folder_counts_from_here_and_a_tilde_from_home(
    variable: str, function: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv(variable, "mine")
    assert getattr(paths, function)() == (tmp_path / "mine").resolve()
    monkeypatch.setenv(variable, "~/mine")
    assert getattr(paths, function)() == (tmp_path / "home" / "mine").resolve()


def test_runs_go_below_the_current_folder_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAFT_LOGS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert paths.logs_dir() == (tmp_path / "logs").resolve()


def test_the_cache_is_in_the_users_home_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRAFT_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.cache_dir() == (tmp_path / ".cache" / "graft").resolve()
