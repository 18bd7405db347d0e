"""What both LanceDB databases here need: how it says that another process was quicker."""

# What LanceDB 0.40 says when another process has changed the table; it has no class of its own for it.
_CONFLICTS = ("commit conflict", "Incompatible transaction")


def is_conflict(error: BaseException) -> bool:
    """Whether a change failed because another process changed the same table meanwhile."""
    return any(conflict in str(error) for conflict in _CONFLICTS)
