"""`init` asks, writes hosts.toml, and begins what the answers ask for."""

import json
import os
import stat
import tomllib

import pytest
from cloud import require_rclone
from jsonschema import Draft7Validator
from person import CTRL_C, DOWN, ENTER, Person

ALL = "init --copies none --keep 5 --at never --notify none"
OWN = """\
# The Pi in the cellar.
[stack]   # mine
folder = "{folder}"   # on the SSD
keep = 3            # few: the card is small
sudo = false

# Far:
[[vaults]]
name = "usb"   # the red one
kind = "folder"
folder = "{usb}"

# The other Pi:
[[hosts]]
name = "pi"
host = "pi"
"""


@pytest.fixture
def new(scheduling_stack):
    """A machine with a stack, and without settings."""
    little_stack = scheduling_stack
    little_stack.settings.unlink()
    little_stack.environment.pop("IOTSTACK_SETTINGS")
    little_stack.environment["TERM"] = "dumb"
    little_stack.runs(nodered="nodered/node-red")
    docker = little_stack.tools / "docker"
    label = f'case "$*" in *working_dir*) echo "{little_stack.folder}"; exit ;; esac'
    docker.write_text(docker.read_text().replace("\n", f"\n{label}\n", 1))
    little_stack.settings = little_stack.settings.parent / ".config/iotstack/hosts.toml"
    little_stack.usb = little_stack.settings.parents[2] / "usb"
    return little_stack


@pytest.fixture
def known(new):
    """A machine whose settings have comments of their owner."""
    new.settings.parent.mkdir(parents=True)
    new.usb.mkdir()
    new.settings.write_text(OWN.format(folder=new.folder, usb=new.usb))
    return new


def person(stack, line="init"):
    return Person(stack.words(line), stack.environment)


def content(stack):
    return tomllib.loads(stack.settings.read_text())


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def test_five_answers_at_a_terminal(new):
    """With Enter for all: the found stack, no copies, and the usual rest; doctor looks, and a backup is made."""
    asks = person(new)
    before = asks.sees("Where is the stack?")
    assert before.strip() == ""
    assert f"1  {new.folder} (1 container)" in asks.sees("Number [1]: ")
    asks.types("")
    asks.sees("Where do second copies go?")
    assert "none yet" in asks.sees("Number [")
    asks.sees("]: ")
    asks.types("")
    asks.sees("Which backups stay")
    asks.sees("Number [1]: ")
    asks.types("")
    asks.sees("A schedule also rehearses")
    asks.sees("[03:00]: ")
    asks.types("25:00")
    asks.sees("must be a time of day")
    asks.sees("[03:00]: ")
    asks.types("3:30")
    asks.sees("Where are problems")
    asks.sees("Number [1]: ")
    asks.types("")
    assert "at       03:30" in asks.sees("Write it? [Y/n] ")
    assert not new.settings.parent.exists()
    asks.types("")
    assert "Installed: in this user's crontab" in asks.sees("What doctor finds:")
    asks.sees("Make the first backup now? [Y/n] ")
    asks.types("y")
    assert asks.ends() == 0
    assert "30 3 * * * " in (new.tools / "crontab.tab").read_text()
    assert list((new.folder / "backups").glob("*.manifest.json"))
    assert content(new) == {"stack": {"folder": "~/IOTstack", "keep": 5}}
    assert (mode(new.settings), mode(new.settings.parent)) == (0o600, 0o700)


def test_editors_find_the_schema(new):
    """In the file beside it, which is that of config.schema."""
    assert new.run(f"{ALL} --stack {new.folder}").returncode == 0
    first, *_ = new.settings.read_text().splitlines()
    assert first == "#:schema ./hosts.schema.json"
    schema = json.loads((new.settings.parent / "hosts.schema.json").read_text())
    assert schema == json.loads(new.run("config.schema").stdout)
    assert list(Draft7Validator(schema).iter_errors(content(new))) == []


def test_places_that_are_found_are_offered(new):
    """A remote of rclone, whose folder is asked for; the vault is usable at once."""
    require_rclone()
    cloud = new.usb / "cloud"
    cloud.mkdir(parents=True)
    config = new.usb / "rclone.conf"
    config.write_text(f"[box]\ntype = alias\nremote = {cloud}\n")
    new.environment["RCLONE_CONFIG"] = str(config)
    asks = person(new, f"init --stack {new.folder} --keep 5 --at never --notify none")
    asks.sees("the cloud box: (a remote of rclone)")
    asks.sees("Number [1]: ")
    asks.types("")
    asks.sees("The folder there [IOTstack/backups]: ")
    asks.types("")
    asks.sees("The vault box answers.")
    asks.sees("Write it? [Y/n] ")
    asks.types("")
    asks.sees("Make the first backup now?")
    asks.types("")
    assert asks.ends() == 0
    assert content(new)["vaults"] == [
        {
            "name": "box",
            "kind": "rclone",
            "remote": "box:IOTstack/backups",
            "keep_daily": 14,
            "keep_monthly": 12,
        }
    ]
    assert list(cloud.glob("IOTstack/backups/*.manifest.json"))


