# docker build -t uringblob .                           a slim runtime image with the package
# docker build -t uringblob-test --target test .        an image whose command runs the tests
#
# Many container runtimes forbid io_uring by seccomp; the store then falls back to the pread
# engine and stats() says so.  docs/operators/containers.md says what allows it:
#     docker run --security-opt seccomp=docker/seccomp-uringblob.json ...
#
# Building needs no io_uring: the tests are a command, not a build step.

ARG PYTHON=3.12.8
ARG DEBIAN=bookworm

# ---- the wheel; the extension must build
FROM python:${PYTHON}-slim-${DEBIAN} AS build
# Debian's mirrors keep only the newest version of a package, so a pinned one would soon not build.
# hadolint ignore=DL3008
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends gcc libc6-dev liburing-dev libxxhash-dev \
 && rm -rf /var/lib/apt/lists/*
ENV URINGBLOB_EXT=require PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
# What is compiled and how changes seldom; the rest of the tree must not spoil this layer.
RUN pip install --quiet "build>=1.0,<2" "setuptools>=77" "cffi>=1.15,<3" "xxhash>=3.0,<4"
COPY pyproject.toml setup.py build_ffi.py MANIFEST.in README.md LICENSE CHANGELOG.md CONTRIBUTING.md SECURITY.md ./
COPY src ./src
RUN python -m build --no-isolation --wheel --outdir /dist .

# ---- the tests: docker run --rm uringblob-test
FROM build AS test
COPY . .
RUN pip install --quiet "$(echo /dist/*.whl)[test-buckets]" ./benchmarks \
 && useradd --uid 10001 --create-home --home-dir /data uringblob \
 && chown -R uringblob /src
USER 10001
# /var/tmp of a container is an overlay: name a volume for stores on a real disk.
VOLUME /data
ENV URINGBLOB_TEST_DIR=/data
CMD ["python", "-m", "pytest", "-p", "no:cacheprovider", "-n", "3", "--dist", "worksteal"]

# ---- what is deployed: no compiler, no liburing and no libxxhash (they are compiled in), no root
FROM python:${PYTHON}-slim-${DEBIAN} AS runtime
RUN --mount=type=bind,from=build,source=/dist,target=/dist \
    pip install --quiet --no-cache-dir /dist/*.whl \
 && useradd --uid 10001 --create-home --home-dir /data uringblob
USER 10001
WORKDIR /data
VOLUME /data
CMD ["python", "-c", "import uringblob.ring; print('uringblob', uringblob.__version__, 'is installed; stores go to /data')"]
