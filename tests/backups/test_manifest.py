"""The manifest of a set and the records beside an unfinished one, written and read back."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sample_sets import new_form, old_form

from iotstack_invoke.backups.manifest import (
    FORMAT,
    IS_LESS_MEANT,
    LeftOut,
    Manifest,
    Part,
    check_sum,
    read_manifest,
    read_records,
    record_line,
    records_of,
    utc_text,
)
from iotstack_invoke.backups.names import PARTS
from iotstack_invoke.engine.steps import Record
from iotstack_invoke.services.containers import Container

MANIFEST = Manifest(
    runtag="2026-11-23_1100",
    host="live-pi",
    program="iotstack-invoke 1.0",
    started_utc="2026-11-23T10:00:00Z",
    finished_utc="2026-11-23T10:02:05Z",
    zone="CET +0100",
    parts=(
        Part(
            "general",
            "2026-11-23_1100.general-backup.tar.gz",
            size_bytes=1234,
            sha256="ab" * 32,
            seconds=12.5,
            facts={"unpacked_bytes": 4096},
        ),
        Part("influx", "2026-11-23_1100.influx-backup.tar", error="influxd is stopped"),
    ),
    containers=(Container("influxdb", "influxdb:1.8", "sha256:1", "sha256:2", running=True),),
    left_out=(LeftOut("volumes/nextcloud/*", "not safe to copy while it runs"),),
    warnings=("tar: ./volumes/Köln: file changed as we read it",),
)

TEXT = st.text(max_size=12)
NUMBERS = st.integers(0, 2**53)
SECONDS = st.floats(0, 1e9, allow_nan=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FACTS = st.dictionaries(
    TEXT.map("x{}".format), st.none() | st.booleans() | NUMBERS | TEXT | st.lists(TEXT), max_size=3
)
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,9}", fullmatch=True)
IMAGES = st.just("") | st.from_regex(r"[a-z0-9][a-z0-9_./:@-]{0,12}", fullmatch=True)
RUNTAGS = ["x", "2026-11-23_1100", "vor dem Umzug"]


def manifests(runtag):
    """Return any manifest of that name."""
    parts = st.one_of(
        st.builds(
            Part, st.just(k), st.just(f"{runtag}.{PARTS[k]}"), NUMBERS, TEXT, SECONDS, TEXT, FACTS
        )
        for k in ("general", "influx")
    )
    containers = st.builds(Container, NAMES, IMAGES, IMAGES, IMAGES, st.booleans())
    return st.builds(
        Manifest,
        runtag=st.just(runtag),
        host=TEXT,
        program=TEXT,
        started_utc=st.just("2026-11-23T10:00:00Z"),
        finished_utc=st.just("2026-11-23T10:02:05Z"),
        zone=TEXT,
        parts=st.lists(parts, min_size=1, unique_by=lambda part: part.kind).map(tuple),
        containers=st.lists(containers, max_size=3).map(tuple),
        left_out=st.lists(st.builds(LeftOut, TEXT, TEXT), max_size=3).map(tuple),
        warnings=st.lists(TEXT, max_size=3).map(tuple),
    )


MANIFESTS = st.sampled_from(RUNTAGS).flatmap(manifests)


SHARD = {"id": 1, "database": "telegraf", "policy": "autogen", "size_bytes": 9}
ODD_FACTS = [
    {"included": "homeassistant"},
    {"included": [5]},
    *(
        {"included": ["fine", each]}
        for each in (
            "",
            ".",
            "..",
            "/etc",
            "a/../b",
            "./a",
            "a/",
            "a//b",
            "-a",
            "backups",
            "backups/x",
            "restore/y",
            "a\0b",
        )
    ),
    {"servers": "hello"},
    {"servers": ["mariadb"]},
    {"servers": [{}]},
    {"servers": [{"container": "../../etc"}]},
    {"servers": [{"container": "db", "rows": {"home": {"t": "many"}}}]},
    {"servers": [{"container": "db", "sql_bytes": -1}]},
    {"servers": [{"container": "db", "inside": "/config:/etc"}]},
    {"servers": [{"container": "db", "inside": "/config/../../etc"}]},
    {"servers": [{"container": "db", "inside": "config"}]},
    {"servers": [{"container": "db", "left_out": "all"}]},
    {"shards": [{"id": 1}]},
    {"shards": 3},
    {"shards": [SHARD, {**SHARD, "id": True}, SHARD]},
    {"shards": [SHARD, {**SHARD, "policy": None}]},
    {"shards": [SHARD, {**SHARD, "size_bytes": -1}]},
    {"shards": [SHARD, {**SHARD, "size_bytes": 1 << 63}]},
    {"shards": [SHARD, {"id": 1}]},
    {"shards": [SHARD, [SHARD]]},
    {"servers": [{"container": "db"}, {"container": "a", "rows": {"x": {}, "y": {"t": "many"}}}]},
    {"databases": "telegraf"},
    {"buckets": [None]},
    {"sqlite": {"a": 1}},
    {"unpacked_bytes": "much"},
    {"unpacked_bytes": 10**30},
]


def content():
    """Return the parsed text of a good manifest without a sum, to be damaged."""
    return json.loads(old_form(json.loads(MANIFEST.to_json())))


OLD = json.dumps(content(), indent=1)


def text_utc(year=2026, month=11, day=23, hour=10, zone=UTC):
    return utc_text(datetime(year, month, day, hour, tzinfo=zone))


@given(MANIFESTS)
def test_a_manifest_is_read_as_it_was_written(manifest):
    """Whatever a manifest says, its text says it back."""
    assert read_manifest(manifest.to_json()) == manifest


def test_a_manifest_can_be_read_by_people_and_programs():
    """The text names its format, the state and each part by its kind, in UTF-8."""
    text = MANIFEST.to_json()
    told = json.loads(text)
    assert list(told)[:3] == ["format", "runtag", "state"]
    assert told["format"] == "iotstack-invoke manifest 2"
    assert list(told)[-1] == "sha256"
    assert told["state"] == "incomplete"
    assert told["parts"]["general"]["size_bytes"] == 1234
    assert told["parts"]["influx"]["error"] == "influxd is stopped"
    assert "Köln" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize(
    ("errors", "warnings", "state"),
    [
        (("", ""), (), "complete"),
        (("", ""), ("a file changed",), "warnings"),
        (("", "stopped"), (), "incomplete"),
        (("", "stopped"), ("a file changed",), "incomplete"),
    ],
)
def test_the_state_is_the_worst_that_happened(errors, warnings, state):
    """A part that could not be made weighs more than a warning."""
    parts = tuple(
        Part(k, "f", error=e) for k, e in zip(("general", "influx"), errors, strict=True)
    )
    manifest = Manifest("x", "", "", "", "", "", parts, warnings=warnings)
    assert manifest.state == state
    assert [part.kind for part in manifest.made] == [
        kind for kind, error in zip(("general", "influx"), errors, strict=True) if not error
    ]


def test_what_a_later_version_adds_is_passed_over():
    """Unknown keys and unknown kinds of parts, anywhere, change nothing of what is known."""
    later = content()
    later["signature"] = "x"
    later["parts"]["etcd"] = {"dialect": 3}
    later["parts"]["general"]["compression"] = "zstd"
    later["containers"][0]["platform"] = "arm64"
    later["left_out"][0]["size_bytes"] = 7
    assert read_manifest(json.dumps(later)) == MANIFEST
    assert read_manifest(new_form(later)) == MANIFEST


@pytest.mark.parametrize("number", ["99", "0", "3", ""])
def test_a_format_that_we_do_not_know_is_refused(number):
    """What a later version says may mean something else; its format is named."""
    with pytest.raises(ValueError, match=f'its format is "iotstack-invoke manifest {number}"'):
        read_manifest(new_form({**content(), "format": f"iotstack-invoke manifest {number}"}))


def test_each_change_of_a_manifest_is_told():
    """Any bit, any cut and anything behind it, though what it says may still be read."""
    whole = MANIFEST.to_json().encode()
    read_manifest(whole)
    for at in range(len(whole)):
        damaged = whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :]
        for each in (damaged, whole[:at], whole[:at] + whole[at + 1 :]):
            with pytest.raises(ValueError):
                read_manifest(each)
    for more in (b"\n", b" ", b"\0", whole):
        with pytest.raises(ValueError):
            read_manifest(whole + more)


def test_what_earlier_versions_warned_of_is_still_told():
    """Which words say that data fell by more than half was changed; sets that are kept have both."""
    fell = (
        "volumes/a of the general part has 5 bytes: one has 3,145,728. If that is meant, nothing "
        "is to be done: the next backup is compared with this one."
    )
    now = f"volumes/b of the general part has 5 bytes: one has 3,145,728. {IS_LESS_MEANT}"
    told = json.loads(MANIFEST.to_json())
    told["warnings"] = [fell, "A hook took long.", now]
    assert read_manifest(new_form(told)).of_data == (fell, now)


def test_an_edited_value_is_told_and_can_be_looked_at():
    """Whoever compares a manifest with its archives may read what it says all the same."""
    told = json.loads(MANIFEST.to_json())
    told["host"] = "another-pi"
    text = json.dumps(told, indent=1, ensure_ascii=False) + "\n"
    with pytest.raises(ValueError, match="it was changed since it was written"):
        read_manifest(text)
    assert read_manifest(text, changed=True).host == "another-pi"
    del told["sha256"]
    with pytest.raises(ValueError, match="it was changed since it was written"):
        read_manifest(json.dumps(told, indent=1))
    check_sum(MANIFEST.to_json().encode())
    check_sum(OLD.encode())


@pytest.mark.parametrize("key", ["error", "facts", "size_bytes", "seconds", "sha256"])
def test_what_a_part_does_not_say_has_its_default(key):
    """A part that leaves out what has a default is read."""
    shorter = content()
    del shorter["parts"]["general"][key]
    assert read_manifest(json.dumps(shorter)).parts[0].kind == "general"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '"format"',
        pytest.param("[" * 100_000, id="deep"),
        OLD[:-3],
        OLD.replace("iotstack-invoke manifest 1", "something else"),
        OLD.replace('"runtag": "2026-11-23_1100"', '"runtag": "../x"'),
        OLD.replace("2026-11-23T10:00:00Z", "yesterday"),
        OLD.replace("2026-11-23T10:02:05Z", ""),
        OLD.replace("1234", '"1234"'),
        OLD.replace("12.5", "null"),
        OLD.replace('"live-pi"', "null"),
        json.dumps({**json.loads(OLD), "warnings": "a text"}),
        json.dumps({**json.loads(OLD), "warnings": [1]}),
    ],
)
def test_a_damaged_text_is_no_manifest(text):
    """A torn, foreign or impossible text is a ValueError; nothing of it comes to light later."""
    with pytest.raises(ValueError):
        read_manifest(text)


AS_WRITTEN_THEN = {
    "format": "iotstack-invoke manifest 2",
    "runtag": "2026-11-23_1100",
    "host": "pi",
    "program": "iotstack-invoke 0.1.0",
    "started_utc": "2026-11-23T11:00:00Z",
    "finished_utc": "2026-11-23T11:01:00Z",
    "zone": "UTC",
    "parts": {
        "general": {
            "file": "2026-11-23_1100.general-backup.tar.gz",
            "size_bytes": 9,
            "sha256": "ab" * 32,
            "seconds": 0.1,
            "error": "",
            "facts": {},
        }
    },
    "containers": [],
    "left_out": [],
    "warnings": [],
    "folder": "/home/pi/IOTstack",
    "state": "complete",
}
"""What a version wrote that is in use; nothing is added here when a version writes more."""


@pytest.mark.parametrize("key", sorted(AS_WRITTEN_THEN.keys() - {"state"}))
def test_every_key_is_needed(key):
    """A manifest without one of its keys is damaged."""
    shorter = {**content(), "format": FORMAT}
    del shorter[key]
    with pytest.raises(ValueError, match=f"it has no {key}"):
        read_manifest(new_form(shorter))
    older = content()
    del older[key]
    if key == "folder":  # the first versions of the first format did not write it
        assert read_manifest(json.dumps(older)).folder == ""
    else:
        with pytest.raises(ValueError, match=f"it has no {key}"):
            read_manifest(json.dumps(older))


def places(inside, path=()):
    """Return the path of every value inside a JSON value."""
    found = [path] if path else []
    pairs = inside.items() if isinstance(inside, dict) else ()
    pairs = enumerate(inside) if isinstance(inside, list) else pairs
    return found + [each for key, value in pairs for each in places(value, (*path, key))]


@given(st.sampled_from(places(content())), JSON)
@example(("parts", "general", "kind"), "influx")
def test_any_value_in_any_place_is_read_or_refused(path, value):
    """Whatever stands in one place of a manifest, it is a ValueError or a manifest to work with."""
    damaged = content()
    inside = damaged
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    try:
        manifest = read_manifest(json.dumps(damaged))
    except ValueError:
        return
    assert read_manifest(manifest.to_json()) == manifest
    assert manifest.state in ("complete", "warnings", "incomplete")
    assert all(isinstance(part.size_bytes, int) for part in manifest.parts)
    assert all(isinstance(part.facts, dict) for part in manifest.parts)
    assert all(isinstance(each, str) for each in manifest.warnings)
    assert {part.kind for part in manifest.parts} <= {"general", "influx"}
    assert len(records_of(manifest, "pi", "backups")) == len(manifest.made)


@given(JSON)
def test_any_json_is_read_or_refused(value):
    """No JSON value raises anything but ValueError; none that we draw is a manifest."""
    with pytest.raises(ValueError):
        read_manifest(json.dumps(value))


def test_a_part_is_of_the_kind_it_is_listed_under():
    """A part cannot say that it is another one."""
    twisted = content()
    twisted["parts"]["general"]["kind"] = "influx"
    assert [part.kind for part in read_manifest(json.dumps(twisted)).parts] == [
        "general",
        "influx",
    ]


def test_the_records_of_a_set_are_those_of_its_parts():
    """A part that was made has a record under its place; one that failed has none."""
    name = "pi:backups/2026-11-23_1100.general-backup.tar.gz"
    assert records_of(MANIFEST, "pi", "backups") == {
        name: Record(name, 1234, "ab" * 32, 12.5, facts={"unpacked_bytes": 4096})
    }


RECORDS = st.builds(
    Record, TEXT, NUMBERS, TEXT, SECONDS, TEXT, st.lists(TEXT, max_size=3).map(tuple), FACTS
)


@given(st.lists(RECORDS, max_size=4, unique_by=lambda record: record.output))
def test_records_are_read_as_they_were_written(records):
    """Each record is one line, and its line says it back."""
    lines = [record_line(record) for record in records]
    assert all("\n" not in line and "\r" not in line for line in lines)
    assert read_records(lines) == {record.output: record for record in records}


def test_the_last_record_of_an_output_counts():
    """An output that was made again is as its last record says."""
    lines = [record_line(Record("pi:x", size)) for size in (1, 2)]
    assert read_records(lines)["pi:x"].size_bytes == 2


def test_a_record_may_quote_a_name_that_is_no_utf8():
    """A warning with a raw file name is a line that can be written, and comes back as it was."""
    record = Record("pi:x", warnings=("tar: ./volumes/caf\udce9: file changed",))
    assert read_records([record_line(record).encode().decode()]) == {"pi:x": record}


@given(st.data())
def test_a_torn_record_is_no_record(data):
    """However much of the last line was written, the lines before it count and it does not."""
    whole, torn = record_line(Record("pi:x", 1)), record_line(Record("pi:y", 2))
    cut = data.draw(st.integers(0, len(torn) - 1))
    assert list(read_records([whole, torn[:cut]])) == ["pi:x"]


def test_a_record_of_a_later_version_is_read():
    """A key that we do not know does not make a finished part unfinished."""
    later = {**json.loads(record_line(Record("pi:x", 7))), "cost": 3}
    assert read_records([json.dumps(later)]) == {"pi:x": Record("pi:x", 7)}


@given(JSON, st.dictionaries(st.sampled_from(["output", "size_bytes", "warnings", "facts"]), JSON))
@example(None, {"output": [], "warnings": []})
def test_any_line_is_a_record_or_passed_over(value, entry):
    """No line of JSON raises; what is read has the types of a record."""
    found = read_records([json.dumps(value), json.dumps(entry), "[" * 100_000, "\0\0"])
    for record in found.values():
        assert isinstance(record.size_bytes, int)
        assert isinstance(record.facts, dict)
        assert all(isinstance(each, str) for each in record.warnings)


def test_a_time_is_written_in_utc():
    """An aware time of any zone is written as the same moment in UTC."""
    assert text_utc() == "2026-11-23T10:00:00Z"
    assert text_utc(hour=11, zone=timezone(timedelta(hours=1))) == "2026-11-23T10:00:00Z"
    assert text_utc(hour=22, zone=timezone(timedelta(hours=-5))) == "2026-11-24T03:00:00Z"


@pytest.mark.parametrize("facts", ODD_FACTS, ids=str)
def test_facts_that_no_reader_could_use_are_damage(facts):
    """What a part says of its databases has the shape that a backup writes, or is refused here."""
    odd = content()
    odd["parts"]["general"]["facts"] = facts
    (name,) = facts
    with pytest.raises(ValueError, match=f"of its general part it has {name} = "):
        read_manifest(json.dumps(odd))


@pytest.mark.parametrize(
    "facts",
    [
        {"shards": []},
        {"shards": [SHARD, {**SHARD, "size_bytes": (1 << 63) - 1, "tsm_bytes": [5]}]},
        {"servers": [{"container": "db", "sql_bytes": 0}, {"container": "a", "rows": {"x": {}}}]},
        {"servers": [{"container": "db", "inside": "", "timescaledb": []}]},
        {"included": [".templates/mosquitto", "parts/mqtt.yaml", "homeassistant", "k\udce9"]},
    ],
    ids=str,
)
def test_facts_that_a_backup_writes_are_read(facts):
    """None at all, the greatest number and what a later version adds are no damage."""
    whole = content()
    whole["parts"]["general"]["facts"] = facts
    assert read_manifest(json.dumps(whole)).parts[0].facts == facts


def test_an_outline_is_checked_and_keeps_what_is_lacking_alone():
    """A list holds no shards, tells the same state, and the same damage."""
    told = content()
    lacking = {"db": "it did not answer"}
    told["parts"]["general"]["facts"] = {"shards": [SHARD], "failed": lacking, "other": 1}
    whole, outline = (read_manifest(json.dumps(told), outline=each) for each in (False, True))
    assert outline.parts[0].facts == {"failed": lacking}
    assert whole.parts[0].facts.keys() == {"shards", "failed", "other"}
    assert (outline.state, outline.lacks) == (whole.state, whole.lacks)
    told["parts"]["general"]["facts"]["shards"] = [SHARD, {}]
    with pytest.raises(ValueError, match="of its general part it has shards = "):
        read_manifest(json.dumps(told), outline=True)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1])
def test_a_duration_that_is_none_is_damage(seconds):
    """JSON of others may hold what is no number of seconds."""
    odd = content()
    odd["parts"]["general"]["seconds"] = seconds
    with pytest.raises(ValueError, match="of its general part it has seconds = "):
        read_manifest(json.dumps(odd))


@pytest.mark.parametrize("kind", ["general", "influx"])
@pytest.mark.parametrize(
    "file",
    [
        "../../../precious.txt",
        "/etc/passwd",
        "2026-11-22_1100.general-backup.tar.gz",
        "2026-11-23_1100.mariadb-backup.tar.gz",
        "2026-11-23_1100.manifest.json",
        "",
    ],
)
def test_a_part_has_the_file_of_its_kind(kind, file):
    """No manifest leads to another file than the archive of its own set, made or not."""
    odd = content()
    odd["parts"][kind]["file"] = file
    with pytest.raises(ValueError, match=f"of its {kind} part it has file = "):
        read_manifest(json.dumps(odd))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", "../etc"),
        ("name", "--privileged"),
        ("image", "--volume=/:/x"),
        ("image_id", "-h"),
        ("digest", "a b"),
    ],
)
def test_a_container_bears_names_of_docker(key, value):
    """What becomes a word of a command is no option and no path."""
    odd = content()
    odd["containers"][0][key] = value
    with pytest.raises(ValueError, match=f"of a container it has {key} = "):
        read_manifest(json.dumps(odd))


SAID = {
    b"": "it is empty, incomplete or not valid JSON (line 1, character 1)",
    b"\xff": "byte 0 is not text",
    b"[]": "it has no format",
    b"{}": "it has no format",
    b'{"format": 7}': "it has no format",
    b'{"format": "iotstack-invoke manifest 1"}': "it has no runtag",
}


@pytest.mark.parametrize("text", SAID)
def test_what_is_wrong_is_said_in_words(text):
    """No message is one of Python's."""
    with pytest.raises(ValueError) as error:
        read_manifest(text)
    assert str(error.value) == SAID[text]


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("runtag",), 7, "7 is not a valid runtag"),
        (("parts",), [], "it has parts = [], which is not valid"),
        (("parts", "general"), 7, "it has 7 instead of a part"),
        (("parts", "general"), {}, "a part has no file"),
        (
            ("parts", "general", "size_bytes"),
            "9",
            'of a part it has size_bytes = "9", which is not valid',
        ),
        (("containers",), 7, "it has containers = 7, which is not valid"),
        (("containers", 0), None, "it has null instead of a container"),
        (("warnings",), 7, "it has warnings = 7, which is not valid"),
        (("started_utc",), 7, "of a manifest it has started_utc = 7, which is not valid"),
    ],
)
def test_what_no_backup_wrote_is_quoted(path, value, said):
    """A value of no use is told with its name, as the file has it."""
    odd = inside = content()
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    with pytest.raises(ValueError) as error:
        read_manifest(json.dumps(odd))
    assert str(error.value) == said


def test_a_set_of_an_earlier_version_is_as_good():
    """What is told since then is not missed in it, neither in full nor as an outline."""
    for outline in (False, True):
        found = read_manifest(new_form(AS_WRITTEN_THEN), "2026-11-23_1100", outline=outline)
        assert (found.state, found.unused) == ("complete", ())


@pytest.mark.parametrize(
    "volume",
    [
        {"name": "--all"},
        {"options": {"exec": "x"}},
        {"options": {"o": "a\nb"}},
        {"options": ["o"]},
        {"left_out": "o"},
        {"key": 3},
    ],
)
def test_volumes_whose_options_are_no_words(volume):
    """They become words of `docker volume create`."""
    odd = content()
    good = {"name": "v", "key": "", "options": {"device": "/dev/sda1"}, "left_out": []}
    odd["volumes"] = [good]
    assert read_manifest(json.dumps(odd)).volumes == (good,)
    odd["volumes"] = [{**good, **volume}]
    with pytest.raises(ValueError, match="it has volumes = "):
        read_manifest(json.dumps(odd))
