"""The command `mushra` and its subcommands."""
