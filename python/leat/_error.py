"""What fails says why in one sentence."""


class Error(Exception):
    """Something could not be done; str(error) is one sentence that says why."""
