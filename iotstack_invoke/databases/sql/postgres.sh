# Runs in a PostgreSQL container:
#   sh -c THIS sh ready | dump [MARK] | end MARK | held | keep DATABASES ROLES | config NAME |
#     ask QUESTION [DATABASE] | load FILE
# held: tells databases (d) and roles (u), as JSON. keep: dumps these alone, for a server that has
# others; they are lists for SQL.
# MARK is STACK-RUN: a dump first ends those that dead runs of its stack left; end ends those of its run.
# The password comes from the container's own environment: it is on no command line.
set -eu
export PGUSER="${POSTGRES_USER:-postgres}" PGPASSWORD="${POSTGRES_PASSWORD-}" PGDATABASE=postgres
[ -z "${POSTGRES_USER_FILE-}" ] || PGUSER=$(cat "$POSTGRES_USER_FILE")
[ -z "${POSTGRES_PASSWORD_FILE-}" ] || PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
# What a dump sets of a database or role (ALTER DATABASE … SET) holds for what it loads next.
export PGOPTIONS="${PGOPTIONS-} -c default_transaction_read_only=off -c statement_timeout=0"

ask() {
  psql --no-psqlrc --no-password --quiet --tuples-only --no-align --dbname="${2:-postgres}" --command="$1"
}

# By the server: as its first process it takes what a signal ended, and nobody waits for, for a crash.
# The programs end when their session is gone.
end_dumps() {
  tries=0
  while [ $tries -lt 10 ]; do
    ended=$(ask "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
      WHERE application_name LIKE '$1'" 2>/dev/null) || return 0
    [ "$ended" != 0 ] || return 0
    [ $tries != 0 ] || echo "ended: $2" >&2
    tries=$((tries + 1))
    sleep 1
  done
}

case $1 in
# By TCP: the server that an image makes its databases with answers on the socket only.
ready)
  command -v pg_dumpall >/dev/null || { echo "it has no program pg_dumpall" >&2; exit 127; }
  exec pg_isready --host=127.0.0.1
  ;;
end) end_dumps "$2" 'the dump of this run' ;;
dump)
  [ -z "${2-}" ] || end_dumps "${2%-*}-%" 'a dump that went on in it after its run was killed'
  quoted="'U&\"' || replace(replace(replace(replace(datname, '\\', '\\\\'), '\"', '\"\"'), chr(10), '\\000a'),
    chr(13), '\\000d') || '\"'"
  # pg_dumpall ends with a half line for such a name; pg_dump has no way to write it (15).
  odd=$(ask "SELECT string_agg('ALTER DATABASE ' || $quoted || ' RENAME TO another_name;', ' ')
    FROM pg_database WHERE datallowconn AND datname ~ '[\\n\\r]'")
  if [ -n "$odd" ]; then
    printf '%s\n' "PostgreSQL's own programs dump no database that has a newline in its name: $odd" >&2
    exit 78
  fi
  # pg_dumpall passes over such a database without a word.
  ask "SELECT 'left out: database ' || name || ', which lets nobody connect: ALTER DATABASE ' || name ||
    ' ALLOW_CONNECTIONS true, or DROP DATABASE ' || name FROM (SELECT CASE WHEN datname ~ '[\\n\\r]'
    THEN $quoted ELSE quote_ident(datname) END AS name FROM pg_database
    WHERE NOT datallowconn AND datname <> 'template0') AS closed ORDER BY name" >&2
  # Another machine has not their folders, and this one has them in use: all goes into the default one.
  ask "SELECT 'comes back elsewhere: tablespace ' || translate(spcname || ' (at ' || pg_tablespace_location(oid),
    chr(10) || chr(13), '??') || '); its tables are in the dump, and a restore puts them into the default' ||
    ' tablespace' FROM pg_tablespace WHERE spcname !~ '^pg_' ORDER BY spcname" >&2
  [ -z "${2-}" ] || export PGAPPNAME="$2"
  exec pg_dumpall --no-password --no-tablespaces
  ;;
held)
  ask "SELECT 'd ' || to_json(datname::text) FROM pg_database
    WHERE datname NOT IN ('template0', 'template1', 'postgres')
    UNION ALL SELECT 'u ' || to_json(rolname::text) FROM pg_roles WHERE rolname !~ '^pg_'"
  ;;