def test_a_folder_for_copies_is_made_on_a_yes(new):
    """By the command that is shown."""
    asks = person(new, f"{ALL.replace('none', f'{new.usb}/iotstack', 1)} --stack {new.folder}")
    asks.sees(f"\n  mkdir -p {new.usb}/iotstack\n")
    asks.sees("Run this now? [Y/n] ")
    assert not new.usb.exists()
    asks.types("y")
    asks.sees("The vault usb answers.")
    asks.sees("Write it? [Y/n] ")
    asks.types("y")
    asks.sees("Make the first backup now? [Y/n] ")
    asks.types("n")
    assert asks.ends() == 0
    assert (new.usb / "iotstack").is_dir()
    assert not (new.folder / "backups").exists()


@pytest.mark.parametrize("answered", range(6))
def test_ctrl_c_writes_nothing(new, answered):
    """At whichever question."""
    asks = person(new)
    for _ in range(answered):
        asks.sees("]: ")
        asks.types("")
    asks.sees("]: " if answered < 5 else "Write it? [Y/n] ")
    asks.presses(CTRL_C)
    assert asks.ends() == 130
    assert "stopped by Ctrl-C" in asks.shown
    assert not new.settings.parent.exists()


def test_no_writes_nothing(new):
    """The exit code is that of a refusal."""
    asks = person(new, f"{ALL} --stack {new.folder}")
    asks.sees("Write it? [Y/n] ")
    asks.types("n")
    assert asks.ends() == 13
    assert not new.settings.exists()


def test_without_a_terminal_each_answer_is_a_flag(new):
    """All that are missing are named at once, and nothing is written."""
    found = new.run("init --stack . --keep 5")
    assert found.returncode == 2
    assert "Missing: --copies, --at, --notify. Not wanted: --copies none, " in found.stderr
    right = {"stack": new.folder, "copies": "none", "keep": 5, "at": "never", "notify": "none"}
    wrong = {"stack": "nowhere", "copies": "nas", "keep": 0, "at": "noon", "notify": "mail"}
    for flag, value in wrong.items():
        flags = " ".join(f"--{each}={given}" for each, given in {**right, flag: value}.items())
        found = new.run(f"init {flags}")
        assert (found.returncode, found.stdout) == (2, "")
        assert f"--{flag}" in found.stderr
    assert not new.settings.parent.exists()


def test_with_all_flags_nothing_is_asked(new):
    """A backup is made if its flag says so; a URL in the file closes it for others."""
    line = f"init --stack {new.folder} --copies {new.usb} --keep 3,daily=7 --keep-copies none --at never"
    new.usb.mkdir()
    found = new.run(f"{line} --notify ntfy:http://127.0.0.1:1/x --first-backup")
    assert found.returncode == 0, found.stderr
    assert content(new) == {
        "stack": {"folder": "~/IOTstack", "keep": 3, "keep_daily": 7},
        "vaults": [{"name": "usb", "kind": "folder", "folder": str(new.usb)}],
        "notify": [{"name": "ntfy", "kind": "ntfy", "url": "http://127.0.0.1:1/x"}],
    }
    assert "http://" not in found.stdout + found.stderr
    assert list(new.usb.glob("*.manifest.json"))


def test_answers_as_now_change_no_byte(known):
    """At a terminal with Enter for all, and with the flags that say the same; its mode stays too."""
    before = known.settings.read_bytes()
    asks = person(known)
    for shown in ("(as now, 1 container)", "as now: usb", "as now: 3", "or never)", "nowhere"):
        asks.sees(shown)
        asks.sees("]: ")
        asks.types("")
    asks.sees("It says so already and is not changed.")
    asks.sees("Make the first backup now? [Y/n] ")
    asks.types("n")
    assert asks.ends() == 0
    for line in (
        f"init --stack {known.folder} --copies {known.usb} --keep 3",
        "init --copies usb",
    ):
        assert known.run(line).returncode == 0
    assert known.settings.read_bytes() == before
    assert mode(known.settings) == 0o644
    assert sorted(os.listdir(known.settings.parent)) == ["hosts.toml"]


