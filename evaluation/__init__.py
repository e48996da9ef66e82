"""Fair, rate-matched evaluation of audio codecs."""
