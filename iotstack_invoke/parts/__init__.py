"""The parts of a set as a whole: services with their database, verification, RESTORE.txt."""
