# docker build -t uringblob .                           a slim runtime image with the package
# docker build -t uringblob-test --target test .        an image whose command runs the tests
#
# Many container runtimes forbid io_uring by seccomp; the store then falls back to the pread
# engine and stats() says so.  To allow it: --security-opt seccomp=unconfined (or a profile with
# io_uring_setup, io_uring_enter and io_uring_register added).

ARG PYTHON=3.12
ARG DEBIAN=bookworm

# ---- the wheel, from the sdist; the extension must build
FROM python:${PYTHON}-slim-${DEBIAN} AS build
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends build-essential liburing-dev \
 && rm -rf /var/lib/apt/lists/*
ENV URINGBLOB_EXT=require PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY . .
RUN pip install --quiet build && python -m build --outdir /dist .

# ---- the tests: docker run --rm uringblob-test
FROM build AS test
RUN pip install --quiet "$(echo /dist/*.whl)[test]"
# /var/tmp of a container is an overlay: name a volume for stores on a real disk.
VOLUME /data
ENV URINGBLOB_TEST_DIR=/data
CMD ["python", "-m", "pytest"]

# ---- what is deployed: no compiler, no liburing (it is linked in), no root
FROM python:${PYTHON}-slim-${DEBIAN} AS runtime
COPY --from=build /dist/*.whl /tmp/
RUN pip install --quiet --no-cache-dir /tmp/*.whl && rm /tmp/*.whl \
 && useradd --system --create-home --home-dir /data uringblob
USER uringblob
WORKDIR /data
VOLUME /data
CMD ["python", "-c", "import uringblob.ring; print('uringblob', uringblob.__version__, 'is installed; stores go to /data')"]
