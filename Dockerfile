# What the wheels bring is all that a GPU needs besides its driver, so one base serves both:
#   docker build --tag mbpo-jax .
#   docker build --tag mbpo-jax:cuda13 --build-arg EXTRAS=cuda13 .
# Runs are written where the command is given; the volume keeps compiled programs:
#   docker run --rm --user "$(id -u)" --volume "$PWD:/work" --volume mbpo-jax:/cache mbpo-jax train pendulum
#   docker run --rm --gpus all ... mbpo-jax:cuda13 train gym/Hopper-v5
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-trixie AS build
ARG EXTRAS=""
RUN python -m venv /opt/mbpo_jax
WORKDIR /source
COPY . .
RUN /opt/mbpo_jax/bin/pip install --no-cache-dir --constraint constraints.txt ".${EXTRAS:+[$EXTRAS]}"

FROM python:${PYTHON}-slim-trixie
# With these two MuJoCo draws pictures of episodes. Debian keeps no older versions to pin.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*
# Whoever runs the container under an id of their own may write here, too.
RUN useradd --uid 1000 --create-home mbpo && install --directory --mode 1777 /work /cache
COPY --from=build /opt/mbpo_jax /opt/mbpo_jax
ENV PATH=/opt/mbpo_jax/bin:$PATH XDG_CACHE_HOME=/cache MPLCONFIGDIR=/cache/matplotlib
USER 1000
WORKDIR /work
ENTRYPOINT ["mbpo-jax"]
CMD ["--help"]
