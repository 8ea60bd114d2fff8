"""Why a request gets no answer: an HTTP status, what is wrong, and what the client can do."""

from hangtag.errors import HangtagError

__all__ = ["Refusal"]


class Refusal(HangtagError):
    """An answer with an HTTP status of 400 or more; its body is {"error": message, "hint": hint}.

    Neither says anything about the server's files.
    """

    def __init__(self, status: int, message: str, hint: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message, hint)
        self.status, self.headers = status, headers or {}

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.status, self.message, self.hint, self.headers)
