"""selfimprove: a contained, inspectable toy loop of recursive self-improvement."""

__version__ = "0.1.0"
