"""What was promised."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bar:
    """A promise: what was measured is at most `limit`."""

    name: str
    measured: float
    limit: float

    @property
    def passed(self) -> bool:
        """Whether it was kept."""
        return self.measured <= self.limit
