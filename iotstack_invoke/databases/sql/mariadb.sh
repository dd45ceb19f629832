# Runs in a MariaDB container:
#   sh -c THIS sh ready | dump [MARK] | end MARK | held | keep DATABASES USERS | ask QUESTION |
#     load named|unnamed FILE|QUESTION…
# unnamed: into the database that the container's environment names; other dumps name their own.
# held: tells databases (d) and users (u) in hexadecimal. keep: dumps these alone, for a server that
# has others; they are lists for SQL: X'…' and (X'…', X'…').
# MARK is STACK-RUN: a dump first ends those that dead runs of its stack left; end ends those of its run.
# The password comes from the container's own environment: it is on no command line.
set -eu
lacks() { echo "it has no program $1 or $2" >&2; exit 127; }

# By TCP: the server that an image makes its databases with answers on the socket only. That root
# cannot log in does not matter to `ping`.
if [ "$1" = ready ]; then
  command -v mariadb-dump >/dev/null || command -v mysqldump >/dev/null || lacks mariadb-dump mysqldump
  admin=$(command -v mariadb-admin || command -v mysqladmin) || lacks mariadb-admin mysqladmin
  exec "$admin" --protocol=tcp --host=127.0.0.1 --connect-timeout=5 ping
fi

# Its programs alone, by the mark in their environment: the server ends their session with them, whatever
# it waits for, and their shell ends by itself. What a shell leaves behind would become the server's.
end_dumps() {
  tries=0
  while [ $tries -lt 10 ]; do
    found=
    for each in /proc/[0-9]*; do
      { read -r name <"$each/comm"; } 2>/dev/null || continue
      case $name in mariadb* | mysql*) ;; *) continue ;; esac
      case " $(tr '\000' ' ' 2>/dev/null <"$each/environ")" in *" IOTSTACK_DUMP=$1"*)
        kill "${each#/proc/}" && found=yes ;;
      esac
    done 2>/dev/null
    [ -n "$found" ] || return 0
    [ $tries != 0 ] || echo "ended: $2" >&2
    tries=$((tries + 1))
    sleep 1
  done
}
case $1 in
end) end_dumps "$2 " 'the dump of this run'; exit ;;
dump)
  if [ -n "${2-}" ]; then
    end_dumps "${2%-*}-" 'a dump that went on in it after its run was killed'
    export IOTSTACK_DUMP="$2"
  fi ;;
esac

client=$(command -v mariadb || command -v mysql) || lacks mariadb mysql
talk() { "$client" --user=root --default-character-set=utf8mb4 --batch --skip-column-names "$@"; }
ask() { talk --raw --execute="$1" </dev/null; }
# Without --raw a name is one line whatever is in it: a newline is told as \n.
list() { talk --execute="$1" </dev/null; }
plain() { printf '%b' "$1"; }
save() {
  "$dump" --user=root --default-character-set=utf8mb4 --single-transaction --quick --hex-blob \
    --max-allowed-packet=1G "$@"
}

# Without a password only where none was set: the server of an image's first start lets in that way.
export MYSQL_PWD
let_in= first=
for name in MARIADB_ROOT_PASSWORD MYSQL_ROOT_PASSWORD NONE; do
  eval "MYSQL_PWD=\${$name-} file=\${${name}_FILE-\${FILE__$name-}}"
  [ -z "$file" ] || MYSQL_PWD=$(cat "$file")
  [ -n "$MYSQL_PWD" ] || [ $name = NONE ] || continue
  told=$(ask "SELECT 1" 2>&1) && let_in=yes && break
  : "${first:=$told}"
done
[ -n "$let_in" ] || { echo "the login of root was refused: $first" >&2; exit 77; }

ours="('information_schema', 'performance_schema', 'mysql', 'sys')"
case $1 in
dump | keep)
  which="NOT IN $ours" databases= users=
  [ "$1" = dump ] || databases=$2 users=$3 which="IN ($2)"
  # Two programs write it: what ends between them looks whole but for this (read_dump.py).
  echo '-- This dump ends with FLUSH PRIVILEGES;'
  dump=$(command -v mariadb-dump || command -v mysqldump)
  set --
  # Of a view that names what is gone mariadb-dump ends amid its dump (10.11).
  views=$(list "SELECT CONCAT('\`', REPLACE(table_schema, '\`', '\`\`'), '\`.\`', REPLACE(table_name, '\`',
    '\`\`'), '\`'), CONCAT(table_schema, '.', table_name) FROM information_schema.views
    WHERE table_schema $which")
  while IFS='	' read -r quoted name; do
    [ -n "$quoted" ] && ! told=$(ask "SHOW FIELDS FROM $(plain "$quoted")" 2>&1) || continue
    case $told in *"ERROR 1356 "*)
      set -- "$@" "--ignore-table=$(plain "$name")"
      printf '%s\n' "left out: view $quoted, which names a table, column or function that is gone. Make that again, or DROP VIEW $quoted" >&2
    esac
  done <<END
