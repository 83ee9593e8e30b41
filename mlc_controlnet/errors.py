"""The one error that a user can cause, in four parts."""


class UserError(Exception):
    """A mistake of the user's: the command line prints it on one line and exits with 2, without a traceback.

    Anything else that is raised is a failure of ours and keeps its traceback.
    """

    def __init__(self, subject: str, got: str, wanted: str, remedy: str) -> None:
        super().__init__(subject, got, wanted, remedy)
        self.subject = subject  # the thing at fault: a file, an option, a tensor
        self.got = got  # what it is
        self.wanted = wanted  # what it should be
        self.remedy = remedy  # what the user can do now

    def __str__(self) -> str:
        return f"{self.subject}: got {self.got}, wanted {self.wanted}; {self.remedy}"
