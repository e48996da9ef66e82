# Evaluation of codecs. Build it in the repository: docker build --tag qincodec .
# docker run --rm --user "$(id -u)" -v "$PWD:/work" qincodec recordings --codecs qincodec,opus,mp3 --kbps 8,16 --out run
# Downloaded weights are kept with -v qincodec-cache:/cache; NVIDIA GPUs are there with --gpus all.
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir /src && rm -r /src
# A cache for any user, since --user makes files in /work belong to whoever runs it.
RUN mkdir --mode=1777 /cache
ENV QINCODEC_CACHE=/cache HOME=/tmp
USER 10001
WORKDIR /work
ENTRYPOINT ["evaluate"]
