"""A package of somebody's own, with an instrument."""
