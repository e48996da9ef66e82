"""What all four packages share."""