keep)
  odd=$(ask "SELECT string_agg(translate(datname, chr(10) || chr(13), '??'), ', ') FROM pg_database
    WHERE datname IN ($2) AND (NOT datallowconn OR datname ~ '[\n\r]')")
  if [ -n "$odd" ]; then
    printf '%s\n' "database $odd cannot be dumped: it lets nobody connect, or its name has a newline" >&2
    exit 78
  fi
  # Before version 11 pg_dump passes over these.
  ask "SELECT 'left out: rights and settings of database ' || quote_ident(datname) || ' itself'
    FROM pg_database WHERE datname IN ($2) AND current_setting('server_version_num')::int < 110000" >&2
  # The other databases become the backup's, which knows nothing of these roles.
  ask "SELECT DISTINCT 'left out: ' || translate('the rights, settings and tables of role ' ||
    quote_ident(rolname) || ' in database ' || quote_ident(datname), chr(10) || chr(13), '??') ||
    ', as the backup has that database: give them again' FROM (SELECT refobjid AS role,
    CASE WHEN dbid = 0 AND classid = 'pg_database'::regclass THEN objid ELSE dbid END AS base
    FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass
    UNION SELECT setrole, setdatabase FROM pg_db_role_setting) AS held
    JOIN pg_authid a ON a.oid = role JOIN pg_database d ON d.oid = base
    WHERE rolname IN ($3) AND (datname IN ($2)) IS NOT TRUE" >&2
  ask "SELECT 'CREATE ROLE ' || quote_ident(rolname) || ';' || chr(10) || concat_ws(' ', 'ALTER ROLE',
    quote_ident(rolname), 'WITH', CASE WHEN rolsuper THEN 'SUPERUSER' ELSE 'NOSUPERUSER' END,
    CASE WHEN rolinherit THEN 'INHERIT' ELSE 'NOINHERIT' END,
    CASE WHEN rolcreaterole THEN 'CREATEROLE' ELSE 'NOCREATEROLE' END,
    CASE WHEN rolcreatedb THEN 'CREATEDB' ELSE 'NOCREATEDB' END,
    CASE WHEN rolcanlogin THEN 'LOGIN' ELSE 'NOLOGIN' END,
    CASE WHEN rolreplication THEN 'REPLICATION' ELSE 'NOREPLICATION' END,
    CASE WHEN rolbypassrls THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END,
    'CONNECTION LIMIT ' || rolconnlimit, 'PASSWORD ' || quote_literal(rolpassword),
    'VALID UNTIL ' || quote_literal(rolvaliduntil)) || ';' FROM pg_authid WHERE rolname IN ($3)"
  ask "SELECT 'COMMENT ON ROLE ' || quote_ident(rolname) || ' IS ' ||
    quote_literal(shobj_description(oid, 'pg_authid')) || ';' FROM pg_authid
    WHERE rolname IN ($3) AND shobj_description(oid, 'pg_authid') IS NOT NULL"
  # Of these settings the value is a list whose members are quoted already.
  ask "SELECT 'ALTER ROLE ' || quote_ident(rolname) || ' SET ' || quote_ident(name) || ' TO ' ||
    CASE WHEN lower(name) IN ('search_path', 'temp_tablespaces', 'local_preload_libraries',
    'session_preload_libraries', 'shared_preload_libraries', 'unix_socket_directories')
    THEN value ELSE quote_literal(value) END || ';' FROM (SELECT rolname, split_part(each, '=', 1) AS name,
    substr(each, strpos(each, '=') + 1) AS value FROM pg_db_role_setting
    JOIN pg_authid a ON a.oid = setrole, unnest(setconfig) each
    WHERE setdatabase = 0 AND rolname IN ($3)) AS settings"
  ask "SELECT 'GRANT ' || quote_ident(r.rolname) || ' TO ' || quote_ident(u.rolname) || CASE
    WHEN to_jsonb(m) ? 'set_option' THEN format(' WITH ADMIN %s, INHERIT %s, SET %s',
    to_jsonb(m) ->> 'admin_option', to_jsonb(m) ->> 'inherit_option', to_jsonb(m) ->> 'set_option')
    WHEN admin_option THEN ' WITH ADMIN OPTION' ELSE '' END || ';'
    FROM pg_auth_members m JOIN pg_authid r ON r.oid = roleid JOIN pg_authid u ON u.oid = member
    WHERE r.rolname IN ($3) OR u.rolname IN ($3)"
  names=$(ask "SELECT 'dbname=''' || replace(replace(datname, '\\', '\\\\'), '''', '\\''') || ''''
    FROM pg_database WHERE datname IN ($2) ORDER BY datname")
  while IFS= read -r name; do
    [ -z "$name" ] || pg_dump --no-password --no-tablespaces --create --dbname="$name" </dev/null
  done <<END
$names
END
  echo '-- PostgreSQL database cluster dump complete'
  ;;
config)
  case $2 in
  postgresql.conf) file=$(ask "SHOW config_file") ;;
  pg_hba.conf) file=$(ask "SHOW hba_file") ;;
  pg_ident.conf) file=$(ask "SHOW ident_file") ;;
  *) file=$(ask "SHOW data_directory")/$2 ;;
  esac
  exec cat "$file"
  ;;
ask) ask "$2" "${3-}" ;;
load) exec psql --no-psqlrc --no-password --quiet --file="$2" >/dev/null ;;
esac
