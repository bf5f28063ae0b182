# The three images of Stageline: docker build --target operator|router|worker .
#
# BASE_IMAGE   a Debian with Python 3.11 as `python`, and nothing that compiles
# TORCH_INDEX  where the worker's torch comes from; https://pypi.org/simple has the CUDA build
# VERSION      written into the images' labels
ARG BASE_IMAGE=python:3.11-slim-bookworm

# The installer, which stays behind, beside the environment that goes into an image.
FROM ${BASE_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/build && /opt/build/bin/pip install --quiet pip==26.1 \
    && python -m venv --without-pip /opt/stageline
WORKDIR /src

# One list of requirements an image, so that no other change of pyproject.toml installs anew.
FROM build AS requirements
COPY pyproject.toml .
RUN for extra in operator router worker; do \
    /opt/build/bin/python -c 'import sys, tomllib; \
project = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
extra = project["optional-dependencies"][sys.argv[1]]; \
print(*project["dependencies"], *extra, sep="\n")' "$extra" >"/opt/$extra.txt" || exit 1; \
    done

FROM build AS code
COPY . .
RUN /opt/build/bin/pip install --quiet --constraint requirements.lock hatchling \
    && /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /opt/wheel . \
    && python -m zipfile -e /opt/wheel/*.whl /opt/code && python -m compileall -q /opt/code

# What an image of ours is before anything is installed: nobody's, with all that it writes in /tmp.
FROM ${BASE_IMAGE} AS runtime
RUN groupadd --gid 65532 stageline \
    && useradd --uid 65532 --gid 65532 --home-dir /tmp --no-create-home \
        --shell /usr/sbin/nologin stageline
ENV HOME=/tmp PATH=/opt/stageline/bin:$PATH PYTHONPATH=/opt/code \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 65532:65532
ARG VERSION=0
LABEL org.opencontainers.image.version=${VERSION} \
    org.opencontainers.image.licenses=Apache-2.0 \
    org.opencontainers.image.vendor="The Stageline authors"

FROM build AS operator-packages
COPY requirements.lock .
COPY --from=requirements /opt/operator.txt .
RUN /opt/build/bin/pip --python /opt/stageline/bin/python install --quiet \
    --constraint requirements.lock --requirement operator.txt
# Two thirds of it are never loaded: the client's models of every kind of object and its methods for
# each (the operator signs and sends by itself; three models are imported by the client's own
# modules), and the schemas of every Kubernetes but the one against which patches are checked.
WORKDIR /opt/stageline/lib/python3.11/site-packages
RUN rm -r kubernetes/client/api kubernetes/aio/client/api \
    && find kubernetes/client/models kubernetes/aio/client/models -type f ! -name '__init__.*' \
        ! -name 'v1_managed_fields_entry.*' ! -name 'v1_owner_reference.*' \
        ! -name 'v1_object_meta.*' -delete \
    && find kubernetes_validate/kubernetes-json-schema -mindepth 1 -maxdepth 1 \
        ! -name v1.37.0-local-strict -exec rm -r {} +

FROM runtime AS operator
LABEL org.opencontainers.image.title="Stageline operator" \
    org.opencontainers.image.description="Turns PipelineDeployments into stage pods and a router"
COPY --from=operator-packages /opt/stageline /opt/stageline
COPY --from=code /opt/code /opt/code
RUN ["python", "-m", "stageline_operator", "--help"]
ENTRYPOINT ["python", "-m", "stageline_operator"]

FROM build AS router-packages
COPY requirements.lock .
COPY --from=requirements /opt/router.txt .
RUN /opt/build/bin/pip --python /opt/stageline/bin/python install --quiet \
    --constraint requirements.lock --requirement router.txt

FROM runtime AS router
LABEL org.opencontainers.image.title="Stageline router" \
    org.opencontainers.image.description="The front door of a pipeline: Open Inference Protocol"
COPY --from=router-packages /opt/stageline /opt/stageline
COPY --from=code /opt/code /opt/code
RUN ["python", "-m", "stageline_router", "--help"]
ENTRYPOINT ["python", "-m", "stageline_router"]

# Torch alone comes from TORCH_INDEX, as other packages there are not those of the lock.
FROM build AS worker-packages
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY requirements.lock .
RUN /opt/build/bin/pip --python /opt/stageline/bin/python install --quiet \
    --no-deps --index-url "${TORCH_INDEX}" "$(grep ^torch== requirements.lock)"
COPY --from=requirements /opt/worker.txt .
RUN /opt/build/bin/pip --python /opt/stageline/bin/python install --quiet \
    --constraint requirements.lock --requirement worker.txt

FROM runtime AS worker
LABEL org.opencontainers.image.title="Stageline worker" \
    org.opencontainers.image.description="One stage of a model"
COPY --from=worker-packages /opt/stageline /opt/stageline
COPY --from=code /opt/code /opt/code
RUN ["python", "-m", "stageline_worker", "stage", "--help"]
ENTRYPOINT ["python", "-m", "stageline_worker"]
