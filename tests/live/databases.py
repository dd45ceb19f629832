"""A stack with MariaDB and PostgreSQL: fill them with what breaks dumps, look at all they hold.

    fresh_database_stack(pi)
    fill_maria(pi)
    before = look_maria(pi)

Two servers that look the same hold the same.
"""

import contextlib
import csv
import io
import json
import re
import shutil
from pathlib import Path

from stand import compose_up, make_iotstack, remove_iotstack
from stand_machine import wait_for

HERE = Path(__file__).resolve().parent
ROOT_PASSWORDS = {"mariadb": "t00r; pass*word &1", "gitea_db": "rootPassword"}
READER_PASSWORDS = {"mariadb": 'it\'s "a" \\ `pass`', "postgres": 'it\'s "a" \\ $pass$'}
ODD_DATABASE = 'Haus & "Hof" \'ä\\'  # as fill-postgres.sql makes it
_ENV = f"""\
MARIADB_ROOT_PASSWORD={ROOT_PASSWORDS["mariadb"]}
MARIADB_USER_PASSWORD=IOtSt4ckmariaDbPw
GITEA_DB_ROOT_PASSWORD={ROOT_PASSWORDS["gitea_db"]}
GITEA_DB_PASSWORD=userPassword
POSTGRES_PASSWORD=IOtSt4ckpostgresDbPw
"""


def make_database_stack(machine, *, user=None):
    """Lay out an IOTstack whose compose file has databases instead of Mosquitto and Grafana."""
    top = make_iotstack(machine, user=user)
    shutil.copyfile(HERE / "docker-compose-databases.yml", top / "docker-compose.yml")
    with (top / ".env").open("a") as file:
        file.write(_ENV)
    return top


def fresh_database_stack(machine, *, version=None, user=None):
    """Remove all containers and both users' IOTstacks; start a new one with empty databases."""
    remove_iotstack(machine)
    top = make_database_stack(machine, user=user)
    compose_up(machine, version=version, user=user)
    wait_databases(machine)
    return top


def wait_databases(machine):
    """Wait until every database of the stack answers."""
    for container in ROOT_PASSWORDS:
        wait_maria(machine, container)
    wait_postgres(machine)


# MariaDB.


def maria(machine, sql, container="mariadb", *, password=None, host="localhost", check=True):
    """Run SQL as root; return the rows of all results as tuples of text, NULL as None."""
    password = ROOT_PASSWORDS[container] if password is None else password
    client = ["mariadb", "-uroot", f"-h{host}", "--batch", "--skip-column-names", "--comments"]
    client += ["--default-character-set=utf8mb4"]
    argv = ["docker", "exec", "-i", "-e", f"MYSQL_PWD={password}", container, *client]
    said = machine.run(argv, input=sql, check=check).stdout
    return [tuple(map(_unescaped, line.split("\t"))) for line in said.split("\n") if line]


def _unescaped(field):
    """What a field of the client's batch mode means."""
    meant = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\"}
    return None if field == "NULL" else re.sub(r"\\(.)", lambda found: meant[found[1]], field)


def wait_maria(machine, container="mariadb", *, password=None, timeout=60):
    """Wait until the real server lets root in: the temporary one knows another root."""

    def ready():
        where = {"container": container, "password": password, "host": "127.0.0.1"}
        return maria(machine, "SELECT 1", **where, check=False) == [("1",)]

    wait_for(container, ready, timeout=timeout, pause=0.5)


@contextlib.contextmanager
def other_password(machine, container="mariadb"):
    """Root's password is another one than the container's environment says."""
    hashed = "JSON_VALUE(priv, '$.authentication_string')"
    asked = f"SELECT {hashed} FROM mysql.global_priv WHERE user = 'root'"  # noqa: S608
    ((old,),) = maria(machine, asked, container)
    maria(machine, "SET PASSWORD = PASSWORD('another')", container)
    try:
        yield
    finally:
        maria(machine, f"SET PASSWORD = '{old}'", container, password="another")


def fill_maria(machine, container="mariadb"):
    """Give the server databases, programs and accounts that a careless dump loses or breaks."""
    maria(machine, (HERE / "fill-mariadb.sql").read_text(), container)


