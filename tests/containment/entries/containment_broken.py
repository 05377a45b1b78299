"""An entry that cannot be warmed up."""


def warm_up() -> None:
    raise RuntimeError("no such luck")
