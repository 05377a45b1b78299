"""Studies and benchmarks: run them with `selfimprove study NAME` and `selfimprove benchmark NAME`."""
