"""scripts/prepare.py as a user runs it: in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retr_hf.data.domain import load_domain

ROOT = Path(__file__).parents[2]
LOG = "".join(f"u{user},i{(user * 3 + step) % 7},{step}\n" for user in range(8) for step in range(5))


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "scripts" / "prepare.py"), *map(str, arguments)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def run(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(command(*arguments), capture_output=True, text=True, env=environment(), check=False)


@pytest.fixture
def shop(tmp_path):
    (tmp_path / "log.csv").write_text("user,item_id,timestamp\n" + LOG)
    (tmp_path / "items.csv").write_text("item_id,title,brand\n" + "".join(f"i{i},Thing {i},Acme\n" for i in range(7)))
    return [
        "tables", "--interactions", tmp_path / "log.csv", "--items", tmp_path / "items.csv",
        "--columns", "user_id=user", "--text-columns", "title", "brand",
        "--output", tmp_path / "made" / "shop", "--k-core", 2,
    ]  # fmt: skip


def test_tables_from_three_columns(shop, tmp_path):
    result = run(*shop)
    assert result.returncode == 0, result.stderr
    header, row = result.stdout.splitlines()[:2]
    assert header.split()[:4] == ["domain", "users", "items", "interactions"]
    assert row.split()[:4] == ["shop", "8", "7", "40"]
    domain = load_domain(tmp_path / "made" / "shop")
    assert domain.catalog().texts[0] == "Thing 0. Acme."
    assert domain.split("test").timestamps[:5].tolist() == [0, 1, 2, 3, 4]

    again = run(*shop)
    assert again.returncode == 0 and "up to date" in again.stdout
    other = run(*shop, "--seed", 1)
    assert other.returncode == 2 and "--overwrite" in other.stderr
    assert run(*shop, "--seed", 1, "--overwrite").returncode == 0


def test_ids_that_two_files_spell_differently_are_shown(shop, tmp_path):
    items = (tmp_path / "items.csv").read_text()
    (tmp_path / "items.csv").write_text(items.replace("i5,", "I5,").replace("i6,", '"i6 ",'))
    told = run(*shop).stdout
    assert "shop: 2 items without a row in the item table, such as 'i" in told
    assert "shop: 2 rows of the item table not used, such as 'I5', 'i6 '" in told


def test_the_ids_of_the_items_have_a_name_of_their_own(shop, tmp_path):
    (tmp_path / "items.csv").write_text((tmp_path / "items.csv").read_text().replace("item_id,", "id,", 1))
    refused = run(*shop)
    assert refused.returncode == 2 and "--items-id" in refused.stderr
    result = run(*shop, "--items-id", "id")
    assert result.returncode == 0, result.stderr
    assert load_domain(tmp_path / "made" / "shop").catalog().texts[0] == "Thing 0. Acme."


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--k-core", 99], "40 interactions of 8 users with 7 items; pass a smaller --k-core"),
        (["--columns", "user_id=nobody"], "nobody missing"),
        (["--items-id", "title"], "the log names items such as 'i0', the table 'Thing 0'; name the columns"),
        (["--items", "absent.csv"], "no such file"),
        (["--k-core", "many"], "expected a whole number from 0, got 'many'"),
        (["--columns", "user"], "expected OURS=THEIRS"),
        (["--timestamp-unit", "h"], "invalid choice: 'h'"),
    ],
)
def test_mistakes_are_told_without_a_traceback(shop, tmp_path, change, message):
    result = run(*shop, *change)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "made").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX systems")
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_nothing(tmp_path, signal_number):
    # Enough users that the work in the unfinished folder takes seconds.
    (tmp_path / "log.csv").write_text(
        "user_id,item_ids\n"
        + "".join(f"{u},{' '.join(str((u * 7 + s) % 9973) for s in range(6))}\n" for u in range(60_000))
    )
    made = tmp_path / "made"
    process = subprocess.Popen(
        command("tables", "--interactions", tmp_path / "log.csv", "--output", made / "d"),
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("made/.*.partial-*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == (130 if signal_number == signal.SIGINT else 143), errors
    assert not made.exists()
    assert "Traceback" not in errors


def test_synthetic_makes_ten_domains(tmp_path):
    result = run("synthetic", "--size", "tiny", "--output", tmp_path / "world")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 11
    domains = [load_domain(folder) for folder in (tmp_path / "world").iterdir()]
    assert len(domains) == 10
    assert all(len(domain.pivotal("test")[0]) == len(domain.split("test").item_ids) for domain in domains)


@pytest.mark.parametrize("source", [[], ["tables"], ["atomic"], ["synthetic"]])
def test_help(source):
    result = run(*source, "--help")
    assert result.returncode == 0
    assert "--output" in result.stdout


@pytest.fixture
def amazon(tmp_path):
    (tmp_path / "Toys.csv").write_text(
        "".join(f"i{(user * 3 + step) % 7},u{user},5.0,{step}\n" for user in range(8) for step in range(5)) + "broken\n"
    )
    (tmp_path / "meta.json").write_text("".join(f'{{"asin": "i{i}", "title": "Thing {i}"}}\n' for i in range(6)))
    return [
        "amazon2018", "--input", tmp_path / "Toys.csv", "--items", tmp_path / "meta.json",
        "--output", tmp_path / "made" / "scientific", "--k-core", 2,
    ]  # fmt: skip


def test_a_reader_from_the_command_line(amazon, tmp_path):
    result = run(*amazon, "--with-metadata", "--text-fields", "title")
    assert result.returncode == 0, result.stderr
    told = "unreadable lines of Toys.csv, for example: Toys.csv:41: 'broken' (expected 4 fields separated by ',')"
    assert told in result.stderr
    header, ours, published = result.stdout.splitlines()[:3]
    assert ours.split()[:3] == ["scientific", "8", "6"]  # i6 has no metadata
    assert published.split()[:5] == ["published", "(cross-domain)", "8,442", "4,385", "59,427"]
    assert "scientific: 1 unreadable lines of Toys.csv" in result.stdout
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["scientific"]
    domain = load_domain(tmp_path / "made" / "scientific")
    assert set(domain.catalog().texts) == {f"Thing {i}." for i in range(6)}
    assert domain.provenance["options"]["with_metadata"] is True

    again = run(*amazon, "--with-metadata", "--text-fields", "title")
    assert "up to date" in again.stdout and not again.stderr  # a reading would tell of the broken line
    (tmp_path / "meta.json").write_text((tmp_path / "meta.json").read_text() + '{"asin": "i9", "title": "New"}\n')
    changed = run(*amazon, "--with-metadata", "--text-fields", "title")
    assert changed.returncode == 2 and "--overwrite" in changed.stderr
    back = run("to-atomic", tmp_path / "made" / "scientific", "--output", tmp_path / "atomic", "--dataset", "Sci")
    assert back.returncode == 0 and "Sci.train.inter" in back.stdout, back.stderr
    again = run("atomic", tmp_path / "atomic", "--output", tmp_path / "again")
    assert again.returncode == 0, again.stderr
    one, two = (load_domain(path).split("test") for path in (tmp_path / "made" / "scientific", tmp_path / "again"))
    assert one.item_ids.tolist() == two.item_ids.tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--strict"], "Toys.csv:41: 'broken'"),
        (["--min-rating", 6], "none is left; dropped: 1 unreadable lines of Toys.csv, 40 interactions rated below 6"),
        (["--since", "soon"], "expected YYYY-MM-DD"),
        (["--split", "global-time", "--fractions", 1, 1, 1], "sum to 1"),
        (["--download", "raw"], "not allowed with argument --input"),
    ],
)
def test_mistakes_with_a_reader_leave_nothing(amazon, tmp_path, change, message):
    result = run(*amazon, *change)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "made").exists()


@pytest.mark.skipif(os.name != "posix", reason="signals are sent as on POSIX systems")
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_spooling_leaves_nothing(amazon, tmp_path, signal_number):
    (tmp_path / "Toys.csv").write_text("".join(f"i{n % 997},u{n % 4999},5.0,{n}\n" for n in range(3_000_000)))
    made = tmp_path / "made"
    process = subprocess.Popen(
        command(*amazon), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("made/.*.spool-*/*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal_number)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == (130 if signal_number == signal.SIGINT else 143), errors
    assert not made.exists()
    assert "Traceback" not in errors
