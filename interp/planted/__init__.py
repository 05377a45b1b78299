"""Models with a known answer inside, their weights set by hand, and scrambled twins: what instruments are tested on.

A module that has ``rows()`` builds one such model, and lists by it what the instruments say about it and about its
twin; ``selfimprove benchmark planted`` gathers them.
"""
