"""What hosts.toml may say, and all that is said of its mistakes."""

import json
import os
import re
import tomllib
from pathlib import Path

import folders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.backups.retention import Policy, Span
from iotstack_invoke.core.errors import SettingsError
from iotstack_invoke.core.units import TimeTable
from iotstack_invoke.hosts.ssh_settings import Ssh
from iotstack_invoke.services.known import Kind, Service
from iotstack_invoke.settings.model import (
    KEEP_FIVE,
    Exclusion,
    Hook,
    Hooks,
    Inclusion,
    Influx,
    Settings,
    StackConfig,
    VaultConfig,
    load_settings,
    places_to_look,
    read_settings,
)

PLACES = "must be a path in the stack's folder (not backups/ or restore/), or an absolute path"
DOCKERS = "contains Docker's own folder: images, and files that running containers write. "
DOCKERS += "Named volumes are backed up separately; include only the other paths that you need"
SAMPLE = os.path.join(str(folders.CHECKOUT), "hosts.toml")


@pytest.fixture(autouse=True)
def _at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/pi")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("IOTSTACK_SETTINGS", raising=False)


def read(text):
    return read_settings(tomllib.loads(text), "hosts.toml")


def mistakes(text):
    """Return the mistakes that are told of a file, one a line."""
    with pytest.raises(SettingsError) as refusal:
        read(text)
    first, *listed = str(refusal.value).splitlines()
    assert first == "hosts.toml has mistakes:"
    return [line.removeprefix("  ") for line in listed]


def sample_blocks():
    """Return the lines of the sample, and the ranges of its commented-out blocks."""
    with open(SAMPLE, encoding="utf-8") as stream:
        lines = stream.read().splitlines()
    blocks = []
    for number, line in enumerate(lines):
        if line.startswith("# [") and line.endswith("]"):
            blocks.append([number])
        elif blocks and blocks[-1][-1] == number - 1 and line.startswith("# ") and " = " in line:
            blocks[-1].append(number)
        elif line.startswith("# ") and line[2:].split(" ")[0].isidentifier() and " = " in line:
            blocks.append([number])  # a single key
    return lines, blocks


def uncommented(lines, numbers):
    return "\n".join(
        line.removeprefix("# ") if number in numbers else line for number, line in enumerate(lines)
    )


def test_no_file_means_the_defaults():
    """An empty file is the stack of the seed: ~/IOTstack, five sets, no vault."""
    assert read("") == Settings(
        stack=StackConfig(
            folder="/home/pi/IOTstack", policy=Policy(keep=5), sudo=True, exclusions=()
        ),
        influx=Influx(container="influxdb", limit_s=3600.0),
        vaults=(),
        file="hosts.toml",
    )


def test_every_setting_arrives_where_it_belongs():
    """Each key of the file is one field of a value."""
    assert read("""
        [stack]
        folder = "/srv/IOTstack/"
        keep = 9
        keep_within = "1y2m"
        sudo = false
        [[stack.exclude]]
        path = "volumes/x/log/*"
        reason = "logs"
        [influxdb]
        container = "influx"
        limit_s = 60
        [[vaults]]
        name = "nas"
        kind = "ssh"
        folder = "Dropbox/backups/"
        host = "nas.local"
        user = "wash"
        port = 2222
        key = "~/.ssh/id"
        ssh_config = "~/.ssh/config"
        known_hosts = "~/.ssh/known"
        limit_rate = "2M"
        layout = "by-host"
        [[vaults]]
        name = "usb"
        kind = "folder"
        folder = "~/usb/"
        keep_daily = 1
        keep_weekly = 2
        keep_monthly = 3
        keep_yearly = 4
        keep_at_least = 5
    """) == Settings(
        stack=StackConfig(
            "/srv/IOTstack",
            Policy(keep=9, within=Span(years=1, months=2)),
            False,
            (Exclusion("volumes/x/log/*", "logs"),),
        ),
        influx=Influx("influx", 60.0),
        vaults=(
            VaultConfig(
                "nas",
                "Dropbox/backups",
                Ssh(
                    host="nas.local",
                    user="wash",
                    port=2222,
                    key="/home/pi/.ssh/id",
                    config="/home/pi/.ssh/config",
                    known_hosts="/home/pi/.ssh/known",
                ),
                by_host=True,
                limit_rate=TimeTable(((0, 2_000_000),)),
            ),
            VaultConfig("usb", "/home/pi/usb", None, Policy(0, 1, 2, 3, 4, at_least=5)),
        ),
        file="hosts.toml",
    )


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("backups", "backups"),
        ("~/backups/", "backups"),
        ("~", "."),
        ("~/", "."),
        ("", "."),
        ("/", "/"),
        ("/srv/x//", "/srv/x"),
        ("-x", "./-x"),
        ("~/-x/", "./-x"),
        ("/-x", "/-x"),
    ],
)
def test_a_folder_over_there_begins_in_the_home_of_who_logs_in(written, kept):
    """A relative folder, ~ and ~/ of a vault over SSH mean that home, / means the root; none is an option."""
    told = read(f'[[vaults]]\nname="n"\nkind="ssh"\nhost="h"\nfolder="{written}"')
    assert told.vaults[0].folder == kept


