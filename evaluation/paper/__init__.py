"""The paper's tables and figures, computed here and printed beside the paper's values."""
