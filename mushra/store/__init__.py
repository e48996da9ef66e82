"""The data base of a test's results, and exports from it."""