@pytest.mark.parametrize(
    ("written", "kept"),
    [("volumes/x", "volumes/x"), ("./volumes//x/", "volumes/x"), ("services/a/*", "services/a/*")],
)
def test_an_exclusion_is_kept_as_the_archive_names_it(written, kept):
    """However a path is written, it is kept without a leading ./ and a trailing slash."""
    told = read(f'[[stack.exclude]]\npath="{written}"\nreason="r"')
    assert told.stack.exclusions == (Exclusion(kept, "r"),)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[stak]", "'stak' is unknown; did you mean 'stack'?"),
        (
            "[elsewhere]",
            "'elsewhere' is unknown; known: stack, influxdb, vaults, hosts, services, hooks, notify, mqtt, metrics",
        ),
        ("[stack]\nkep = 3", "[stack]: 'kep' is unknown; did you mean 'keep'?"),
        ("[influxdb]\nlimit = 3", "[influxdb]: 'limit' is unknown; did you mean 'limit_s'?"),
        (
            '[[stack.exclude]]\npath="volumes/x"\nreason="r"\nwhy="r"',
            "[[stack.exclude]] number 1: 'why' is unknown; known: path, reason",
        ),
        ("stack = 3", "stack: must be a table: [stack]"),
        ("influxdb = []", "influxdb: must be a table: [influxdb]"),
        ("vaults = 3", "[[vaults]]: must be a list of tables, each under its own [[vaults]]"),
        ("[vaults]", "[[vaults]]: write [[vaults]], not [vaults]"),
        ("[stack]\nkeep = true", "[stack]: keep = True must be a whole number"),
        ("[stack]\nkeep = 2.0", "[stack]: keep = 2.0 must be a whole number"),
        ('[stack]\nkeep = "5"', "[stack]: keep = '5' must be a whole number"),
        (
            "[stack]\nkeep = 0",
            "[stack]: keep = 0 must be at least 1 if no other rule keeps a backup",
        ),
        ("[stack]\nkeep = -1\nkeep_daily = 1", "[stack]: keep = -1 must be at least 0"),
        ("[stack]\nkeep_daily = true", "[stack]: keep_daily = True must be a whole number"),
        ("[stack]\nkeep_at_least = 0", "[stack]: keep_at_least = 0 must be at least 1"),
        ("[stack]\nkeep_within = 30", "[stack]: keep_within = 30 must be a text in quotes"),
        (
            '[stack]\nkeep_within = "30"',
            "[stack]: keep_within = '30' must be a time span such as 30d, 6mo or 1y2mo (y, mo, w, d, h)",
        ),
        (
            '[[vaults]]\nname="nas"\nkind="folder"\nfolder="/f"\nkeep_at_least = 2',
            "[[vaults]] 'nas': keep = 0 must be at least 1 if no other rule keeps a backup",
        ),
        (
            '[[vaults]]\nname="nas"\nkind="folder"\nfolder="/f"\nkeep_yearly = -2',
            "[[vaults]] 'nas': keep_yearly = -2 must be at least 0",
        ),
        ("[stack]\nsudo = 1", "[stack]: sudo = 1 must be true or false"),
        ("[stack]\nfolder = 1", "[stack]: folder = 1 must be a text in quotes"),
        ('[stack]\nfolder = "IOTstack"', "[stack]: folder = 'IOTstack' must begin with / or ~"),
        ("[influxdb]\nlimit_s = true", "[influxdb]: limit_s = True must be a whole number"),
        (
            "[influxdb]\nlimit_s = 0",
            "[influxdb]: limit_s = 0 must be a number of seconds, more than 0 and at most 31,622,400 (a year)",
        ),
        (
            "[influxdb]\nlimit_s = nan",
            "[influxdb]: limit_s = nan must be a number of seconds, more than 0 and at most 31,622,400 (a year)",
        ),
        (
            "[influxdb]\nlimit_s = inf",
            "[influxdb]: limit_s = inf must be a number of seconds, more than 0 and at most 31,622,400 (a year)",
        ),
        (
            '[influxdb]\ncontainer = "--privileged"',
            "[influxdb]: container = '--privileged' is not a valid container name",
        ),
    ],
)
def test_each_mistake_is_told_in_one_line(text, told):
    """A name, a type or a value that cannot be is told where it stands, and how it should be."""
    assert mistakes(text) == [told]


@pytest.mark.parametrize(
    "path",
    [
        *("volumes", "volumes/", "", "/", "//", "/a/../b", "volumes/../x", "backups", "restore"),
        *("*", "v*/x", "volume:", "volume:-x", "volume:a:b"),
        *("./volumes", "./volumes/", "volumes/.", "volumes//", ".//services/./", "./backups"),
        *("./*", "./v*", "./[sv]*", "?olumes", ".//**"),
    ],
)
def test_an_exclusion_must_name_something_that_a_backup_holds(path):
    """Nobody leaves the whole of volumes/ out by a slip, or what no part could hold."""
    assert mistakes(f'[[stack.exclude]]\npath = "{path}"\nreason = "r"') == [
        f"[[stack.exclude]]: path = {path!r} {PLACES}, or volume:NAME"
    ]


@pytest.mark.parametrize(
    "path",
    [
        "volumes/x",
        "homeassistant",
        "backups/x",
        "/opt/x",
        "/opt/x/*",
        "volume:a_b",
        "volume:a/c*",
        "volume:a:/b",
    ],
)
def test_an_exclusion_may_be_of_the_stack_of_a_disk_or_of_a_volume(path):
    """Whatever a container may mount can be left out, with a reason."""
    told = read(f'[[stack.exclude]]\npath = "{path}"\nreason = "r"')
    assert told.stack.exclusions == (Exclusion(path, "r"),)


@pytest.mark.parametrize("path", ["./volumes/x", "volumes//x/", "volumes/./x"])
def test_an_exclusion_may_be_spelled_in_any_way(path):
    """It means what is packed under that name."""
    row = f'[[stack.exclude]]\npath = "{path}"\nreason = "r"'
    assert read(row).stack.exclusions == (Exclusion("volumes/x", "r"),)


@pytest.mark.parametrize("path", ["./volumes", "services/", "./*", "v*", "."])
def test_a_row_of_a_service_is_no_folder_of_all(path):
    """What is said of one service would be said of each."""
    row = f'[[services]]\nname = "x"\nkind = "skip"\nreason = "r"\npaths = ["{path}"]'
    assert mistakes(row) == [
        f"[[services]] 'x': path {path!r} must be a path in the stack's folder, such as volumes/NAME"
    ]


@pytest.mark.parametrize("kept", ["", "/", "/backups", "/./backups/x", "/restore/"])
def test_nothing_is_restored_where_backups_and_restores_keep_theirs(kept):
    """Nor over the stack as a whole."""
    row = '[[stack.include]]\npath = "/opt"\nrestore_to = '
    goal = f"/srv/stack{kept}"
    (told,) = mistakes(f'[stack]\nfolder = "/srv/stack/"\n{row}"{goal}"')
    assert "is the stack's folder, or is inside a folder that backups or restores use" in told
    assert read(f'[stack]\nfolder = "/srv/stack"\n{row}"/srv/stack/volumes/x"').stack.inclusions


