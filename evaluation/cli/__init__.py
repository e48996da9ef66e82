"""The command `evaluate` and its subcommands."""
