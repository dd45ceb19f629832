"""MariaDB and PostgreSQL: dumps of SQL."""
