"""Checks ``lessor audit`` and ``lessor lease history`` on files, without a server."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lessor.cli.main import root as cli
from lessor_server.adapters.audit.key import AuditKey
from lessor_server.commands import audit
from lessor_server.domain.audit.chain import MAX_LINE, ChainEnd, link
from lessor_server.domain.audit.record import AuditRecord, RecordKind
from tests.support.audit_lines import PUBLIC, chain_of, last_of

LEASE = "aws/creds/app/000000000000000000000000"


def run(*words: str, stdin: bytes | None = None, **environment: str) -> Result:
    """Run a command line."""
    return CliRunner().invoke(cli, list(words), env=environment, input=stdin)


@pytest.fixture(name="file")
def audit_file(tmp_path: Path) -> Path:
    """Return an intact file."""
    path = tmp_path / "audit.log"
    path.write_bytes(b"".join(chain_of(12)))
    return path


def test_an_intact_file_exits_with_0_and_says_what_is_not_signed(file: Path) -> None:
    result = run("audit", "verify", "--key", PUBLIC, str(file))
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "intact")
    assert "12 records, from 1 to 12" in result.output
    assert "1 records after the last checkpoint, 11" in result.output


def test_the_last_checkpoint_does_not_count_as_signed_itself(tmp_path: Path) -> None:
    """Its signature names the record before it, so its own time can be edited; the noted hash finds that."""
    path, lines = tmp_path / "audit.log", chain_of(11)
    content = json.loads(lines.pop())
    before = ChainEnd(content.pop("seq") - 1, content.pop("prev"))
    del content["hash"]
    edited, _ = link({**content, "time": "2020-01-01T00:00:00.000000Z"}, before)
    path.write_bytes(b"".join([*lines, edited]))
    result = run("audit", "verify", "--key", PUBLIC, str(path))
    assert "the last record is a checkpoint: every record before it is signed" in result.output
    noted = str(last_of(chain_of(11)))
    assert run("audit", "verify", "--key", PUBLIC, "--last", noted, str(path)).exit_code == 1


def test_a_changed_file_exits_with_1_and_names_the_record(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"r7"', b'"r8"'))
    result = run("audit", "verify", "--key", PUBLIC, str(file))
    assert (result.exit_code, result.output.splitlines()[-1]) == (1, "not intact")
    assert f"changed: record 8 ({file}:8)" in result.output


def test_another_key_is_found(file: Path, tmp_path: Path) -> None:
    other = AuditKey.load_or_make(tmp_path).public
    assert run("audit", "verify", "--key", other, str(file)).exit_code == 1


def test_a_cut_tail_is_found_by_the_last_record(file: Path) -> None:
    lines = chain_of(12)
    last = last_of(lines)
    assert run("audit", "verify", "--key", PUBLIC, "--last", str(last), str(file)).exit_code == 0
    file.write_bytes(b"".join(lines[:-1]))
    result = run("audit", "verify", "--key", PUBLIC, "--last", str(last), str(file))
    assert result.exit_code == 1
    assert "cut off: record 12" in result.output


def test_a_file_whose_older_ones_were_deleted_is_intact_with_first(tmp_path: Path) -> None:
    """What to give is printed."""
    path, before = tmp_path / "audit.log", last_of(chain_of(8))
    path.write_bytes(b"".join(chain_of(8, before)))
    result = run("audit", "verify", "--key", PUBLIC, str(path))
    assert result.exit_code == 1
    assert f"--first {before}" in result.output
    assert run("audit", "verify", "--key", PUBLIC, "--first", str(before), str(path)).exit_code == 0


def test_rotated_compressed_and_piped_files_are_one_chain(tmp_path: Path) -> None:
    first = chain_of(8)
    second = chain_of(8, last_of(first))
    (tmp_path / "audit.log.1.gz").write_bytes(gzip.compress(b"".join(first)))
    words = ("audit", "verify", "--key", PUBLIC, str(tmp_path / "audit.log.1.gz"), "-")
    assert run(*words, stdin=b"".join(second)).exit_code == 0
    assert run(*words, stdin=b"".join(second[1:])).exit_code == 1


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.xz", lzma.compress(b"".join(chain_of(3))), "compressed by xz"),
        ("a.bz2", bz2.compress(b"".join(chain_of(3))), "compressed by bzip2"),
        ("a.log", gzip.compress(b"".join(chain_of(3)), mtime=0), "compressed by gzip"),
        ("a.gz", gzip.compress(b"".join(chain_of(3)), mtime=0)[:-20], "gzip -dc"),
        ("b.gz", b"".join(chain_of(3)), "gzip -dc"),
        ("c.gz", gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20, "gzip -dc"),
    ],
    ids=["xz", "bzip2", "gzip by another name", "cut", "not compressed", "damaged"],
)
def test_a_file_that_gzip_does_not_read_is_one_line_with_its_name_and_a_fix(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    result = run("audit", "verify", "--key", PUBLIC, str(path))
    assert (result.exit_code, len(result.output.splitlines())) == (1, 1)
    assert str(path) in result.output
    assert says in result.output
    history = run("lease", "history", LEASE, str(path))
    assert history.exit_code == 1
    assert str(path) in history.output
    assert says in history.output


@pytest.mark.parametrize("count", ["\x1b[2J\x1b[H\nintact\n", None, True, 0, -1, 1.5, [1]])
def test_a_forged_gap_is_found_and_none_of_its_text_printed(file: Path, count: object) -> None:
    """After the last checkpoint a forger can write what the chain allows."""
    line, _ = link({"kind": "gap", "count": count}, last_of(chain_of(12)))
    with file.open("ab") as forged:
        forged.write(line)
    result = run("audit", "verify", "--key", PUBLIC, str(file))
    assert (result.exit_code, result.output.splitlines()[-1]) == (1, "not intact")
    assert "intact" not in result.output.splitlines()
    assert "record 13" in result.output
    assert "\x1b" not in result.output


def test_neither_verify_nor_tail_prints_control_characters(tmp_path: Path) -> None:
    """Of the names of files, or of a file that was edited."""
    path = tmp_path / "\x07\u202eintact"  # click leaves these alone
    path.write_bytes(b"\x1b[2J\xff \xe2\x80\xae\n")
    for words in (("verify", "--key", PUBLIC), ("tail",)):
        output = run("audit", *words, str(path)).output
        assert output
        assert output.replace("\n", "").isprintable()


def test_a_key_may_be_in_a_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{PUBLIC}\n")
    assert run("audit", "verify", "--key", f"@{tmp_path}/key", str(file)).exit_code == 0


@pytest.mark.parametrize("key", ["", "x", "@/nowhere", "A" * 44, PUBLIC[:-2]])
def test_a_text_that_is_not_a_key_is_a_usage_error(file: Path, key: str) -> None:
    result = run("audit", "verify", "--key", key, str(file))
    assert result.exit_code == 2, result.output


@pytest.mark.parametrize("last", ["", "12", "12:xyz", "x:" + "0" * 64])
def test_a_text_that_is_not_a_record_is_a_usage_error(file: Path, last: str) -> None:
    assert run("audit", "verify", "--key", PUBLIC, "--last", last, str(file)).exit_code == 2


@pytest.mark.parametrize(
    ("words", "says", "not_said"),
    [
        (("audit", "verify", "--key", PUBLIC, "none"), "none cannot be used", "DATA_DIR"),
        (("audit", "tail", "none"), "none cannot be used", "DATA_DIR"),
        (("audit", "verify", "--key", "@none", "x"), "lessor audit key", "Errno"),
        (("audit", "tail"), "LESSOR_AUDIT_FILE", "Missing"),
        (("audit", "key"), "--data-dir", "Errno"),
        (("audit", "hash", "AKIA1"), "--data-dir", "Errno"),
        (("lease", "history", LEASE, "none"), "name an audit file", "Errno"),
    ],
)
def test_a_missing_file_is_one_line_with_the_fix_of_the_command(
    words: tuple[str, ...], says: str, not_said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code in {1, 2}
    assert says in result.output
    assert not_said not in result.output


def test_many_findings_are_counted(tmp_path: Path) -> None:
    lines = chain_of(600)
    path = tmp_path / "holes"
    path.write_bytes(b"".join(lines[::2]))
    result = run("audit", "verify", "--key", PUBLIC, str(path))
    assert result.exit_code == 1
    assert "more findings" in result.output
    assert len(result.output.splitlines()) < audit.MAX_SHOWN + 5


def test_key_and_hash_read_the_data_directory(tmp_path: Path) -> None:
    key = AuditKey.load_or_make(tmp_path)
    folder = str(tmp_path)
    assert run("audit", "key", LESSOR_DATA_DIR=folder).output == f"{key.public}\n"
    assert run("audit", "hash", "AKIA1", LESSOR_DATA_DIR=folder).output == f"{key.hash_value('AKIA1')}\n"


def test_key_makes_no_key(tmp_path: Path) -> None:
    """A key of a directory without one would verify nothing."""
    result = run("audit", "key", "--data-dir", str(tmp_path))
    assert result.exit_code == 1
    assert not (tmp_path / "audit-key").exists()


@pytest.mark.parametrize(("mode", "size"), [(0o644, 32), (0o600, 31)])
def test_a_broken_key_is_one_line(tmp_path: Path, mode: int, size: int) -> None:
    (tmp_path / "audit-key").write_bytes(bytes(size))
    (tmp_path / "audit-key").chmod(mode)
    result = run("audit", "key", "--data-dir", str(tmp_path))
    assert (result.exit_code, len(result.output.splitlines())) == (1, 1)


def test_tail_shows_the_last_records(file: Path) -> None:
    result = run("audit", "tail", "-n", "3", LESSOR_AUDIT_FILE=str(file))
    assert result.output.encode() == b"".join(chain_of(12)[-3:])
    assert run("audit", "tail", "-n", "0", str(file)).output == ""


@pytest.mark.parametrize("count", [1, 299, 300, 301, 10_000])
def test_tail_shows_as_many_records_as_are_wanted(
    file: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is larger than a block."""
    monkeypatch.setattr(audit, "BLOCK_BYTES", 1_000)
    file.write_bytes(b"".join(chain_of(300)))
    result = run("audit", "tail", "-n", str(count), str(file))
    assert result.output.encode() == b"".join(chain_of(300)[-count:])


