"""The base of every error that the user can mend."""


class UserError(Exception):
    """Something that only the user can mend; each argument is a message that says how."""

    def __str__(self) -> str:
        """Return all messages, one on a line."""
        return "\n".join(map(str, self.args))
