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
ready) exec pg_isready --host=127.0.0.1 ;;
dump)
  # pg_dumpall ends with a half line for such a name; pg_dump has no way to write it (15).
  odd=$(ask "SELECT string_agg('ALTER DATABASE U&\"' || replace(replace(replace(replace(datname, '\\',
    '\\\\'), '\"', '\"\"'), chr(10), '\\000a'), chr(13), '\\000d') || '\" RENAME TO another_name;', ' ')
    FROM pg_database WHERE datallowconn AND datname ~ '[\\n\\r]'")
  if [ -n "$odd" ]; then
    printf '%s\n' "PostgreSQL's own programs dump no database that has a newline in its name: $odd" >&2
    exit 78
  fi
  exec pg_dumpall --no-password
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
