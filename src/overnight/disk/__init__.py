"""Files: the truth of artifacts."""
