"""The prompts of the agents, one versioned Jinja2 file each."""
