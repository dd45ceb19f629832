"""The rules: how backup, restore, reload, rehearsal and pull are made. Read them first."""
