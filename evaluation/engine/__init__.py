"""From codecs and clips to rows: coding, alignment, embedding and scoring."""