_LOOK_MARIA = """
SELECT 'database', JSON_OBJECT('name', schema_name, 'set', default_character_set_name,
    'collation', default_collation_name) FROM information_schema.schemata
    WHERE schema_name NOT IN (OWN);
SELECT 'view', JSON_OBJECT('schema', table_schema, 'name', table_name, 'is', view_definition,
    'definer', definer, 'security', security_type, 'check', check_option)
    FROM information_schema.views WHERE table_schema NOT IN (OWN);
SELECT 'trigger', JSON_OBJECT('schema', trigger_schema, 'name', trigger_name, 'table',
    event_object_table, 'when', action_timing, 'event', event_manipulation, 'is', action_statement,
    'definer', definer, 'mode', sql_mode)
    FROM information_schema.triggers WHERE trigger_schema NOT IN (OWN);
SELECT 'routine', JSON_OBJECT('schema', db, 'name', name, 'type', type, 'takes', CONVERT(param_list
    USING utf8mb4), 'returns', CONVERT(returns USING utf8mb4), 'is', CONVERT(body USING utf8mb4),
    'definer', definer, 'security', security_type, 'mode', sql_mode, 'deterministic',
    is_deterministic) FROM mysql.proc WHERE db NOT IN (OWN);
SELECT 'event', JSON_OBJECT('schema', event_schema, 'name', event_name, 'every', interval_value,
    'unit', interval_field, 'starts', starts, 'status', status, 'is', event_definition, 'definer',
    definer, 'comment', event_comment) FROM information_schema.events;
SELECT 'account', JSON_OBJECT('host', host, 'user', user, 'plugin', JSON_VALUE(priv, '$.plugin'),
    'hash', JSON_VALUE(priv, '$.authentication_string'), 'access', JSON_VALUE(priv, '$.access'),
    'role', JSON_VALUE(priv, '$.is_role'), 'connections', JSON_VALUE(priv,
    '$.max_user_connections')) FROM mysql.global_priv;
SELECT 'grant', JSON_OBJECT('to', grantee, 'on', table_schema, 'may', privilege_type, 'give',
    is_grantable) FROM information_schema.schema_privileges;
SELECT 'grant', JSON_OBJECT('to', grantee, 'on', CONCAT_WS('/', table_schema, table_name), 'may',
    privilege_type, 'give', is_grantable) FROM information_schema.table_privileges;
SELECT 'grant', JSON_OBJECT('to', grantee, 'on', CONCAT_WS('/', table_schema, table_name,
    column_name), 'may', privilege_type, 'give', is_grantable)
    FROM information_schema.column_privileges;
SELECT 'member', JSON_OBJECT('host', host, 'user', user, 'role', role, 'admin', admin_option)
    FROM mysql.roles_mapping;
SELECT 'versioned', JSON_ARRAY(table_schema, table_name) FROM information_schema.tables
    WHERE table_type = 'SYSTEM VERSIONED';
SELECT 'column', table_schema, table_name, column_name, data_type
    FROM information_schema.columns JOIN information_schema.tables
    USING (table_schema, table_name) WHERE table_type <> 'VIEW' AND table_schema NOT IN (OWN)
    ORDER BY table_schema, table_name, ordinal_position;
""".replace("OWN", "'information_schema', 'mysql', 'performance_schema', 'sys'")
_BINARY = {"binary", "bit", "blob", "longblob", "mediumblob", "point", "tinyblob", "varbinary"}


def look_maria(machine, container="mariadb", *, password=None):
    """All that a server holds: kind -> sorted rows, and (database, table) -> its making, its rows."""
    found, columns = {}, {}
    for kind, *values in maria(machine, _LOOK_MARIA, container, password=password):
        if kind == "column":
            columns.setdefault(tuple(values[:2]), []).append(values[2:])
        else:
            found.setdefault(kind, []).append(values[0])
    found = {kind: sorted(rows) for kind, rows in found.items()}
    versioned = [tuple(json.loads(each)) for each in found.get("versioned", ())]
    sql = []
    for (database, table), each in columns.items():
        name = f"{_named(database)}.{_named(table)}"
        pairs = [
            f"{_quoted(column)}, {'HEX' if kind in _BINARY else ''}({_named(column)})"
            for column, kind in each
        ]
        rows = f"SELECT JSON_OBJECT({', '.join(pairs)}) FROM {name}"  # noqa: S608 - a test's own names
        if (database, table) in versioned:
            ever = ", 'from', ROW_START, 'until', ROW_END)"
            rows = rows.replace(") FROM", f"{ever} FROM") + " FOR SYSTEM_TIME ALL"
        sql.append(f"SHOW CREATE TABLE {name}; {rows}; SELECT NULL;")
    rows = iter(maria(machine, "\n".join(sql), container, password=password))
    for table in columns:
        (_, made), *of_table = iter(lambda: next(rows), (None,))
        found[table] = [made, *sorted(row for (row,) in of_table)]
    return found


def _named(name):
    return "`" + name.replace("`", "``") + "`"


def _quoted(text):
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


# PostgreSQL.


def postgres(machine, sql, database="postdb", user="postuser", **where):
    """Run SQL; return the rows of all results as tuples of text, NULL as None.

    `where` are `container`, `host` (else the socket) and `check`.
    """
    client = ["psql", "-X", "-q", "-t", "--csv", "-v", "ON_ERROR_STOP=1", "-P", "null=NULL"]
    client += ["-U", user, "-d", database, *(["-h", where["host"]] if "host" in where else [])]
    argv = ["docker", "exec", "-i", where.get("container", "postgres"), *client]
    said = machine.run(argv, input=sql, check=where.get("check", True)).stdout
    rows = csv.reader(io.StringIO(said, newline=""))
    return [tuple(None if field == "NULL" else field for field in row) for row in rows]


