"""What a user can do wrong."""


class InputError(ValueError):
    """A sentence for the user: the command prints it and exits with code 2."""