@pytest.mark.parametrize(("count", "shown"), [(0, 0), (1, 1), (2, 2), (99, 13)])
def test_tail_shows_a_last_line_without_a_newline(file: Path, count: int, shown: int) -> None:
    with file.open("ab") as more:
        more.write(b"torn")
    lines = run("audit", "tail", "-n", str(count), str(file)).output.splitlines()
    assert len(lines) == shown
    assert lines[-1:] == (["torn"] if count else [])


def test_a_reader_that_has_read_enough_is_no_error(file: Path) -> None:
    file.write_bytes(b"".join(chain_of(600)))
    words = (sys.executable, "-m", "lessor.cli.main", "audit", "tail", "-n", "600", str(file))
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == chain_of(600)[0]
        process.stdout.close()
        assert process.stderr.read() == b""


def test_tail_follows_the_file_over_a_rotation(file: Path) -> None:
    words = (sys.executable, "-m", "lessor.cli.main", "audit", "tail", "-n", "1", "--follow", str(file))
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == chain_of(12)[-1]
        with file.open("ab") as more:
            more.write(b"one\n")
        assert process.stdout.readline() == b"one\n"
        file.rename(file.with_name("old"))
        file.write_bytes(b"two\n")
        assert process.stdout.readline() == b"two\n"
        process.kill()


