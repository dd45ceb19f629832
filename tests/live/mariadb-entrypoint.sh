#!/bin/bash
# Starts as linuxserver/mariadb does, from which IOTstack builds its own: the same folders, accounts
# and owners; at first a temporary server, which has still the accounts without a password.
# With --datadir it keeps its data elsewhere, as the official images do.
set -eu

data=/config/databases
for word; do
    case $word in --datadir=*) data=${word#*=} ;; esac
done

sed -i "s,^abc:.*,abc:x:${PUID:-911}:${PGID:-911}::/config:/bin/false," /etc/passwd
sed -i "s,^abc:.*,abc:x:${PGID:-911}:," /etc/group
mkdir -p "$data" /config/log/mysql /run/mysqld
[ -e /config/custom.cnf ] || cp /defaults/custom.cnf /config/custom.cnf
ln -sf /config/custom.cnf /etc/my.cnf.d/custom.cnf
rm -f /run/mysqld/mysqld.pid
chown -R abc:abc /config "$data" /run/mysqld

quoted() {
    local text=${1//\\/\\\\}
    printf "'%s'" "${text//\'/\'\'}"
}

if [ ! -d "$data/mysql" ]; then
    accounts=$(mktemp)
    {
        echo "DELETE FROM mysql.user WHERE user <> 'mariadb.sys';"
        echo "CREATE USER 'root'@'%' IDENTIFIED BY $(quoted "${MYSQL_ROOT_PASSWORD:-}");"
        echo "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;"
        echo "DROP DATABASE IF EXISTS test;"
        if [ -n "${MYSQL_DATABASE:-}" ] && [ -n "${MYSQL_USER:-}" ] && [ -n "${MYSQL_PASSWORD:-}" ]; then
            user="$(quoted "$MYSQL_USER")@'%'"
            echo "CREATE DATABASE \`$MYSQL_DATABASE\`;"
            echo "CREATE USER $user IDENTIFIED BY $(quoted "$MYSQL_PASSWORD");"
            echo "GRANT ALL PRIVILEGES ON \`$MYSQL_DATABASE\`.* TO $user;"
        fi
    } >"$accounts"
    chown abc:abc "$accounts"
    mariadb-install-db --datadir="$data" --user=abc --auth-root-authentication-method=normal
    "$@" --init-file="$accounts" &
    until mariadb -uroot -e status >/dev/null 2>&1; do
        kill -0 $!
        sleep 0.1
    done
    mariadb-admin -uroot shutdown
    wait $!
    rm "$accounts"
    chown -R abc:abc /config "$data"
fi
exec "$@"
