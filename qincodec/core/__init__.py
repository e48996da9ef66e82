"""Parts that all four packages share."""
