"""One refused value and the field it stands in; the service turns it into an answer to the user."""


class FieldProblem(ValueError):
    """A value that is not accepted. `field` is its path, as in `files[2].path`."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}" if field else why)
        self.field = field
        self.why = why
