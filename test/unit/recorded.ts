// What real litestream binaries printed, with paths shortened, times and ids as they were.

const HEAD = `litestream is a tool for replicating SQLite databases.

Usage:

	litestream <command> [arguments]

The commands are:

`;

/** What `litestream` prints without a command. */
export const COMMANDS = {
  /** 0.3.9, 0.3.13 and 0.3.14 */
  "0.3": `${HEAD}	databases    list databases specified in config file
	generations  list available generations for a database
	replicate    runs a server to replicate databases
	restore      recovers database backup from a replica
	snapshots    list available snapshots for a database
	version      prints the binary version
	wal          list available WAL files for a database

`,
  "0.5.5": `${HEAD}	databases    list databases specified in config file
	ltx          list available LTX files for a database
	replicate    runs a server to replicate databases
	restore      recovers database backup from a replica
	version      prints the binary version

`,
  /** 0.5.10, 0.5.17 and 0.5.18 */
  "0.5.17": `${HEAD}	databases    list databases specified in config file
	info         show daemon information
	list         list all managed databases
	ltx          list available LTX files for a database
	register     register a database for replication
	replicate    runs a server to replicate databases
	reset        reset local state for a database
	restore      recovers database backup from a replica
	start        start replication for a database
	status       display replication status for databases
	stop         stop replication for a database
	sync         force an immediate sync for a database
	unregister   unregister a database from replication
	version      prints the binary version

`,
};

const HELP_HEAD = `The replicate command starts a server to monitor & replicate databases.
You can specify your database & replicas in a configuration file or you can
replicate a single database file by specifying its path and its replicas in the
command line arguments.

Usage:

	litestream replicate [arguments]

	litestream replicate [arguments] DB_PATH REPLICA_URL

Arguments:

	-config PATH
	    Specifies the configuration file.
	    Defaults to /etc/litestream.yml

	-exec CMD
	    Executes a subcommand. Litestream will exit when the child
	    process exits. Useful for simple process management.
`;

/** What `litestream replicate -h` prints. */
export const REPLICATE_HELP = {
  "0.5.5": `${HELP_HEAD}
	-no-expand-env
	    Disables environment variable expansion in configuration file.

`,
  /** 0.5.6 – 0.5.10; 0.5.17 and 0.5.18 have more behind it, and the same */
  "0.5.10": `${HELP_HEAD}
	-once
	    Replicate once and exit. This performs a single sync of all
	    databases and their replicas, then exits. Cannot be used with -exec.

	-force-snapshot
	    Force a snapshot to be taken for all databases. Requires -once.
	    This is useful for creating a complete backup before maintenance
	    or when migrating databases between hosts.

	-enforce-retention
	    Enforce retention policies for old snapshots. Requires -once.
	    This removes snapshots that are older than the configured
	    snapshot retention period.

`,
};

const RESTORE_HEAD = `The restore command recovers a database from a backup.
`;

/** A part of what `litestream restore -h` prints. */
export const RESTORE_HELP = {
  "0.3": `${RESTORE_HEAD}
	-timestamp TIMESTAMP
	    Restore to a specific point-in-time.
	    Defaults to use the latest available backup.

	-v
	    Verbose output.

`,
  "0.5.5": `${RESTORE_HEAD}
	-parallelism NUM
	    Determines the number of WAL files downloaded in parallel.
	    Defaults to 8

`,
  /** 0.5.10 and 0.5.17; 0.5.18 has other words for -parallelism */
  "0.5.10": `${RESTORE_HEAD}
	-parallelism NUM
	    Determines the number of WAL files downloaded in parallel.
	    Defaults to 8

	-integrity-check MODE
	    Run a post-restore integrity check on the database.
	    MODE is one of: none, quick, full.

`,
};
