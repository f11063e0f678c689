"""The configuration of the agent: which roles it serves, where, and which files it keeps current."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from lessor import values
from lessor.leasing.issued import Issued
from lessor.leasing.private_files import FILE_MODE

DEFAULT_LISTEN: Final = "127.0.0.1:9911"
DEFAULT_TTL: Final = timedelta(hours=1)
DEFAULT_WAIT: Final = timedelta(seconds=10)
FORMATS: Final = ("aws-credentials", "env", "json")
MAX_ROLES: Final = 1000
_MODE: Final = re.compile(r"0?[0-7]{3}")
_PROFILE: Final = re.compile(r"[^\s\[\]#;]+")
_KEYS: Final = ("listen", "token_file", "role", "ttl", "wait_usable", "keep", "file")
_FILE_KEYS: Final = ("role", "mount", "path", "format", "profile", "mode", "owner", "exec")


class InvalidConfig(ValueError):
    """The configuration has problems; the text has one line for each."""


@dataclass(frozen=True, slots=True, order=True)
class RoleName:
    """A role of a mount."""

    mount: str
    role: str

    @property
    def path(self) -> str:
        """Return its path on the endpoint."""
        return f"/creds/{self.mount}/{self.role}"


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A file that always has the current credentials of a role.

    Attributes:
        name: The role.
        path: Where the file is.
        style: One of ``FORMATS``.
        profile: The section that is written, for ``aws-credentials``.
        mode: Permissions of the file.
        owner: ``USER`` or ``USER:GROUP``; empty: the user of the process.
        words: The program to run after each change, and its arguments; empty: none.
    """

    name: RoleName
    path: Path
    style: str
    profile: str = "default"
    mode: int = FILE_MODE
    owner: str = ""
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """What the agent does."""

    listen: str = DEFAULT_LISTEN
    token_file: Path | None = None
    names: tuple[RoleName, ...] = ()
    ttl: timedelta = DEFAULT_TTL
    wait_usable: timedelta = DEFAULT_WAIT
    keep: bool = False
    files: tuple[FileSpec, ...] = ()

    @property
    def all_names(self) -> tuple[RoleName, ...]:
        """Return each role once, also those that only a file names."""
        return tuple(dict.fromkeys((*self.names, *(one.name for one in self.files))))

    def address(self) -> tuple[str, int]:
        """Return host and port; raises ``InvalidConfig``."""
        host, _, port = self.listen.rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not bare or not port.isdecimal() or int(port) >= 1 << 16:
            raise InvalidConfig(f"listen: {self.listen!r} is not an address; write HOST:PORT")
        return bare, int(port)

    def with_options(self, **options: object) -> AgentConfig:
        """Return the configuration with the options of the command line that were given."""
        return replace(self, **{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]


def role_name(text: str, mount: str = "aws") -> RoleName:
    """Return the role of ``[MOUNT/]ROLE``; raises ``InvalidConfig``."""
    before, slash, role = text.rpartition("/")
    name = RoleName(before if slash else mount, role)
    if not name.role or not name.mount or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidConfig(f"role: {text!r} is not a role; write ROLE or MOUNT/ROLE")
    return name


def load_config(path: Path) -> AgentConfig:
    """Return the configuration in a TOML file; raises ``InvalidConfig`` with every problem."""
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidConfig(f"{path} can't be read: {error.strerror}; name a readable file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path} is not valid TOML: {error}") from None
    reader = _Reader()
    config = reader.config(found)
    if reader.problems:
        raise InvalidConfig("\n".join(f"{path}: {problem}" for problem in reader.problems))
    return config


def content_of(spec: FileSpec, issued: Issued) -> Mapping[str, str] | str:
    """Return the text of a file, or the settings of its section."""
    match spec.style:
        case "env":
            return "".join(f"{name}={value}\n" for name, value in issued.variables().items())
        case "json":
            return json.dumps(issued.process_object(), indent=2) + "\n"
        case _:
            return {
                "aws_access_key_id": issued.access_key,
                "aws_secret_access_key": issued.secret_key,
                "aws_session_token": issued.session_token,
            }


class _Reader:
    """Reads tables of TOML and keeps every problem."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def config(self, found: Mapping[str, object]) -> AgentConfig:
        """Return the configuration of a file."""
        self._only(found, _KEYS, "")
        config = AgentConfig()
        token_file = self._text(found, "token_file")
        names = tuple(filter(None, (self._name(one, "role") for one in self._texts(found, "role"))))
        tables = found.get("file", [])
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            self.problems.append("file: write each file as a table [[file]]")
            tables = []
        files = (self._file(one, f"file[{number}].") for number, one in enumerate(tables))
        config = replace(
            config,
            listen=self._text(found, "listen") or DEFAULT_LISTEN,
            token_file=Path(token_file) if token_file else None,
            names=names,
            ttl=self._duration(found, "ttl", DEFAULT_TTL),
            wait_usable=self._duration(found, "wait_usable", DEFAULT_WAIT),
            keep=self._bool(found, "keep"),
            files=tuple(filter(None, files)),
        )
        if len(config.all_names) > MAX_ROLES:
            self.problems.append(f"role: at most {MAX_ROLES} roles can be served; start another agent")
        try:
            config.address()
        except InvalidConfig as error:
            self.problems.append(str(error))
        return config

    def _file(self, found: Mapping[str, object], at: str) -> FileSpec | None:
        """Return one file; None if it has problems."""
        before = len(self.problems)
        self._only(found, _FILE_KEYS, at)
        mount = self._text(found, "mount", at) or "aws"
        name = self._name(self._text(found, "role", at), f"{at}role", mount)
        path, style = self._text(found, "path", at), self._text(found, "format", at) or FORMATS[0]
        profile = self._text(found, "profile", at) or "default"
        mode = self._text(found, "mode", at) or f"{FILE_MODE:04o}"
        words = tuple(self._texts(found, "exec", at))
        owner = self._text(found, "owner", at)
        if not path:
            self.problems.append(f"{at}path: is missing; name the file to write")
        if style not in FORMATS:
            self.problems.append(f"{at}format: {style!r} is unknown; write {', '.join(FORMATS)}")
        if not _MODE.fullmatch(mode):
            self.problems.append(f'{at}mode: {mode!r} is not a mode; write it as "0640"')
        if not _PROFILE.fullmatch(profile):
            self.problems.append(
                f"{at}profile: {profile!r} is not the name of a profile; omit blanks and brackets"
            )
        if name is None or len(self.problems) > before:
            return None
        return FileSpec(name, Path(path).expanduser(), style, profile, int(mode, 8), owner, words)

    def _only(self, found: Mapping[str, object], names: tuple[str, ...], at: str) -> None:
        for name in found.keys() - set(names):
            self.problems.append(f"{at}{name}: is unknown; known names: {', '.join(names)}")

    def _text(self, found: Mapping[str, object], name: str, at: str = "") -> str:
        value = found.get(name, "")
        if isinstance(value, str):
            return value
        self.problems.append(f"{at}{name}: is not a text; write it in quotes")
        return ""

    def _texts(self, found: Mapping[str, object], name: str, at: str = "") -> list[str]:
        value = found.get(name, [])
        if isinstance(value, list) and all(isinstance(one, str) for one in value):
            return [str(one) for one in value]
        self.problems.append(f'{at}{name}: is not a list of texts; write ["…"]')
        return []

    def _bool(self, found: Mapping[str, object], name: str) -> bool:
        value = found.get(name, False)
        if not isinstance(value, bool):
            self.problems.append(f"{name}: is neither true nor false")
        return value is True

    def _name(self, text: str, at: str, mount: str = "aws") -> RoleName | None:
        try:
            return role_name(text, mount)
        except InvalidConfig:
            self.problems.append(f"{at}: {text!r} is not a role; write ROLE or MOUNT/ROLE")
            return None

    def _duration(self, found: Mapping[str, object], name: str, default: timedelta) -> timedelta:
        text = self._text(found, name)
        try:
            return values.duration(text) if text else default
        except values.InvalidValue as error:
            self.problems.append(f"{name}: {error}")
            return default
