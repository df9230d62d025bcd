from typing import Any

def use_groups(cls: type[Any]) -> None:
    """The class of consumer groups that streams get when they are read."""