@pytest.mark.parametrize("path", ["/proc/self", "/sys", "//proc", "/proc/./1"])
def test_what_the_kernel_tells_is_in_no_backup(path):
    """A dry run would show what no run can pack."""
    (told,) = mistakes(f'[[stack.include]]\npath = "{path}"')
    assert told.endswith("contains no files, only data of the running kernel")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[stack]\nfolder = '/{name}'", "[stack]: folder has a name of more than 255 bytes: "),
        ("[stack]\nfolder = '/{path}'", "[stack]: folder is longer than 3,500 bytes: '/a/a"),
        ("[[hosts]]\nname='p'\nhost='h'\nkey='~/{name}'", "[[hosts]] number 1: key has a name"),
        ("[[stack.include]]\npath='/{name}'", "[stack]: include number 1: path has a name"),
        ("[[vaults]]\nname='v'\nkind='folder'\nfolder='/{name}'", "[[vaults]] number 1: folder"),
    ],
)
def test_a_path_that_no_file_system_takes_is_a_mistake(text, told):
    """It is told at once, and shown no further than it helps."""
    for letter in ("a", "ü"):
        (found,) = mistakes(text.format(name=letter * 300, path="a/" * 3000))
        assert found.startswith(told)
        assert len(found) < 150


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ("[influxdb]\nlimit_s = {}", "limit_s"),
        ("[hooks]\nafter_backup = [{{ run = ['a'], limit_s = {} }}]", "limit_s"),
        ("[[vaults]]\nname='v'\nkind='ssh'\nhost='h'\nfolder='f'\nport = {}", "port"),
        ("[[vaults]]\nname='v'\nkind='ssh'\nhost='h:{}'\nfolder='f'", "the port of host"),
        ("[stack]\nkeep = {}", "keep"),
        ("[[vaults]]\nname='v'\nkind='folder'\nfolder='/v'\nkeep_weekly = {}", "keep_weekly"),
        ("[stack]\nkeep_previous = {}", "keep_previous"),
        ("[stack]\nkeep_previous_days = {}", "keep_previous_days"),
    ],
)
def test_a_number_that_has_no_end_is_a_mistake(row, key):
    """What counts seconds, days or sets cannot take any number: the largest one is told."""
    (told,) = mistakes(row.format(99_999_999_999_999))
    assert f": {key} " in told
    assert re.search(r"(at most|and) [0-9,]{5,}", told)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ("", "[[stack.include]] number 1: 'path' is missing"),
        ('path = "backups"', f"[[stack.include]]: path = 'backups' {PLACES}"),
        ('path = "volumes"', f"[[stack.include]]: path = 'volumes' {PLACES}"),
        ('path = "/"', f"[[stack.include]]: path = '/' {PLACES}"),
        (
            'path = "x"\nrestore_to = "/srv/x"',
            "[[stack.include]]: path = 'x' is restored in the stack; restore_to is for absolute paths",
        ),
        (
            'path = "/opt/x"\nrestore_to = "srv"',
            "[[stack.include]]: path = '/opt/x': restore_to = 'srv' must be an absolute path, and not / itself",
        ),
        *(
            (f'path = "{path}"', f"[[stack.include]]: path = '{path}' {DOCKERS}")
            for path in (
                "/var",
                "/var/lib/docker/",
                "/var/lib/docker/volumes",
                "/var/lib/docker/x",
            )
        ),
        (
            'path = "/opt"\n[[stack.include]]\npath = "/opt/x"\nrestore_to = "/opt/y"',
            "[[stack.include]]: path = '/opt/x': restore_to = '/opt/y' is inside '/opt', the goal of another row",
        ),
    ],
)
def test_what_is_wrong_with_an_inclusion_is_told(row, told):
    """It is of the stack's folder or absolute; only an absolute one can be restored elsewhere."""
    assert mistakes(f"[[stack.include]]\n{row}") == [told]


@pytest.mark.parametrize(
    "table", ["[[stack.include]]", "[[hosts]]\nname='p'\nhost='p'\n[[hosts.include]]"]
)
def test_inclusions_are_read_with_where_they_are_restored(table):
    """Of this machine's stack, and of that of another machine."""
    told = read(f'{table}\npath = "/opt/x/"\nrestore_to = "/srv/x"')
    owner = told.machines[0] if told.machines else told.stack
    assert owner.inclusions == (Inclusion("/opt/x", "/srv/x"),)
    assert read('[[stack.include]]\npath = "scripts"').stack.inclusions == (Inclusion("scripts"),)


def test_a_path_of_the_home_is_written_out(monkeypatch):
    """As in `folder`; of another machine nobody knows it here, and a name with ~ is a name."""
    monkeypatch.setenv("HOME", "/home/pi")
    rows = (
        '.include]]\npath = "~/share"\nrestore_to = "~/x"\n[[{0}.exclude]]\npath = "~/films/*"\n'
    )
    rows += 'reason = "x"\n[[{0}.exclude]]\npath = "~old"\nreason = "x"'
    stack = read("[[stack" + rows.format("stack")).stack
    assert stack.inclusions == (Inclusion("/home/pi/share", "/home/pi/x"),)
    assert [each.path for each in stack.exclusions] == ["/home/pi/films/*", "~old"]
    told = "must be an absolute path: the home folder there is not known here"
    assert mistakes("[[hosts]]\nname='p'\nhost='p'\n[[hosts" + rows.format("hosts")) == [
        f"[[hosts]] 'p': [[hosts.exclude]]: path = '~/films/*' {told}",
        f"[[hosts]] 'p': [[hosts.include]]: path = '~/share' {told}",
        f"[[hosts]] 'p': [[hosts.include]]: restore_to = '~/x' {told}",
    ]


def test_an_exclusion_needs_a_reason():
    """What is left out says why, in every backup's manifest."""
    assert mistakes('[[stack.exclude]]\npath = "volumes/x"\nreason = " "') == [
        "[[stack.exclude]]: path = 'volumes/x' needs a reason"
    ]
    assert mistakes('[[stack.exclude]]\npath = "volumes/x"') == [
        "[[stack.exclude]] number 1: 'reason' is missing"
    ]


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("volumes/x", ["volumes/x", "volumes/x/a/b"], ["volumes", "volumes/xy", "volumes/a/x"]),
        ("volumes/x/*", ["volumes/x", "volumes/x/a/b"], ["volumes", "volumes/xy"]),
        ("volumes/x/log/*", ["volumes/x/log", "volumes/x/log/a"], ["volumes/x"]),
        ("volumes/.old-*", ["volumes/.old-1", "volumes/.old-1/a"], ["volumes/old-1"]),
        ("volumes/*/log", ["volumes/a/log", "volumes/a/b/log/c"], ["volumes/a", "volumes/log"]),
    ],
)
def test_an_exclusion_tells_what_it_leaves_out_whole(pattern, inside, outside):
    """A path is out where tar packs nothing of it; its empty folder may be there."""
    exclusion = Exclusion(pattern, "r")
    assert [each for each in (*inside, *outside) if exclusion.leaves_out(each)] == inside


@pytest.mark.parametrize("name", ["", "two words", "a/b", "nas:", "2nd", "-nas"])
def test_a_vault_has_a_name_that_can_be_a_role(name):
    """A vault's name is one word; what is told are the rules that it breaks."""
    assert mistakes(f'[[vaults]]\nname="{name}"\nkind="folder"\nfolder="/f"') == [
        f"[[vaults]] '{name}': a name has only letters, digits, _ and -, and begins with a letter"
    ]


@pytest.mark.parametrize("name", ["here-copies", "nas-2", "nas_2", "Köln", "_", "pi-usb"])
def test_a_dash_is_allowed_in_a_vaults_name(name):
    """As in the names of machines; also behind a word that no vault can bear alone."""
    vault = f'[[vaults]]\nname="{name}"\nkind="folder"\nfolder="/f"\n'
    assert [each.name for each in read(vault).vaults] == [name]


@pytest.mark.parametrize("name", ["pi", "here", "vault", "all", "from"])
def test_a_word_that_means_something_else_is_no_vaults_name(name):
    """The message names these words, and no rule besides."""
    assert mistakes(f'[[vaults]]\nname="{name}"\nkind="folder"\nfolder="/f"') == [
        f"[[vaults]] '{name}': the names all, dump, from, here, media, pi, vault are reserved"
    ]


