"""Checks that files and directories that other users can change are refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lessor_server.settings.model import Settings, load
from lessor_server.settings.sources import SettingsError
from tests.support.certificates import Authority

TOKEN = "a-token-for-tests"
STRANGER = 54321
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def refusal(file: Path | None = None, **variables: str) -> str:
    """Return the one line with which the settings are refused."""
    with pytest.raises(SettingsError) as caught:
        load(file, variables)
    (problem,) = caught.value.problems
    return str(problem)


@pytest.fixture(name="data")
def made_data(tmp_path: Path) -> Path:
    """Make a data directory with the files of a server, each for its owner alone."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    for name in ("lessor.db", "lessor.db-wal", "lessor.db-shm", "lessor.lock", "root-token", "sealing-key"):
        (folder / name).touch(mode=0o600)
    return folder


@pytest.fixture(name="brought")
def made_brought(tmp_path: Path) -> Path:
    """Make a directory for files that an operator brings."""
    folder = tmp_path / "brought"
    folder.mkdir(mode=0o755)
    return folder


# --- the data directory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757, 0o1777, 0o720, 0o702])
def test_a_data_directory_that_others_can_write_to_is_refused(data: Path, mode: int) -> None:
    """The sticky bit does not help, since others could add files."""
    data.chmod(mode)
    line = refusal(LESSOR_DATA_DIR=str(data))
    assert f"(mode {mode:04o}); run chmod go-w {data}" in line
    data.chmod(mode & ~0o022)
    load(None, {"LESSOR_DATA_DIR": str(data)})


def test_a_link_that_leads_in_a_circle_is_named_with_the_fix(data: Path) -> None:
    (data / "lessor.lock").unlink()
    (data / "lessor.lock").symlink_to("lessor.lock")
    line = refusal(LESSOR_DATA_DIR=str(data))
    assert line.endswith(f"{data}/lessor.lock can't be read: Too many levels of symbolic links; remove it")


@pytest.mark.parametrize(
    "name",
    ["lessor.db", "lessor.db-wal", "lessor.db-shm", "lessor.lock", "root-token", "sealing-key", "copy.db"],
)
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_in_the_data_directory_that_others_can_write_to_is_refused(
    data: Path, name: str, mode: int
) -> None:
    (data / name).touch()
    (data / name).chmod(mode)
    assert f"run chmod go-w {data / name}" in refusal(LESSOR_DATA_DIR=str(data))


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o711, 0o700])
def test_a_data_directory_that_others_can_only_list_is_accepted(data: Path, mode: int) -> None:
    data.chmod(mode)
    (data / "lost+found").mkdir(mode=0o777)
    (data / "lost+found").chmod(0o777)
    (data / "dangling").symlink_to("nowhere")
    assert load(None, {"LESSOR_DATA_DIR": str(data)}).data_dir == data


def test_a_data_directory_that_others_can_replace_is_refused(data: Path) -> None:
    """Except with the sticky bit. Kubernetes gives a volume to a pod by its group."""
    data.parent.chmod(0o777)
    assert f"run chmod go-w {data.parent}" in refusal(LESSOR_DATA_DIR=str(data))
    for mode in (0o1777, 0o2775):
        data.parent.chmod(mode)
        load(None, {"LESSOR_DATA_DIR": str(data)})


@as_root
@pytest.mark.parametrize("name", ["", "lessor.db", "lessor.db-wal", "sealing-key"])
def test_another_user_s_data_is_refused(data: Path, name: str) -> None:
    os.chown(data / name, STRANGER, 0)
    assert f"belongs to the user {STRANGER}; run chown" in refusal(LESSOR_DATA_DIR=str(data))


# --- files that an operator brings ------------------------------------------------------------------------

Bring = Callable[[Path], tuple[Path | None, dict[str, str], Path]]


def bring_token(folder: Path) -> tuple[Path | None, dict[str, str], Path]:
    """Bring a root token."""
    file = folder / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    return None, {"LESSOR_ROOT_TOKEN_FILE": str(file)}, file


def bring_config(folder: Path) -> tuple[Path | None, dict[str, str], Path]:
    """Bring a file of settings with a secret in it."""
    file = folder / "lessor.toml"
    file.write_text(f'root_token = "{TOKEN}"\n')
    file.chmod(0o600)
    return file, {}, file