def wait_postgres(machine, container="postgres", *, timeout=60):
    """Wait until the real server answers: the temporary one listens on its socket only."""

    def ready():
        where = {"container": container, "host": "127.0.0.1"}
        return postgres(machine, "SELECT 1", **where, check=False) == [("1",)]

    wait_for(container, ready, timeout=timeout, pause=0.5)


def fill_postgres(machine, container="postgres"):
    """Give the server databases, programs and roles that a careless dump loses or breaks."""
    postgres(machine, (HERE / "fill-postgres.sql").read_text(), container=container)
    postgres(machine, _FILL_ODD_DATABASE, ODD_DATABASE, container=container)


_FILL_ODD_DATABASE = """
CREATE EXTENSION pgcrypto;
CREATE TABLE many AS SELECT n, repeat(chr(65 + n % 26), n % 300) AS name FROM generate_series(1, 1000) n;
"""
_LOOK_CLUSTER = """
SELECT 'role', to_jsonb(r) - 'oid' FROM pg_authid r WHERE rolname NOT LIKE 'pg\\_%';
SELECT 'member', to_jsonb(m) FROM (SELECT roleid::regrole, member::regrole, admin_option
    FROM pg_auth_members WHERE roleid >= 16384) m;
SELECT 'setting', to_jsonb(s) FROM (SELECT datname, setrole::regrole, setconfig
    FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase) s;
SELECT 'database', to_jsonb(d) FROM (SELECT datname, datdba::regrole, encoding, datcollate,
    datctype, SORTED(datacl) AS datacl FROM pg_database) d;
"""
_LOOK_DATABASE = """
SELECT 'schema', to_jsonb(s) FROM (SELECT nspname, nspowner::regrole, SORTED(nspacl) AS nspacl
    FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$') s;
SELECT 'relation', to_jsonb(r) FROM (SELECT c.oid::regclass, relkind, relowner::regrole,
    SORTED(relacl) AS relacl, CASE WHEN relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END AS view, obj_description(c.oid) AS comment,
    CASE relkind WHEN 'i' THEN pg_get_indexdef(c.oid) END AS index
    FROM pg_class c WHERE MINE(relnamespace)) r;
SELECT 'attribute', to_jsonb(a) FROM (SELECT attrelid::regclass, attname, attnotnull, SORTED(attacl) AS attacl,
    format_type(atttypid, atttypmod) AS type, pg_get_expr(adbin, adrelid) AS value, attidentity,
    attgenerated FROM pg_attribute JOIN pg_class c ON c.oid = attrelid LEFT JOIN pg_attrdef
    ON adrelid = attrelid AND adnum = attnum WHERE attnum > 0 AND MINE(relnamespace)) a;
SELECT 'constraint', to_jsonb(c) FROM (SELECT conrelid::regclass, conname,
    pg_get_constraintdef(oid) AS is FROM pg_constraint WHERE MINE(connamespace)) c;
SELECT 'function', pg_get_functiondef(oid) FROM pg_proc WHERE MINE(pronamespace) AND prokind = 'f';
SELECT 'trigger', pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal;
SELECT 'enum', to_jsonb(e) FROM (SELECT enumtypid::regtype, enumlabel, row_number() OVER (
    PARTITION BY enumtypid ORDER BY enumsortorder) FROM pg_enum) e;
SELECT 'sequence', to_jsonb(s) - '{last_value}'::text[] || jsonb_build_object('last', last_value)
    FROM pg_sequences s;
SELECT 'extension', extname || ' ' || extversion FROM pg_extension;
SELECT 'large object', to_jsonb(l) FROM (SELECT oid, lomowner::regrole, SORTED(lomacl) AS lomacl, lo_get(oid)
    FROM pg_largeobject_metadata) l;
"""
_LOOK_TABLES = """
SELECT format('SELECT %L, to_jsonb(t) FROM %s t;', 'rows of ' || c.oid::regclass, c.oid::regclass)
    FROM pg_class c WHERE relkind IN ('r', 'm') AND MINE(relnamespace);
"""


def look_postgres(machine, container="postgres"):
    """All that a server holds: (database, kind) -> sorted rows; roles are of the database ""."""

    def ask(sql, database):
        return postgres(machine, _plain(sql), database, container=container)

    found = {}
    names = ask("SELECT datname FROM pg_database WHERE datallowconn", "postgres")
    for (name,) in [("",), *names]:
        tables = "".join(sql for (sql,) in ask(_LOOK_TABLES, name)) if name else ""
        sql = _LOOK_DATABASE + tables if name else _LOOK_CLUSTER
        for kind, row in ask(sql, name or "postgres"):
            found.setdefault((name, kind), []).append(row)
    return {key: sorted(rows) for key, rows in found.items()}


def _plain(sql):
    """The SQL without its two abbreviations: MINE(a schema, not the server's own), SORTED(rights)."""
    own = "(SELECT nspname !~ '^pg_|^information_schema$' FROM pg_namespace n WHERE n.oid = "
    rights = r"(SELECT array_agg(one::text ORDER BY one::text) FROM unnest(\1) one)"
    return re.sub(r"SORTED\((\w+)\)", rights, sql.replace("MINE(", own))