def test_two_vaults_have_two_names():
    """The second vault of one name is the mistake."""
    vault = '[[vaults]]\nname="nas"\nkind="folder"\nfolder="/f"\n'
    assert len(read(vault).vaults) == 1
    assert mistakes(vault * 2) == ["[[vaults]] 'nas': names must be unique"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('kind="ftp"\nfolder="f"', ["kind = 'ftp' must be 'ssh', 'folder' or 'rclone'"]),
        ('kind="ssh"\nfolder="f"', ["'host' is missing"]),
        ('kind="ssh"\nfolder="f"\nhost=""', ["'host' is missing"]),
        (
            'kind="ssh"\nfolder="f"\nhost="-oProxyCommand=x"',
            ["host and user cannot begin with '-'"],
        ),
        (
            'kind="ssh"\nfolder="f"\nhost="h"\nuser="-l"',
            ["host and user cannot begin with '-'"],
        ),
        (
            'kind="ssh"\nfolder="f"\nhost="h"\nport=70000',
            ["port = 70000 must be between 1 and 65535"],
        ),
        ('kind="folder"\nfolder="f"', ["folder = 'f' must begin with / or ~"]),
        (
            'kind="folder"\nfolder="/f"\nhost="h"\nkey="k"',
            ["'host' is for kind = 'ssh'", "'key' is for kind = 'ssh'"],
        ),
        ('kind="ssh"\nfolder="f"\nhost="h"\nmount="/m"', ["'mount' is for kind = 'folder'"]),
        (
            'kind="folder"\nfolder="/f"\nmount="/"',
            ["mount = '/' must be a folder below /, where a drive is mounted"],
        ),
        (
            'kind="folder"\nfolder="/media/usb2/x"\nmount="/media/usb"',
            ["folder = '/media/usb2/x' must lie below mount = '/media/usb'"],
        ),
        (
            'kind="folder"\nfolder="/f/m"\nmount="m"',
            ["mount = 'm' must be a folder below /, where a drive is mounted"],
        ),
        ('kind="folder"\nfolder="/f"\nremote="a:b"', ["'remote' is for kind = 'rclone'"]),
        (
            'kind="rclone"\nremote="a:b"\nfolder="/f"\nhost="h"',
            ["'folder' is not for kind = 'rclone'", "'host' is not for kind = 'rclone'"],
        ),
        (
            'kind="folder"\nfolder="/f"\nwrite_once=true',
            ["'write_once' is for kind = 'rclone'"],
        ),
        (
            'kind="rclone"\nremote="a:b"\nwrite_once=true\nkeep=3\nkeep_daily=7',
            [
                (
                    "keep, keep_daily: not allowed with write_once = true, because nothing can be removed there; let the lifecycle rules of the bucket remove old files"
                )
            ],
        ),
        (
            'kind="folder"\nfolder="/f"\nlayout="host"',
            ["layout = 'host' must be 'flat' or 'by-host'"],
        ),
        (
            'kind="folder"\nfolder="/f"\nlimit_rate="2 MB"',
            [
                (
                    "limit_rate = '2 MB' must be bytes a second, such as 500K or 2M, or a time table, "
                    "such as 08:00,512K 23:00,off"
                )
            ],
        ),
        (
            'kind="folder"\nfolder="/f"\nlimit_rate="08:00,512K 25:00,off"',
            [
                (
                    "limit_rate = '08:00,512K 25:00,off' has '25:00,off', which must be a time and bytes "
                    "a second, or off, such as 08:00,512K or Mon-23:00,off"
                )
            ],
        ),
    ],
)
def test_a_vault_is_told_what_its_kind_needs(lines, told):
    """What a kind of vault must have, and what it cannot have, is told by the vault's name."""
    assert mistakes(f'[[vaults]]\nname="nas"\n{lines}') == [f"[[vaults]] 'nas': {t}" for t in told]


def test_a_vault_in_a_cloud_is_a_remote_and_a_folder_in_it():
    """It is far away, begins with the remote's name, and has a policy as any other."""
    (vault,) = read(
        '[[vaults]]\nname = "box"\nkind = "rclone"\nremote = "my box:IOTstack/backups/"\nkeep = 3'
    ).vaults
    assert vault == VaultConfig(
        "box", "my box:IOTstack/backups", None, Policy(keep=3), remote="my box:"
    )
    assert vault.is_far


@pytest.mark.parametrize(
    "remote",
    [
        "",
        "dropbox",
        "dropbox:",
        "dropbox:/",
        "/srv/x",
        ":webdav,user=x,pass=y:z",
        "a,pass=b:c",
        "-x:y",
        "dav:../x",
    ],
)
def test_a_remote_that_is_none_is_told(remote):
    """A remote has a name and a folder; one that is written out would show its password to all."""
    (told,) = mistakes(f'[[vaults]]\nname="box"\nkind="rclone"\nremote="{remote}"')
    assert told == (
        f"[[vaults]] 'box': remote = {remote!r} must name a remote of `rclone config` and a "
        "folder in it: 'dropbox:IOTstack/backups'"
    )


def test_a_service_of_ones_own_goes_into_the_table():
    """A row adds a service, or changes what it names of the package's row of its name."""
    told = read("""
        [influxdb]
        container = "flux"
        [[services]]
        name = "cache"
        kind = "skip"
        reason = "made again"
        containers = ["redis", "valkey"]
        images = ["mine"]
        paths = ["./volumes/redis/", "services/x"]
        first = ["grafana"]
        notes = "Say so."
        [[services]]
        name = "grafana"
        first = ["cache"]
    """)
    cache, grafana = told.services
    assert cache == Service(
        *("cache", Kind.SKIP, ("mine",), ("redis", "valkey"), ("volumes/redis", "services/x")),
        first=("grafana",),
        reason="made again",
        notes="Say so.",
        own=True,
    )
    assert (grafana.kind, grafana.first, grafana.own) == (Kind.SQLITE, ("cache",), True)
    rows = {each.name: each for each in told.table.services}
    assert (rows["cache"], rows["grafana"]) == (cache, grafana)
    assert rows["influxdb"].containers == ("flux",)
    assert len(read("").table.services) == len(rows) - 1


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('name="x"', ["'kind' is missing, and there is no known service of that name"]),
        (
            'name="x"\nkind="safe"',
            [
                "kind = 'safe' must be one of copy-safe, sqlite, payload, unsure, dump, stop, recipe, skip",
            ],
        ),
        (
            'name="x"\nkind="dump"',
            ["dump = '' must be one of influxdb, influxdb2, mariadb, postgres"],
        ),
        (
            'name="x"\nkind="dump"\ndump="mongo"',
            ["dump = 'mongo' must be one of influxdb, influxdb2, mariadb, postgres"],
        ),
        ('name="x"\nkind="stop"\ndump="mariadb"', ["'dump' is for kind = 'dump'"]),
        ('name="x"\nkind="skip"', ["kind = 'skip' needs a reason"]),
        ('name="x"\nkind="skip"\nreason=" "', ["kind = 'skip' needs a reason"]),
        (
            'name="x"\nkind="stop"\npaths=["volumes", "volumes/../x", "/volumes/x", "backups/x"]',
            [
                f"path {each!r} must be a path in the stack's folder, such as volumes/NAME"
                for each in ("volumes", "volumes/../x", "/volumes/x", "backups/x")
            ],
        ),
        (
            'name="x"\nkind="stop"\ncontainers=["a", 1]',
            ["containers = ['a', 1] must be a list of texts in quotes"],
        ),
        (
            'name="x"\nkind="stop"\nfirst=["grafanna"]',
            ["there is no service 'grafanna' to come first"],
        ),
        (
            'name="influxdb"\nkind="stop"',
            ["influxdb is dumped already, because [influxdb] container names it"],
        ),
        (
            'name="x"\nkind="dump"\ndump="influxdb"',
            ["the InfluxDB to dump is set by [influxdb] container"],
        ),
    ],
)
def test_a_service_is_told_what_its_kind_needs(lines, told):
    """What a row must have, and what it cannot have, is told by its name."""
    (name,) = re.findall(r'name="(\w+)"', lines)
    assert mistakes(f"[[services]]\n{lines}") == [f"[[services]] '{name}': {t}" for t in told]


