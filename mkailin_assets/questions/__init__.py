"""Questions: two candidates for each citation, and the contexts each one finds."""
