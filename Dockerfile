# For GPU nodes. UNTESTED: it was never built or run; see docs/how-to/cluster.md for what is known about containment in a container.
#
#     docker build -t selfimprove .
#     docker run --rm --gpus all -v "$PWD/runs:/home/researcher/runs" selfimprove doctor
#     docker run --rm --gpus all -v "$PWD/runs:/home/researcher/runs" selfimprove run experiment=gpu
#
# torch's wheel brings the CUDA libraries; the driver is the host's, through the NVIDIA container toolkit. Landlock and seccomp are the host
# kernel's. Docker's default profile refuses user namespaces, so the outer layer (bubblewrap) is not to be expected: the lock-down stands alone.
FROM python:3.12-slim

ARG TORCH=2.13.0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

WORKDIR /opt/selfimprove
COPY constraints.txt ./
RUN pip install -c constraints.txt "torch==${TORCH}"

COPY pyproject.toml README.md LICENSE ./
COPY benchmarks/results/ladder benchmarks/results/ladder
COPY conf conf
COPY interp interp
COPY selfimprove selfimprove
RUN pip install -c constraints.txt ".[outer]"

# An ordinary user: the ledger's key and anchor lie in its home, outside of every run folder
RUN useradd --create-home researcher && mkdir -p /home/researcher/runs && chown researcher /home/researcher/runs
USER researcher
WORKDIR /home/researcher

ENTRYPOINT ["selfimprove"]
CMD ["doctor"]