$views
END
  # The history of tables WITH SYSTEM VERSIONING is in the dump where its program can (10.11). With
  # one whose history is by transaction it can of none.
  versioned=$(list "SELECT IF(data_type = 'bigint', 'by transaction', 'by time'), CONCAT('\`', REPLACE(table_schema,
    '\`', '\`\`'), '\`.\`', REPLACE(table_name, '\`', '\`\`'), '\`') FROM information_schema.tables LEFT JOIN
    (SELECT table_schema, table_name, data_type FROM information_schema.columns
    WHERE generation_expression = 'ROW START') AS starts USING (table_schema, table_name)
    WHERE table_type = 'SYSTEM VERSIONED' AND table_schema $which")
  history=
  case $versioned in '' | *'by transaction	'*) ;; *)
    case $("$dump" --help 2>/dev/null) in *--dump-history*) history=--dump-history ;; esac
  esac
  while IFS='	' read -r _ quoted; do
    [ -z "$quoted" ] || [ -n "$history" ] ||
      printf '%s\n' "left out: the history of table $quoted (WITH SYSTEM VERSIONING): its rows of now are in the dump, those of before are not. To keep them, copy them into a plain table: SELECT * FROM $quoted FOR SYSTEM_TIME ALL" >&2
  done <<END
$versioned
END
  # Both are programs of the image, which a server that is made anew does not load by itself.
  list "SELECT CONCAT('left out: plugin ', name, ' of library ', dl, ', which a restored server does not load by ',
    'itself. Let its settings load it (plugin_load_add = ', dl, '), or tell it: INSTALL SONAME ''', dl, '''') FROM
    mysql.plugin; SELECT CONCAT('left out: function ', name, ' of library ', dl, ', which a restored server does not ',
    'know. Tell it: CREATE ', IF(type = 'aggregate', 'AGGREGATE ', ''), 'FUNCTION \`', REPLACE(name, '\`', '\`\`'),
    '\` RETURNS ', ELT(ret + 1, 'STRING', 'REAL', 'INTEGER', 'ROW', 'DECIMAL'), ' SONAME ''', dl, '''') FROM mysql.func" >&2 ||
    echo 'left out: which plugins and functions of libraries it knows: it does not tell' >&2
  set -- "$@" --databases --
  options=$#
  names=$(list "SELECT schema_name FROM information_schema.schemata WHERE schema_name $which")
  while IFS= read -r name; do [ -z "$name" ] || set -- "$@" "$(plain "$name")"; done <<END
$names
END
  [ $# = $options ] || save --routines --events --triggers $history "$@"
  # Users as rows: `--system=users` of mariadb-dump 10.11 writes statements that fail (GRANT PROXY).
  tables=$(ask "SELECT table_name FROM information_schema.tables WHERE table_schema = 'mysql' AND
    table_type = 'BASE TABLE' AND table_name IN ('global_priv', 'user', 'db', 'tables_priv',
    'columns_priv', 'procs_priv', 'proxies_priv', 'roles_mapping', 'servers')")
  echo 'USE `mysql`;'
  if [ -z "$users" ]; then
    for table in $tables; do echo "DELETE FROM \`$table\`;"; done
    save --no-create-info --complete-insert --skip-triggers mysql $tables
  else
    for table in $tables; do
      case $table in
      global_priv | user | proxies_priv) where="(User, Host) IN ($users)" ;;
      roles_mapping) where="(User, Host) IN ($users) OR (Role, '') IN ($users)" ;;
      servers) where=TRUE ;;
      # Here the name of a database may be a pattern.
      db) where="(User, Host) IN ($users) OR Db IN ($databases) OR EXISTS (SELECT 1 FROM
        information_schema.schemata WHERE schema_name IN ($databases) AND
        CAST(schema_name AS BINARY) LIKE CAST(Db AS BINARY))" ;;
      *) where="(User, Host) IN ($users) OR Db IN ($databases)" ;;
      esac
      save --no-create-info --complete-insert --skip-triggers --insert-ignore --where="$where" mysql $table
    done
  fi
  echo 'FLUSH PRIVILEGES;'
  ;;
held)
  ask "SELECT CONCAT('d ', HEX(schema_name)) FROM information_schema.schemata WHERE schema_name NOT IN $ours;
    SELECT CONCAT('u ', HEX(User), '/', HEX(Host)) FROM mysql.user"
  ;;
ask) ask "$2" ;;
load)
  database=
  [ "$2" = named ] || database=${MARIADB_DATABASE:-${MYSQL_DATABASE:?names the database of this dump}}
  shift 2
  # The folders that its tables name (DATA DIRECTORY) hold the live ones of another server.
  mode="/^[^ ]* SET @OLD_SQL_MODE=/s/NO_AUTO/NO_DIR_IN_CREATE,NO_AUTO/"
  # In one session: the next one would need the password that the dump brought. Nor does a binary
  # log need to hold all of it once more.
  { echo 'SET SESSION sql_log_bin = 0;'
    for each; do
      case $each in
      /*) head -n 40 "$each" | sed "$mode"; tail -n +41 "$each" ;;
      *) printf '%s;\n' "$each" ;;
      esac
    done; } |
    talk --binary-mode --comments --max-allowed-packet=1G ${database:+"$database"}
  ;;
esac