@pytest.mark.parametrize("name", ["", "-x", "../x", "a/b", "a b"])
def test_a_service_has_the_name_of_a_container(name):
    """A name becomes a folder of volumes/, so it is one word."""
    assert mistakes(f'[[services]]\nname="{name}"\nkind="stop"') == [
        f"[[services]] '{name}': its name must be one word of letters, digits, '_', '.' and '-'"
    ]


@pytest.mark.parametrize(
    ("leave_out", "told"),
    [
        ('["/data/x"]', "'/data/x' must be a table with inside and reason"),
        (
            '[{ inside = "/data/x" }]',
            "{'inside': '/data/x'} must be a table with inside and reason",
        ),
        ('[{ inside = "data/x", reason = "r" }]', "'data/x' must be a path below / of its"),
        ('[{ inside = "/data/../x", reason = "r" }]', "'/data/../x' must be a path below / of"),
        ('[{ inside = "/*", reason = "r" }]', "'/*' must be a path below / of its container"),
        ('[{ inside = "/", reason = "r" }]', "'/' must be a path below / of its container"),
        ('[{ inside = 1, reason = "r" }]', "1 must be a path below / of its container"),
        ('[{ inside = "/data/x", reason = " " }]', "inside = '/data/x' needs a reason"),
        (
            '[{ inside = "/x", reason = "r", usual = "/x" }]',
            "usual = '/x' must lie below services/",
        ),
    ],
)
def test_what_a_row_leaves_out_is_a_path_of_its_container(leave_out, told):
    """Each is a path below / with a reason, and never all of a container."""
    (mistake,) = mistakes(f'[[services]]\nname="mosquitto"\nleave_out = {leave_out}')
    assert mistake.startswith("[[services]] 'mosquitto': leave_out: ")
    assert told in mistake


def test_what_is_left_out_by_default_can_be_packed():
    """One key turns it off for a stack, an empty list for one service."""
    assert read("").stack.exclude_defaults
    assert not read("[stack]\nexclude_defaults = false").stack.exclude_defaults
    assert mistakes('[stack]\nexclude_defaults = "no"') == [
        "[stack]: exclude_defaults = 'no' must be true or false"
    ]
    (row,) = read('[[services]]\nname="mosquitto"\nleave_out = []').services
    assert row.leave_out == ()
    (row,) = read('[[services]]\nname="mosquitto"\nnotes = "x"').services
    assert row.leave_out[0].inside == "/mosquitto/data/*"


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        (
            {"name": "a", "containers": ["db", "x"]},
            {"name": "b", "containers": ["db"]},
            "container db",
        ),
        ({"name": "db"}, {"name": "b", "containers": ["db"]}, "container db"),
        (
            {"name": "a", "images": ["redis"]},
            {"name": "b", "images": ["bitnami/redis"]},
            "image redis",
        ),
    ],
)
def test_two_rows_do_not_say_two_things_of_one_container(first, second, shared):
    """Rows of the owner that name the same container, or its image, agree on how it is saved."""

    def rows(other):
        listed = ({**first, "kind": "stop"}, {**second, "kind": other})
        return "".join(
            "[[services]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in each.items())
            for each in listed
        )

    assert mistakes(rows("copy-safe")) == [
        (
            f"[[services]] number 1 '{first['name']}' and number 2 'b' both say how {shared} is "
            "saved: kind = 'stop' and kind = 'copy-safe'; remove one of them"
        )
    ]
    assert len(read(rows("stop")).services) == 2


def test_a_name_goes_before_an_image():
    """A row for one container, and another for all others of its image, are no conflict."""
    told = read("""
        [[services]]
        name = "cache"
        kind = "stop"
        [[services]]
        name = "others"
        kind = "copy-safe"
        images = ["redis"]
    """)
    assert len(told.services) == 2


@pytest.mark.parametrize("path", ["volumes/*", "volumes/**", "./volumes/?*", "services/[!.]*"])
def test_no_service_keeps_all_there_is(path):
    """A row with skip leaves out the folders of a service, and never the whole of volumes/."""
    row = f'[[services]]\nname="x"\nkind="skip"\nreason="r"\npaths=["volumes/x/*", "{path}"]'
    plain = path.removeprefix("./")
    assert mistakes(row) == [
        (
            f"[[services]] 'x': path {plain!r} leaves out all of {plain.partition('/')[0]}/; name only the folders of this service, or use [[stack.exclude]] to leave out everything"
        )
    ]
    assert read(row.replace("skip", "stop"))
    assert read(row.replace(path, "volumes/*/cache"))
    assert read(f'[[stack.exclude]]\npath = "{path}"\nreason = "r"')


def test_two_services_have_two_names():
    """The second row of one name is the mistake."""
    row = '[[services]]\nname="x"\nkind="stop"\n'
    assert mistakes(row * 2) == ["[[services]] 'x': names must be unique"]
    assert mistakes('[[services]]\nkind="stop"') == ["[[services]] number 1: 'name' is missing"]


