"""Numbers of all clips together: means, intervals, tests, distances, codebooks."""
