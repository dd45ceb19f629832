"""Backup and restore of an IOTstack. The map of the house, from the ground up.

A room imports only from rooms below it, or beside it where no circle arises.

    errors  gzips  nearest  values         what can go wrong; gzip streams; near names; records;
    known_hosts                            what known_hosts says of a key
    runtag  steps  children  durations     a backup's name; what a step is; what runs for us; 26h;
    json_answers  toml_text                programs' answers as JSON, TOML of others: read strictly
    settings  rows  mistakes  rules        hosts.toml, as text, its mistakes; patterns, rules;
    manifest  sets                         what a set holds
    holdings  retention  losses            what a set holds; which stay; what one holds less of;
    services/table                         which service is saved how
    plan  journal  runner                  what runs and why; what to undo; Invoke, mended
    services/influx_log, _meta, _shard,    InfluxDB's words, its catalogue, its files; what a dump
    _check; sql_dump                       must hold; what a dump of SQL must hold
    hosts  login  sftp  sftp_place  hashes this machine; others, with a shell or SFTP alone;
    ssh_config  ssh_line                   how ssh reaches them; lines that are opened so;
    login_shell  pasted                    what any login shell is sent, where its answer begins;
                                           commands for people to paste;
    remote  vaults  targets  transfer      where copies live, plain or sealed; what a restore is
    checks  owner                          made to; copies between them; what verifications found;
                                           what the owner said of old backups
    trust                                  whether what is read back was written by us
    services/archive, compose, influx      the steps of each part; members: what an archive holds;
                                           compose_files, compose_text: what compose reads;
                                           hook_files: what hooks name of it;
                                           sizes: how much; leave_out: what it need not hold;
                                           left_out: and stays where it is;
                                           reading: archives read to their last byte;
                                           stack: stop, swap, start; influx_server, influx_dump,
                                           influx_load, influx_count: load and prove;
                                           influx2, influx2_check: InfluxDB 2, experimental;
                                           sql, sql_pack, sql_load, sql_config: MariaDB and
                                           PostgreSQL;
                                           alone: containers of our own;
                                           sqlite, sqlite_copy: databases in files, copied whole;
                                           quiesce, at_rest: who is quiet or stopped meanwhile;
                                           recipe: services saved with their database;
                                           restore_text, restore_steps: RESTORE.txt;
                                           step_words: what is shown of a step
    bars  engine  log  report  site        a plan, done; what is written down; what is seen; where
    changes  findings  hooks  wrapping     the stack, its backups and its vaults are; what is fit;
                                           which restore a journal is of; the owner's own programs
                                           before and after; long lines at a terminal
    rulebooks/                             the rules: read them first
    actions/                               what a task does, from the first look to the last word
    doors  tasks  program  command         flags and exit codes; the tasks; the console script
"""

__version__ = "0.1.0"
