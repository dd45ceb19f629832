"""Backup and restore of an IOTstack. The packages, from the ground up; each says more itself.

A package uses only packages of the lines before its own.

    core                     errors, runtags, units, gzip streams
    services  hosts          known services; machines, and places for files
    engine                   rules, plans, the journal, what carries them out
    backups  reporting       sets and their manifests; what a person sees
    settings                 hosts.toml
    stack                    the compose project and its containers
    vaults  archives         where copies live; tar
    databases  environment   dumps, one folder a kind; a stack with its backups and vaults
    parts                    whole parts of a set: verified, described
    workflows  monitoring    the rules: read them first; who is told of what
    commands                 what each task does
    cli                      flags and exit codes; the console program
"""

__version__ = "0.2.0"
