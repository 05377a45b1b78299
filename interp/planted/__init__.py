"""Models with a known answer inside: weights set by hand, against which every instrument is tested, and scrambled twins.

Each module builds one such model and lists, by ``rows()``, what the instruments say about it and about its twin;
``selfimprove benchmark planted`` gathers them.
"""
