"""The catalogue of a dump: what is read from it, and that no damage makes it up."""

import contextlib

import folders
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iotstack_invoke.databases.influxdb.meta import (
    INTERNAL,
    DamagedCatalogue,
    Grant,
    ShardPlace,
    read_meta,
    read_meta_db,
    with_databases,
)

DUMPS = folders.FIXTURES / "influx-backups"
METAS = sorted(DUMPS.glob("*/*.meta"))
HAPPY = next(DUMPS.glob("v1.8.10-happy/*.meta")).read_bytes()


def ids(path):
    return f"{path.parent.name}/{path.name}"


def test_a_catalogue_names_databases_policies_and_queries():
    """Names, durations, spans of time and continuous queries are what the server had."""
    catalogue = read_meta(HAPPY)
    assert catalogue.names == ("telegraf", "home", "emptydb", "shorty")
    assert INTERNAL in {each.name for each in catalogue.databases}
    home = next(each for each in catalogue.databases if each.name == "home")
    hourly = next(each for each in home.policies if each.name == "hourly")
    assert home.default_policy == "autogen"
    assert hourly.shard_duration_ns == 3_600 * 10**9
    assert all(each.end_ns - each.start_ns == 3_600 * 10**9 for each in hourly.groups)
    [(database, query)] = catalogue.continuous_queries
    assert database == "telegraf"
    assert query.name == "cq_cpu"
    assert query.text.startswith("CREATE CONTINUOUS QUERY cq_cpu ON telegraf BEGIN SELECT")


def test_users_come_with_rights_and_with_the_bytes_that_bring_them_back():
    """A user's record stands in the file byte for byte, so it can be appended to meta.db."""
    admin, nodered = read_meta(HAPPY).users
    assert (admin.name, admin.admin, admin.grants) == ("admin", True, ())
    assert (nodered.name, nodered.admin) == ("nodered", False)
    assert dict(nodered.grants) == {"telegraf": Grant.WRITE, "home": Grant.READ}
    assert admin.record in HAPPY
    assert nodered.record in HAPPY
    assert admin.record[0] == 0x32
    assert b"$2a$" in nodered.raw


def test_no_password_hash_is_ever_shown():
    """Neither a user nor the catalogue shows the hash when printed."""
    catalogue = read_meta(HAPPY)
    shown = repr(catalogue) + str(catalogue.users) + repr(catalogue.users[0])
    assert "$2a$" not in shown
    assert "raw" not in shown
    assert "nodered" in shown


def test_a_shard_is_placed_by_database_policy_and_start():
    """Each shard id leads to where its data belongs, also for odd names."""
    catalogue = read_meta(next(DUMPS.glob("v1.8.10-odd/*.meta")).read_bytes())
    assert catalogue.shard_ids == {1, 2, 3, 4, 5, 6}
    start_ns = catalogue.places[1].start_ns
    assert catalogue.places[4] == ShardPlace("x rp=y shard=3", "autogen", start_ns)
    assert catalogue.places[6] == ShardPlace("my db", "r p", start_ns)
    assert start_ns % (7 * 24 * 3600 * 10**9) == 4 * 24 * 3600 * 10**9  # a Monday


def test_deleted_groups_stay_listed_with_their_time():
    """A group deleted before the dump is still there, marked by when."""
    catalogue = read_meta(next(DUMPS.glob("v1.6.7-exp2/*.meta")).read_bytes())
    groups = [g for d in catalogue.databases for p in d.policies for g in p.groups]
    deleted = {shard for g in groups if g.deleted_at_ns for shard in g.shards}
    assert deleted == set(range(1, 9))
    assert len(catalogue.shard_ids) == 13


def test_an_empty_server_has_an_empty_catalogue():
    """No databases is a whole catalogue, not a damaged one."""
    catalogue = read_meta(next(DUMPS.glob("v1.8.10-e0/*.meta")).read_bytes())
    assert (catalogue.databases, catalogue.users, catalogue.shard_ids) == ((), (), frozenset())


def test_times_before_1970_are_negative():
    """A span before 1970 is read as InfluxDB wrote it, in two's complement."""
    group = bytes.fromhex("08011080b0aaf4d5fcffffff0118002000") + bytes.fromhex("2a020807")
    policy = b"\x0a\x01r\x10\x00\x18\x00\x20\x01\x2a" + bytes([len(group)]) + group
    database = b"\x0a\x01d\x12\x01r\x1a" + bytes([len(policy)]) + policy
    data = b"\x08\x00\x10\x00\x18\x00\x2a" + bytes([len(database)]) + database
    data += b"\x38\x00\x40\x00\x48\x00"
    catalogue = read_meta(b"\x0a" + bytes([len(data)]) + data + b"\x10\x00")
    assert catalogue.places[7].start_ns < 0


@pytest.mark.parametrize("path", METAS, ids=ids)
def test_a_catalogue_cut_anywhere_is_damaged(path):
    """Whatever the byte at which the file ends too early, it is not taken for whole."""
    data = path.read_bytes()
    read_meta(data)
    for size in range(len(data)):
        with pytest.raises(DamagedCatalogue):
            read_meta(data[:size])


@given(st.binary(max_size=200))
def test_garbage_is_damaged_or_read_but_never_anything_else(data):
    """Any bytes either are a catalogue or raise DamagedCatalogue, never another error."""
    with contextlib.suppress(DamagedCatalogue):
        read_meta(data)


@given(st.integers(0, len(HAPPY) - 1), st.integers(0, 255))
def test_a_changed_byte_raises_nothing_but_damaged_catalogue(at, value):
    """A flipped byte may go unseen in a name, but never ends in another error."""
    data = bytearray(HAPPY)
    data[at] = value
    with contextlib.suppress(DamagedCatalogue):
        read_meta(bytes(data))


def meta_db(content):
    """Return what a server's meta.db would be: the catalogue in a `.meta` file."""
    size = read_meta(content).size_bytes
    at = next(at for at in range(1, 5) if content[at] < 0x80) + 1
    return content[at : at + size]


def test_a_catalogue_of_some_databases_has_no_users_and_all_else():
    """What stays beside a dump that is loaded: the numbers for new shards go on from there."""
    whole = read_meta_db(meta_db(HAPPY))
    part = read_meta_db(with_databases(meta_db(HAPPY), ("home", "not there")))
    assert part.databases == tuple(each for each in whole.databases if each.name == "home")
    assert part.users == ()


def test_a_user_gets_rights_where_it_has_none():
    """Those that it has are not touched, and what is packed says the same as what is told."""
    admin, nodered = read_meta(HAPPY).users
    more = nodered.granted([("home", Grant.ALL), ("shop ü", Grant.READ)])
    assert dict(more.grants) == {**dict(nodered.grants), "shop ü": Grant.READ}
    content = with_databases(meta_db(HAPPY), ()) + admin.record + more.record
    assert read_meta_db(content).users == (admin, more)