@pytest.mark.parametrize("words", [("audit", "tail"), ("lease", "history", LEASE)])
def test_a_line_without_an_end_is_not_kept_in_memory(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Somebody has added 256 MiB to the file; the records before it are still found."""
    path = tmp_path / "audit.log"
    lease_file(path)
    os.truncate(path, 256 * MAX_LINE)
    tracemalloc.start()
    try:
        found = run(*words, str(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.exit_code == 0
    assert peak < 128 * MAX_LINE
    assert words[0] == "audit" or len(found.output.splitlines()) == 3


def test_tail_prints_the_end_of_a_line_that_is_too_long_and_what_follows(file: Path) -> None:
    last = chain_of(1)[0]
    file.write_bytes(file.read_bytes() + b"x" * 3 * MAX_LINE + b"\n" + last)
    cut, *lines = run("audit", "tail", str(file)).output.encode().splitlines(keepends=True)
    assert cut.strip(b"x") == b"\n"
    assert lines == [last]


def lease_file(path: Path) -> None:
    """Write a file with three records of a lease, one of which was changed by hand."""
    end, lines = ChainEnd(), []
    for number, kind in enumerate((RecordKind.RESPONSE, RecordKind.EVENT, RecordKind.EVENT)):
        event = "" if kind is RecordKind.RESPONSE else ("expiring", "revoked")[number - 1]
        record = AuditRecord(
            kind=kind,
            time_us=number,
            lease_id=LEASE,
            event=event,
            rpc="" if event else "CredsService.GenerateCredentials",
            identity="" if event else "ci",
        )
        line, end = link(record.content(), end)
        lines.append(line)
    line, end = link(AuditRecord(kind=RecordKind.EVENT, time_us=9, lease_id=LEASE + "x").content(), end)
    path.write_bytes(b"".join(lines) + line + b'torn {"lease_id":"' + LEASE.encode() + b"\n\x1b[2J\n")


def test_the_history_of_a_lease_is_read_from_the_files(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    lease_file(tmp_path / "audit.log.1")
    path.write_bytes(b"")
    result = run("lease", "history", LEASE, LESSOR_AUDIT_FILE=str(path))
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert ["ci" in lines[0], "expiring" in lines[1], "revoked" in lines[2]] == [True] * 3
    assert len(lines) == 3
    assert len(run("lease", "history", LEASE, "--format", "json", f"{path}.1").output.splitlines()) == 3


def test_a_lease_without_a_record_exits_with_5(file: Path) -> None:
    result = CliRunner().invoke(cli, ["lease", "history", LEASE, str(file)], standalone_mode=False)
    assert result.return_value == 5


def test_history_needs_a_file() -> None:
    assert run("lease", "history", LEASE).exit_code == 2


@pytest.mark.fire
def test_a_file_of_10_gb_is_verified_in_constant_memory(tmp_path: Path) -> None:
    """A sparse file: records, 10 GB of zeros without a newline, and the rest of the records."""
    lines, path = chain_of(40), tmp_path / "huge"
    with path.open("wb") as file:
        file.write(b"".join(lines[:20]))
        file.seek(10 * 10**9, io.SEEK_CUR)
        file.write(b"\n" + b"".join(lines[20:]))
    words = (sys.executable, "-m", "lessor.cli.main", "audit", "verify", "--key", PUBLIC, str(path))

    def bound_memory() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, 256 << 20))

    done = subprocess.run(
        words, capture_output=True, check=False, env={**os.environ}, preexec_fn=bound_memory
    )
    assert done.returncode == 1
    assert b"a line that is not a record" in done.stdout
    assert b"40 records, from 1 to 40" in done.stdout


@pytest.mark.fire
def test_many_records_are_verified_in_constant_memory(tmp_path: Path) -> None:
    """A quarter of a million lines: the same records again and again, with as many findings."""
    path = tmp_path / "many"
    block = b"".join(chain_of(1_000))
    with path.open("wb") as file:
        for _ in range(250):
            file.write(block)
    words = (sys.executable, "-m", "lessor.cli.main", "audit", "verify", "--key", PUBLIC, str(path))

    def bound_memory() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, 256 << 20))

    done = subprocess.run(words, capture_output=True, check=False, preexec_fn=bound_memory)
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) <= audit.MAX_SHOWN + 5
