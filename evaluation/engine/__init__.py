"""From codecs and clips to rows: what codes, aligns, embeds and scores."""