def test_only_what_is_answered_differently_changes(known):
    """Comments, order and other tables stay; line ends and mark of Windows too."""
    before = known.settings.read_text()
    assert known.run("init --keep 7 --notify ping:~/ping-url").returncode == 0
    changed = before.replace("keep = 3  ", "keep = 7  ")
    told = "\n# Where problems are reported. The key `on` says which runs are.\n[[notify]]\n"
    told += 'name = "ping"\nkind = "ping"\nurl_file = "~/ping-url"\n'
    assert known.settings.read_text() == changed + told
    assert mode(known.settings) == 0o644
    windows = b"\xef\xbb\xbf" + before.replace("\n", "\r\n").encode()
    known.settings.write_bytes(windows)
    assert known.run("init --keep 7 --notify https://ntfy.sh/x").returncode == 0
    after = known.settings.read_bytes()
    assert after.startswith(windows.replace(b"keep = 3  ", b"keep = 7  "))
    assert after.count(b"\n") == after.count(b"\r\n")
    assert mode(known.settings) == 0o600


def test_init_removes_nothing(known):
    """A vault that is there is removed by its owner alone."""
    found = known.run("init --copies none")
    assert found.returncode == 2
    assert "there is usb already, and init removes nothing" in found.stderr


def test_a_file_with_mistakes_is_not_touched(known):
    """They are all shown, as before any task."""
    known.settings.write_text("[stack]\nkeep = 'x'\nfoldr = 'y'\n")
    found = known.run("init --keep 7")
    assert found.returncode == 2
    assert found.stderr.count("[stack]") == 2
    assert known.settings.read_text() == "[stack]\nkeep = 'x'\nfoldr = 'y'\n"


def test_what_its_checks_refuse_is_not_written(known):
    """As a place that this program would not accept from a file."""
    before = known.settings.read_bytes()
    found = known.run("init --copies rclone:box:a/../b")
    assert found.returncode == 2
    assert "[[vaults]] 'box': remote" in found.stderr
    assert known.settings.read_bytes() == before


def test_a_file_that_is_named_need_not_exist(new, tmp_path):
    """With --settings, and in the variable; a link stays one."""
    own, real = tmp_path / "own.toml", tmp_path / "real.toml"
    assert new.run(f"{ALL} --stack {new.folder} --settings {own}").returncode == 0
    assert new.run(f"list --settings {tmp_path}/none.toml").returncode == 2
    own.rename(real)
    own.symlink_to(real)
    new.environment["IOTSTACK_SETTINGS"] = str(own)
    assert new.run("init --keep 9").returncode == 0
    assert own.is_symlink()
    assert tomllib.loads(real.read_text())["stack"]["keep"] == 9
    assert not new.settings.exists()


def test_lists_to_choose_from(new):
    """With questionary, where the terminal can show them; Ctrl-C is the same there."""
    new.environment |= {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"}
    flags = f"init --stack {new.folder} --copies none --at never"
    asks = person(new, flags)
    asks.sees("Which backups stay on this machine?")
    asks.sees("other rules")
    asks.presses(CTRL_C)
    assert asks.ends() == 130
    asks = person(new, flags)
    asks.sees("other rules")
    asks.presses(f"{DOWN}{ENTER}")
    asks.sees("Where are problems reported?")
    asks.sees("healthchecks.io")
    asks.presses(f"{DOWN}{ENTER}")
    asks.sees("https://ntfy.sh/iotstack-")
    asks.presses(ENTER)
    asks.sees("Write it?")
    asks.presses(ENTER)
    asks.sees("Make the first backup now?")
    asks.presses("n")
    assert asks.ends() == 0
    assert content(new)["stack"]["keep_daily"] == 7
    assert content(new)["notify"][0]["url"].startswith("https://ntfy.sh/iotstack-")


def test_two_receivers_of_one_kind_are_shown_by_name(new):
    """As they are in the file."""
    base = f"init --stack {new.folder} --copies none --keep 5 --at never --notify"
    new.run(f"{base} ntfy:http://127.0.0.1:9/a")
    told = new.run(f"{base} ntfy:http://127.0.0.1:9/b").stdout
    assert f"  notify   {', '.join(each['name'] for each in content(new)['notify'])}\n" in told


def test_after_a_backup_the_first_one_is_not_offered(known):
    """Its last line says how to make one."""
    assert known.run("backup").returncode in (0, 3)
    asks = person(known)
    for shown in ("(as now, 1 container)", "as now: usb", "as now: 3", "or never)", "nowhere"):
        asks.sees(shown)
        asks.sees("]: ")
        asks.types("")
    asks.sees("What doctor finds:")
    assert "first backup" not in asks.sees("To make a backup: inv backup")
    assert asks.ends() in (0, 3)