def bring_tls(folder: Path, name: str) -> tuple[Path | None, dict[str, str], Path]:
    """Bring what TLS takes, and return one of its files."""
    authority = Authority(folder)
    pair = authority.sign("server")
    files = {"CERT_FILE": pair.cert, "KEY_FILE": pair.key, "CLIENT_CA_FILE": authority.ca}
    for file in files.values():
        file.chmod(0o600)
    return None, {f"LESSOR_TLS_{key}": str(file) for key, file in files.items()}, files[name]


BROUGHT: dict[str, Bring] = {
    "root_token_file": bring_token,
    "config": bring_config,
    "tls.cert_file": lambda folder: bring_tls(folder, "CERT_FILE"),
    "tls.key_file": lambda folder: bring_tls(folder, "KEY_FILE"),
    "tls.client_ca_file": lambda folder: bring_tls(folder, "CLIENT_CA_FILE"),
}
SECRETS = ["root_token_file", "config", "tls.key_file"]


@pytest.mark.parametrize("kind", BROUGHT)
@pytest.mark.parametrize("mode", [0o666, 0o660, 0o602, 0o620])
def test_a_file_that_others_can_write_to_is_refused(brought: Path, kind: str, mode: int) -> None:
    file, variables, named = BROUGHT[kind](brought)
    named.chmod(mode)
    assert f"run chmod go-w {named}" in refusal(file, **variables)


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_a_root_token_file_that_others_can_replace_is_refused(brought: Path, mode: int) -> None:
    file, variables, named = bring_token(brought)
    brought.chmod(mode)
    assert f"run chmod go-w {brought}" in refusal(file, **variables)
    link = brought.parent / "link"
    link.symlink_to(named)
    assert f"run chmod go-w {brought}" in refusal(LESSOR_ROOT_TOKEN_FILE=str(link))
    brought.chmod(0o1777)
    load(file, variables)


def test_a_link_that_others_can_replace_is_refused(brought: Path, tmp_path: Path) -> None:
    _, _, named = bring_token(brought)
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    (loose / "token").symlink_to(named)
    assert f"run chmod go-w {loose}" in refusal(LESSOR_ROOT_TOKEN_FILE=str(loose / "token"))


@as_root
@pytest.mark.parametrize("kind", BROUGHT)
def test_another_user_s_file_is_refused(brought: Path, kind: str) -> None:
    file, variables, named = BROUGHT[kind](brought)
    os.chown(named, STRANGER, 0)
    assert f"{named} belongs to the user {STRANGER}" in refusal(file, **variables)


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640])
def test_a_secret_that_a_group_can_read_is_accepted(brought: Path, kind: str, mode: int) -> None:
    """A service reads root's secrets this way, and a pod those of Kubernetes."""
    file, variables, named = BROUGHT[kind](brought)
    named.chmod(mode)
    assert load(file, variables).warnings == ()


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("mode", [0o444, 0o644, 0o604])
def test_a_secret_that_every_user_can_read_is_accepted_with_a_warning(
    brought: Path, kind: str, mode: int
) -> None:
    """Kubernetes gives secrets the mode 0644 by default."""
    file, variables, named = BROUGHT[kind](brought)
    named.chmod(mode)
    (warning,) = load(file, variables).warnings
    assert f"run chmod o-r {named}" in warning


def test_files_without_a_secret_may_be_read_by_all(brought: Path) -> None:
    _, variables, _ = bring_tls(brought, "CERT_FILE")
    for name in ("CERT_FILE", "CLIENT_CA_FILE"):
        Path(variables[f"LESSOR_TLS_{name}"]).chmod(0o644)
    file = brought / "lessor.toml"
    file.write_text("reflection = false\n")
    file.chmod(0o644)
    assert load(file, variables).warnings == ()


def test_a_secret_volume_of_kubernetes_is_accepted(tmp_path: Path) -> None:
    """The file is behind ``..data``, in a directory of mode 1777."""
    mount = tmp_path / "secret"
    mount.mkdir()
    mount.chmod(0o1777)
    version = mount / "..2026_11_28"
    version.mkdir(mode=0o755)
    (version / "token").write_text(TOKEN)
    (version / "token").chmod(0o440)
    (mount / "..data").symlink_to("..2026_11_28")
    (mount / "token").symlink_to("..data/token")
    settings = load(None, {"LESSOR_ROOT_TOKEN_FILE": str(mount / "token")})
    assert settings.warnings == ()
    assert settings != Settings()
