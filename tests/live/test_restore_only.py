"""A restore of single services and databases leaves everything else alone, and is undoable."""

import pytest
from restorer import below, containers, points, running, start_client, tree
from stand import SERVICES, compose, query, wait_ping, write_points

pytestmark = pytest.mark.long


@pytest.fixture(params=["this machine", "test-pi"])
def place(request, person, pi, far):
    """The machine, the folder and the words of a restore: here, or to the other host."""
    top = person.fresh(pi)
    write_points(pi, "home", "cpu value=1 1000000000", "cpu value=2 700000000000000000")
    write_points(pi, "other", "cpu value=1 1000000000")
    query(
        pi,
        'CREATE CONTINUOUS QUERY "means" ON "home" BEGIN SELECT mean("value") INTO "mean" '
        'FROM "cpu" GROUP BY time(1h) END',
    )
    query(pi, "CREATE USER keeper WITH PASSWORD 'x'", 'GRANT ALL ON "home" TO "keeper"')
    query(pi, "CREATE USER left WITH PASSWORD 'x'", 'GRANT READ ON "home" TO "left"')
    person.iot("backup", "--runtag", "only", "--force")
    query(pi, "DROP USER left")
    if request.param == "this machine":
        return pi, top, ()
    return far, person.fresh(far), ("--host", "test-pi")


def change(machine, top):
    for name in ("nodered/data/flows.json", "mosquitto/config/mosquitto.conf"):
        (top / "volumes" / name).write_text("changed")
    (top / "services/nodered/build.py").write_text("changed")
    query(machine, 'DROP DATABASE "home"')
    write_points(machine, "home", "late value=1 1000000000")
    write_points(machine, "other", "late value=1 1000000000")
    write_points(machine, "new", "cpu value=1 1000000000")


def test_one_service(person, place):
    """Only the named service's files change, and only what sees them is stopped."""
    machine, top, words = place
    change(machine, top)
    files, all_points, started = tree(top), points(machine), containers(machine)
    said = person.iot("restore", "--runtag", "only", "--only", "nodered", *words, "--yes")
    assert "stops and restarts: nodered\n" in said
    after = tree(top)
    mine = ("services/nodered", "volumes/nodered")
    assert (top / "volumes/nodered/data/flows.json").read_text() != "changed"
    assert (top / "services/nodered/build.py").read_text() != "changed"
    assert {n: f for n, f in after.items() if n not in below(after, *mine)} == {
        n: f for n, f in files.items() if n not in below(files, *mine)
    }
    assert points(machine) == all_points
    now = containers(machine)
    assert {name for name in now if now[name] != started[name]} == {"nodered"}
    assert running(machine) == set(SERVICES)
    person.iot("undo", *words, "--last-restore", "--yes")
    assert tree(top) == files
    assert points(machine) == all_points


def test_one_database(person, place):
    """Only the named database is replaced, whole with its queries and grants; undo takes it back."""
    machine, top, words = place
    change(machine, top)
    query(machine, "CREATE USER reader WITH PASSWORD 'x'", 'GRANT READ ON "home" TO "reader"')
    files, before, started = tree(top), points(machine), containers(machine)
    client = start_client(machine)
    try:
        person.iot("restore", "--runtag", "only", "--only", "influxdb:home", *words, "--yes")
    finally:
        client.end()
    wait_ping(machine)
    after = points(machine)
    assert {k: v for k, v in after.items() if k[0] != "home"} == {
        k: v for k, v in before.items() if k[0] != "home"
    }
    text = str(after["home", "autogen"])
    assert "700000000000000000" in text
    assert '"late"' not in text
    assert "means" in str(query(machine, "SHOW CONTINUOUS QUERIES"))
    assert query(machine, 'SHOW GRANTS FOR "reader"')[0][0]["values"] == [["home", "READ"]]
    assert tree(top) == files
    now = containers(machine)
    assert {name for name in now if now[name] != started[name]} == {"influxdb"}
    person.iot("undo", *words, "--last-restore", "--yes")
    wait_ping(machine)
    home = str(points(machine)["home", "autogen"])
    assert '"late"' in home
    assert "700000000000000000" not in home
    assert {k: v for k, v in points(machine).items() if k[0] != "home"} == {
        k: v for k, v in before.items() if k[0] != "home"
    }


def test_several_together(person, place):
    """A service and all of InfluxDB can be named together, and the rest stays."""
    machine, top, words = place
    change(machine, top)
    only = ("--only", "nodered", "--only", "influxdb")
    said = person.iot("restore", "--runtag", "only", *only, *words, "--yes")
    assert "  restored: services/nodered, volumes/nodered; databases home, other of" in said
    wait_ping(machine)
    found = points(machine)
    assert {database for database, _ in found} == {"home", "other", "new"}
    assert "late" not in str(found)
    assert (top / "volumes/nodered/data/flows.json").read_text() != "changed"
    assert (top / "volumes/mosquitto/config/mosquitto.conf").read_text() == "changed"


def test_stopped_server(person, pi, place):
    """A database comes back into a server that is stopped, which stays so, with its grants.

    Those went when it was dropped.
    """
    machine, top, words = place
    change(machine, top)
    query(machine, 'DROP DATABASE "home"', "CREATE USER keeper WITH PASSWORD 'x'")
    user = person.user
    compose(machine, "stop", "influxdb", user=user)
    only = ("restore", "--runtag", "only", "--only", "influxdb:home", *words, "--yes")
    said = person.iot(*only, code=3)
    assert 'After creating it: GRANT READ ON "home" TO "left"' in said
    assert "  restored: database home of InfluxDB\n" in said
    assert running(machine) == set(SERVICES) - {"influxdb"}
    compose(machine, "start", "influxdb", user=user)
    wait_ping(machine)
    assert "700000000000000000" in str(points(machine)["home", "autogen"])
    (told,) = query(machine, 'SHOW GRANTS FOR "keeper"')
    assert told[0]["values"] == [["home", "ALL PRIVILEGES"]]


@pytest.mark.parametrize(
    ("only", "said"),
    [
        ("nodrd", "Did you mean nodered? It holds: grafana, influxdb, mosquitto, nodered."),
        ("influxdb:hom", "Did you mean home? It holds: home, other."),
    ],
)
def test_name_that_is_not_there(person, place, only, said):
    """A service or database that the backup does not hold is refused, and what it holds is told."""
    machine, top, words = place
    files, all_points, started = tree(top), points(machine), containers(machine)
    told = person.iot("restore", "--runtag", "only", "--only", only, *words, "--yes", code=13)
    assert said in told
    assert "stops and restarts" not in told
    assert (tree(top), points(machine), containers(machine)) == (files, all_points, started)