def test_all_mistakes_are_told_together():
    """Unknown names, wrong types and impossible values of the whole file come in one message."""
    assert mistakes("""
        colour = "red"
        [stack]
        kepp = 3
        keep = 0
        sudo = "no"
        folder = "here"
        [[stack.exclude]]
        path = "backups"
        [influxdb]
        limit_s = -1
        container = 3
        [[vaults]]
        name = "pi"
        kind = "ssh"
        port = "22"
        [[vaults]]
        kind = "folder"
        folder = "usb"
    """) == [
        "'colour' is unknown; known: stack, influxdb, vaults, hosts, services, hooks, notify, mqtt, metrics",
        "[stack]: 'kepp' is unknown; did you mean 'keep'?",
        "[stack]: sudo = 'no' must be true or false",
        "[influxdb]: container = 3 must be a text in quotes",
        "[[vaults]] number 1: port = '22' must be a whole number",
        "[[vaults]] number 1: 'folder' is missing",
        "[[vaults]] number 2: 'name' is missing",
        "[[stack.exclude]] number 1: 'reason' is missing",
        "[stack]: keep = 0 must be at least 1 if no other rule keeps a backup",
        "[stack]: folder = 'here' must begin with / or ~",
        f"[[stack.exclude]]: path = 'backups' {PLACES}, or volume:NAME",
        "[influxdb]: limit_s = -1 must be a number of seconds, more than 0 and at most 31,622,400 (a year)",
        "[[vaults]] 'pi': the names all, dump, from, here, media, pi, vault are reserved",
        "[[vaults]] 'pi': 'host' is missing",
        "[[vaults]] 'vault2': folder = 'usb' must begin with / or ~",
    ]


# Hooks


def test_hooks_are_tables_or_lists_of_words():
    """Both forms of a hook are read, for this machine and for another; what is left out is told."""
    told = read("""
        [hooks]
        before_backup = [{ run = ["dump", "--all"], limit_s = 600, may_fail = true }, ["say", ""]]
        after_backup = [{ run = ["say"] }]
        [[hosts]]
        name = "test-pi"
        host = "h"
        [hosts.hooks]
        before_restore = [["sh", "-c", "exit 0"]]
        after_restore = []
    """)
    assert told.hooks == Hooks(
        before_backup=(Hook(("dump", "--all"), 600.0, may_fail=True), Hook(("say", ""))),
        after_backup=(Hook(("say",), 60.0, may_fail=False),),
    )
    assert told.machines[0].hooks == Hooks(before_restore=(Hook(("sh", "-c", "exit 0")),))
    assert read("").hooks == Hooks()


NO_WORDS = "'run' must be a list of words that begins with the program"


@pytest.mark.parametrize(
    ("hook", "told"),
    [
        (
            '"say \\"it\\""',
            'it must be a list of words, such as ["sh", "-c", "…"] for a line of a shell',
        ),
        (
            '{ run = "a" }',
            'it must be a list of words, such as ["sh", "-c", "…"] for a line of a shell',
        ),
        ("[]", NO_WORDS),
        ("{}", NO_WORDS),
        ("3", NO_WORDS),
        ('["say", 3]', NO_WORDS),
        ('{ run = { a = "b" } }', NO_WORDS),
        ('[""]', "its first word must be a program: its name or its absolute path"),
        ('["~/say"]', "its first word must be a program: its name or its absolute path"),
        ('["A=b", "say"]', "its first word must be a program: its name or its absolute path"),
        ('{ run = ["a"], limit = 1 }', "'limit' is unknown; did you mean 'limit_s'?"),
        ('{ run = ["a"], limit_s = true }', "limit_s = True must be a whole number"),
        (
            '{ run = ["a"], limit_s = 0 }',
            "limit_s = 0 must be a number of seconds, more than 0 and at most 31,622,400 (a year)",
        ),
        (
            '{ run = ["a"], limit_s = inf }',
            "limit_s = inf must be a number of seconds, more than 0 and at most 31,622,400 (a year)",
        ),
        ('{ run = ["a"], may_fail = 1 }', "may_fail = 1 must be true or false"),
    ],
)
@pytest.mark.parametrize(
    ("start", "title"),
    [
        ("[hooks]", "[hooks]"),
        (
            '[[hosts]]\nname = "p"\nhost = "h"\n[hosts.hooks]',
            "[[hosts]] 'p': [hosts.hooks]",
        ),
    ],
)
def test_a_hook_is_words_and_never_a_shell_line(start, title, hook, told):
    """A text is refused with the list to write; so is all that could not be run."""
    assert mistakes(f'{start}\nafter_restore = [["a"], {hook}]') == [
        f"{title}: after_restore number 2: {told}"
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hooks = 3", "hooks: must be a table: [hooks]"),
        ("[hooks]\nbefore_backup = 3", "[hooks]: before_backup must be a list"),
        (
            '[hooks]\nafter_backup = ["say"]',
            '[hooks]: after_backup number 1: it must be a list of words, such as ["sh", "-c", "…"] for a line of a shell',
        ),
        (
            "[hooks]\nbefor_backup = []",
            "[hooks]: 'befor_backup' is unknown; did you mean 'before_backup'?",
        ),
        (
            '[[hosts]]\nname = "p"\nhost = "h"\nhooks = 3',
            "[[hosts]] number 1: hooks = 3 must be a table",
        ),
        (
            '[[hosts]]\nname = "p"\nhost = "h"\nhooks = { before_backup = [[]] }',
            "[[hosts]] 'p': [hosts.hooks]: before_backup number 1: 'run' must be a list of words that begins with the program",
        ),
    ],
)
def test_hooks_are_lists_in_tables(text, told):
    """The names of hooks, where they stand and what holds them are told like all mistakes."""
    assert mistakes(text) == [told]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            '[hooks]\nbefore_backup = [["a"], ["b", "c\\u0000"]]',
            "[hooks]: before_backup number 2 number 2",
        ),
        (
            '[hooks]\nafter_backup = [{ run = ["c\\u0000"] }]',
            "[hooks]: after_backup number 1: run number 1",
        ),
        (
            '[[hosts]]\nname = "p"\nhost = "h"\n[hosts.hooks]\nafter_restore = [["c\\u0000"]]',
            "[[hosts]] number 1: hooks: after_restore number 1 number 1",
        ),
        ('[stack]\nfolder = "/c\\u0000"', "[stack]: folder"),
        (
            '[[services]]\nname = "x"\nkind = "stop"\npaths = ["volumes/c\\u0000"]',
            "[[services]] number 1: paths number 1",
        ),
    ],
)
def test_no_text_holds_what_no_program_can_be_given(text, told):
    """A NUL character is refused with its place, wherever it stands."""
    (mistake,) = mistakes(text)
    assert re.fullmatch(re.escape(f"{told} holds a NUL character: ") + r"'.*c\\x00'", mistake)


ANY = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
WORDS = st.sampled_from(["", "x", "/x", "~", "~/x", "-x", "volumes/x", "..", "ssh", "folder"])


def tables(*keys):
    """Return tables with some of these keys, most of their values being near to good ones."""
    values = WORDS | st.integers(-1, 70000) | st.booleans() | ANY
    return st.dictionaries(st.sampled_from(keys) | st.text(max_size=5), values, max_size=9)


