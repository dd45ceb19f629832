# Runs in a PostgreSQL container:
#   sh -c THIS sh ready | dump | config NAME | ask QUESTION [DATABASE] | load FILE
# The password comes from the container's own environment: it is on no command line.
set -eu
export PGUSER="${POSTGRES_USER:-postgres}" PGPASSWORD="${POSTGRES_PASSWORD-}" PGDATABASE=postgres
[ -z "${POSTGRES_USER_FILE-}" ] || PGUSER=$(cat "$POSTGRES_USER_FILE")
[ -z "${POSTGRES_PASSWORD_FILE-}" ] || PGPASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")

ask() {
  psql --no-psqlrc --no-password --quiet --tuples-only --no-align --dbname="${2:-postgres}" --command="$1"
}

case $1 in
# By TCP: the server that an image makes its databases with answers on the socket only.
ready)
  command -v pg_dumpall >/dev/null || { echo "it has no program pg_dumpall" >&2; exit 127; }
  exec pg_isready --host=127.0.0.1
  ;;
dump)
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
  exec pg_dumpall --no-password --no-tablespaces
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
