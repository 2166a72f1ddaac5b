"""What a user can do wrong, and what a machine cannot do."""


class InputError(ValueError):
    """A sentence for the user: the command prints it and exits with code 2."""


class OutOfMemoryError(RuntimeError):
    """A device has too little memory for what it was given: a sentence for the user, with JAX's error as its cause."""