EXCLUDE = st.lists(tables("path", "reason") | ANY, max_size=2)
STACK = st.builds(
    dict, tables("folder", "keep", "keep_daily", "keep_within", "sudo"), exclude=EXCLUDE | ANY
)
INFLUX = tables("container", "limit_s")
VAULTS = st.lists(tables("name", "kind", "folder", "host", "user", "port", "key", "keep") | ANY)
HOOK = tables("run", "limit_s", "may_fail") | st.lists(WORDS, max_size=2) | ANY
HOOKS = st.dictionaries(
    st.sampled_from(["before_backup", "after_restore"]), st.lists(HOOK, max_size=2) | ANY
)
HOSTS = st.lists(
    st.builds(dict, tables("name", "host", "role"), hooks=HOOKS | ANY) | ANY, max_size=2
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "stack": STACK | ANY,
            "influxdb": INFLUX | ANY,
            "vaults": VAULTS | ANY,
            "hosts": HOSTS | ANY,
            "hooks": HOOKS | ANY,
        },
    )
)
def test_whatever_a_file_says_it_is_read_or_refused(content):
    """No content of a file ends in anything but settings or a list of mistakes."""
    try:
        told = read_settings(content, "hosts.toml")
    except SettingsError as refusal:
        assert len(str(refusal).splitlines()) >= 2  # noqa: PT017 - either end is right
    else:
        policy = told.stack.policy
        assert policy.at_least >= 1
        assert policy.keep or policy.daily or policy.within
        assert told.stack.folder.startswith("/")
        assert len({vault.name for vault in told.vaults} | {"pi"}) == len(told.vaults) + 1


def test_five_sets_stay_here_until_a_rule_is_given():
    """The default holds where [stack] gives no rule, and for no place that gives one."""
    assert read("[stack]\nkeep_at_least = 2").stack.policy == Policy(keep=5, at_least=2)
    assert read("[stack]\nkeep_daily = 7").stack.policy == Policy(daily=7)
    assert read('[stack]\nkeep_within = "30d"').stack.policy == Policy(within=Span(days=30))


def test_the_mount_point_of_a_vault_is_a_plain_path():
    """What is mounted may be the folder itself, and is named without a slash at its end."""
    lines = '[[vaults]]\nname="usb"\nkind="folder"\nfolder="/media/usb/"\nmount="/media//usb/"'
    assert read(lines).vaults[0].mount == "/media/usb"


def test_a_vault_without_a_rule_has_no_policy():
    """The policy of this machine is nobody else's."""
    told = read('[stack]\nkeep = 1\n[[vaults]]\nname="usb"\nkind="folder"\nfolder="/f"')
    assert told.vaults[0].policy is None


def test_the_sample_is_right_as_it_is():
    """The repository's hosts.toml backs up ~/IOTstack, without a mistake."""
    told = load_settings(SAMPLE)
    assert told.file == SAMPLE
    assert told.stack == StackConfig("/home/pi/IOTstack", Policy(keep=5), True, ())
    assert told.vaults == ()


def test_the_sample_has_its_commented_blocks():
    """The blocks that the next tests uncomment are found: keys, tables, hooks, a host."""
    lines, blocks = sample_blocks()
    assert [lines[block[0]].split("  ")[0] for block in blocks] == [
        "# keep_daily = 7",
        "# [[stack.exclude]]",
        *["# [[services]]"] * 3,
        '# before_backup = [{ run = ["/home/pi/bin/dump-mariadb"], limit_s = 600 }]',
        *["# [[vaults]]"] * 3,
        "# [[hosts]]",
        "# [[notify]]",
        "# [mqtt]",
        "# [metrics]",
    ]


def test_the_readme_restores_to_the_host_of_the_sample():
    """Each --host of README.md is the one that the sample names."""
    readme = os.path.join(os.path.dirname(SAMPLE), "README.md")
    told = [Path(path).read_text("utf-8") for path in (readme, SAMPLE)]
    asked = [set(re.findall(r"--host ([a-z_-]+)", text)) for text in told]
    assert asked == [{"test-pi"}, {"test-pi"}]
    assert 'name = "test-pi"' in told[1]


@pytest.mark.parametrize("number", range(len(sample_blocks()[1])))
def test_each_commented_block_of_the_sample_is_right(number):
    """Taking the # off one block of the sample gives a file that differs and has no mistake."""
    lines, blocks = sample_blocks()
    told = read(uncommented(lines, blocks[number]))
    assert told != read("\n".join(lines))


def test_all_commented_blocks_of_the_sample_are_right_together():
    """Taking every # off gives exclusions, hooks, each kind of vault and a host."""
    lines, blocks = sample_blocks()
    told = read(uncommented(lines, {number for block in blocks for number in block}))
    assert told.stack.sudo is False
    assert len(told.stack.exclusions) == 1
    assert not told.stack.exclude_defaults
    assert [each.kind for each in told.services] == [Kind.SKIP, Kind.STOP, Kind.RECIPE]
    assert [(vault.name, vault.ssh is None) for vault in told.vaults] == [
        ("nas", False),
        ("usb", True),
        ("dropbox", True),
    ]
    assert told.vaults[0].ssh.user == "wash"
    assert [hook.may_fail for hook in told.hooks.after_backup] == [True]
    assert len(told.machines[0].hooks.after_restore) == 1
    assert told.monitoring.notify[0].kind == "ntfy"
    assert told.monitoring.mqtt.user == "backup"
    assert told.monitoring.metrics.textfile.endswith(".prom")


@pytest.mark.parametrize(
    ("environment", "checkout", "places"),
    [
        (
            {"HOME": "/home/pi"},
            "/src/it",
            (
                "/home/pi/.config/iotstack/hosts.toml",
                "/etc/iotstack/hosts.toml",
                "/src/it/hosts.toml",
            ),
        ),
        (
            {"HOME": "/home/pi"},
            "",
            ("/home/pi/.config/iotstack/hosts.toml", "/etc/iotstack/hosts.toml"),
        ),
        (
            {"HOME": "/home/pi", "XDG_CONFIG_HOME": "/cfg"},
            "",
            ("/cfg/iotstack/hosts.toml", "/etc/iotstack/hosts.toml"),
        ),
        ({"HOME": "/home/pi", "IOTSTACK_SETTINGS": "/x.toml"}, "/src/it", ("/x.toml",)),
    ],
)
def test_files_are_looked_for_in_one_order(environment, checkout, places):
    """A file named by the environment is the only one; else home, machine, checkout."""
    assert places_to_look(environment, checkout) == places


