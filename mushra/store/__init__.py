"""The data base of a test's results, and what is exported from it."""
