"""Audio codecs behind one interface."""
