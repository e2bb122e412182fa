# An image for the nodes of a cluster, and for studies in a container; docs/cluster.md says how to use it.

# the Python with which constraints.txt was tested
FROM python:3.11-slim

# Ray keeps its token in the home folder, and `results/` and `data/` are in the working folder
RUN useradd --create-home --uid 1000 tunesmith && install --directory --owner tunesmith --group tunesmith /studies

# An index with CPU builds of torch, as pytorch.org names it; the default index has the build for CUDA, several GB more.
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

WORKDIR /src
COPY constraints.txt .
RUN pip install --constraint constraints.txt torch torchvision

# the other packages stay in their layer when only the code changes
COPY pyproject.toml .
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > requirements.txt \
    && pip install --constraint constraints.txt --requirement requirements.txt

COPY README.md LICENSE ./
COPY search search
COPY training training
RUN pip install --no-deps --no-build-isolation . && tunesmith --version

USER tunesmith
WORKDIR /studies
ENTRYPOINT ["tunesmith"]
CMD ["--help"]