def test_the_first_file_found_is_used(tmp_path, monkeypatch):
    """A user's own file comes before the checkout's, which is read where there is no other."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "hosts.toml").write_text("[stack]\nkeep = 2\n")
    assert load_settings(checkout=str(checkout)).stack.policy == Policy(keep=2)
    own = tmp_path / "config" / "iotstack" / "hosts.toml"
    own.parent.mkdir(parents=True)
    own.write_text("[stack]\nkeep = 3\n")
    told = load_settings(checkout=str(checkout))
    assert (told.stack.policy, told.file) == (Policy(keep=3), str(own))


def test_a_file_that_was_named_must_be_there(tmp_path, monkeypatch):
    """A named file that is missing is a mistake, never the defaults."""
    missing = str(tmp_path / "no.toml")
    with pytest.raises(SettingsError, match=r"Settings file .*no\.toml not found"):
        load_settings(missing)
    monkeypatch.setenv("IOTSTACK_SETTINGS", missing)
    with pytest.raises(SettingsError, match=r"Settings file .*no\.toml not found"):
        load_settings()


def test_without_any_file_there_are_the_defaults(tmp_path, monkeypatch):
    """Where no file is found and none was named, the defaults say that they come from no file."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(
        "iotstack_invoke.settings.model.places_to_look", lambda *_: (str(tmp_path / "no.toml"),)
    )
    assert load_settings() == Settings(StackConfig("/home/pi/IOTstack"))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"[stack", "is not valid TOML"),
        (b"keep 5", "is not valid TOML"),
        (b"# K\xf6ln\n", "is not valid TOML"),
        (
            b"a = " + b"[" * 20_000 + b"]" * 20_000,
            "is not valid TOML: its lists or tables are nes",
        ),
        (b"keep = " + b"9" * 5_000, "is not valid TOML: a number in it has too many digits"),
        (b"keep = 0x" + b"f" * 5_000, "is not valid TOML: a whole number in it has more than 64"),
        (b"a = [{ b = 9223372036854775808 }]", "is not valid TOML: a whole number in it has"),
        (b"[stack]\nkeep = 0\n", "keep = 0 must be at least 1"),
    ],
)
def test_a_broken_file_is_a_mistake_that_names_the_file(tmp_path, content, told):
    """Text that is no TOML, and text that is no UTF-8, is refused with the file's name."""
    file = tmp_path / "hosts.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=told) as refusal:
        load_settings(str(file))
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[stack]\nfolder = "/x\nkeep = 3\n', 'line 2, column 13). Line 2: folder = "/x. Is'),
        ("[stack]\nfolder = '/x\nkeep = 3\n", 'Expected "\'" (at end of document). Is'),
        ('[stack]\nfolder = "/x', "Unterminated string (at end of document). Is"),
        ("[stack]\nfolder = '/x", "(at end of document). Is"),
        ('[[hooks.before_backup]]\ncommand = ["a", "b\n', "Line 2: command = …. Is"),
    ],
)
def test_a_missing_closing_quote_is_told(tmp_path, content, told):
    """The parser names a character that no editor shows."""
    file = tmp_path / "hosts.toml"
    file.write_text(content)
    with pytest.raises(SettingsError) as refusal:
        load_settings(str(file))
    assert str(refusal.value).endswith(f"{told} a closing quote missing?")


@pytest.mark.parametrize("between", [" ", ", "])
def test_a_header_with_more_on_its_line_is_told(tmp_path, between):
    """As somebody has it who copied a warning as it stands."""
    file = tmp_path / "hosts.toml"
    file.write_text(f'[stack]\nkeep = 3\n[[stack.include]]{between}path = "/opt/x"\n')
    told = r"Put what follows \[\[stack\.include\]\] on a new line below it\.$"
    with pytest.raises(SettingsError, match=told):
        load_settings(str(file))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("name = usb", 'Line 2: name = usb. Use straight quotes for text: name = "usb"'),
        ("name = “usb”", 'Line 2: name = “usb”. Use straight quotes for text: name = "usb"'),
        ("folder = /mnt/usb", 'quotes for text: folder = "/mnt/usb"'),
        (
            "before = “curl -u me:secret x”",
            "Line 2: before = …. Use straight quotes for text: before",
        ),
        ('before = "curl -u me:secret x', "Line 2: before = …"),
        ("keep = 1x", "Line 2: keep = 1x"),
        ("url = https://x/secret", 'Line 2: url = …. Use straight quotes for text: url = "…"'),
        ('password = "secret', "Line 2: password = …. Is a closing quote missing?"),
        ('mqtt.password = "1"\nmqtt.password = "secret"', "Line 3: mqtt.password = …"),
        ("paswort = secret", "Line 2: paswort = …"),
    ],
)
def test_the_line_of_a_slip_is_told(tmp_path, line, told):
    """With what mends it; nothing of a command, which may hold what is secret."""
    file = tmp_path / "hosts.toml"
    file.write_text(f"[stack]\n{line}\n")
    with pytest.raises(SettingsError) as refusal:
        load_settings(str(file))
    assert told in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_file_of_notepad_is_read(tmp_path):
    """It begins with a byte order mark, and its lines end as those of Windows."""
    file = tmp_path / "hosts.toml"
    file.write_bytes(b"\xef\xbb\xbf[stack]\r\nkeep = 3\r\n")
    assert load_settings(str(file)).stack.policy.keep == 3


def test_a_file_that_cannot_be_read_is_a_mistake(tmp_path):
    """A folder in the place of the file is told as what it is."""
    with pytest.raises(SettingsError, match=r"Cannot read .*: Is a directory"):
        load_settings(str(tmp_path))


def test_a_host_has_a_policy_and_exclusions_of_its_own():
    """They stand in the place of this machine's when that host is backed up; five stay if not said."""
    text = """
[stack]
keep = 9
[[hosts]]
name = "p"
host = "h"
keep_daily = 3
exclude = [{ path = "volumes/x/", reason = "none" }]
exclude_defaults = false
hooks.before_backup = [["true"]]
[[hosts]]
name = "q"
host = "h"
"""
    settings = read_settings(tomllib.loads(text), "hosts.toml")
    first, second = settings.machines
    theirs = settings.of_machine(first, "/far")
    assert theirs.stack.folder == "/far"
    assert (theirs.stack.policy.daily, theirs.stack.policy.keep) == (3, 0)
    assert [each.path for each in theirs.stack.exclusions] == ["volumes/x"]
    assert theirs.hooks.before_backup[0].words == ("true",)
    assert not theirs.stack.exclude_defaults
    assert settings.of_machine(second, "/far").stack.exclude_defaults
    assert settings.of_machine(second, "/far").stack.policy == KEEP_FIVE


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("exclude = [{ path = 'volumes/x' }]", "[[hosts.exclude]] number 1: 'reason' is missing"),
        (
            "exclude = [{ path = 'backups', reason = 'x' }]",
            "[[hosts]] 'p': [[hosts.exclude]]: path = 'backups' must be a path in the stack's folder (not backups/ or restore/), or an absolute path, or volume:NAME",
        ),
        (
            "keep_dayly = 3",
            "[[hosts]] number 1: 'keep_dayly' is unknown; did you mean 'keep_daily'?",
        ),
    ],
)
def test_what_is_wrong_with_a_hosts_own_backups_is_told(line, told):
    """As it is for the stack of this machine."""
    assert mistakes(f'[[hosts]]\nname = "p"\nhost = "h"\n{line}') == [told]
