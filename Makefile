# Everything runs in environments of its own, made on first use.
# Override PYTHON to choose the interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
VENV_216 := .venv-tf216
PEERS := .build/peers
BIN := $(VENV)/bin
# Files of tests run side by side; their fixtures are made once a file.
PARALLEL ?= --numprocesses auto --maxprocesses 4 --dist loadfile \
	--durations=10 --durations-min=1
export TF_CPP_MIN_LOG_LEVEL ?= 3
export CUDA_VISIBLE_DEVICES ?=

.PHONY: help install demo test test-main test-jax test-tf216 test-slow lint docs \
	matrix bench bench-peers clean

help:  ## list the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

install: $(VENV)/.installed  ## make the environment in .venv

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable \
		'.[cpu,export,openvino,serve,video,scale,io,tracking,docs,dev]'
	$(BIN)/python -m pip install --quiet --no-deps tensorflow-serving-api \
		axe-playwright-python  # its axe.min.js alone, for tests
	touch $@

# TensorFlow 2.16 is the oldest one supported; tensorflow-io has native
# operations for it.
$(VENV_216)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV_216)
	$(VENV_216)/bin/python -m pip install --quiet --upgrade pip
	$(VENV_216)/bin/python -m pip install --quiet --editable \
		'.[cli,export,io,video,pretrained]' \
		'tensorflow-cpu==2.16.*' 'tensorflow-io==0.37.1' \
		'pytest>=8' 'pytest-xdist>=3.6' 'hypothesis>=6.100'
	touch $@

# PyTorch's own index has smaller wheels, for CPUs alone.
$(PEERS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet --editable '.[cpu,export]' \
		'torch==2.13.*' 'torchvision==0.28.*' 'anomalib==2.7.*' onnxscript
	touch $@

demo: install  ## train, evaluate, report and export on real photographs
	$(BIN)/keras-sspcab demo $(if $(DATA),--data "$(DATA)") $(DEMO_ARGS)

test: lint test-main test-jax test-tf216  ## all checks, and tests but the slow ones

test-main: install  ## tests on the newest TensorFlow
	$(BIN)/python -m pytest $(PARALLEL) -m 'not slow' $(PYTEST_ARGS)

test-slow: install  ## each page, each host in each format, kills of whole runs
	$(BIN)/python -m pytest $(PARALLEL) -m slow $(PYTEST_ARGS)

test-jax: install  ## tests of layers and models on the JAX backend
	$(BIN)/python -m pip install --quiet 'jax[cpu]>=0.4.36'
	KERAS_BACKEND=jax $(BIN)/python -m pytest $(PARALLEL) tests/layers \
		tests/losses tests/scoring tests/test_package.py \
		tests/backbones/test_efficientnet_lite.py \
		tests/backbones/test_loading.py \
		tests/test_surgery.py tests/test_torch_weights.py \
		tests/applications/test_base.py \
		tests/applications/test_autoencoder.py \
		tests/applications/test_hosts.py \
		tests/applications/test_resnet.py \
		-m 'not slow' $(PYTEST_ARGS)

test-tf216: $(VENV_216)/.installed  ## oldest TensorFlow: layers, data, exports
	$(VENV_216)/bin/python -m pytest $(PARALLEL) tests/layers tests/data \
		tests/export/test_onnx.py tests/export/test_tflite.py \
		-m 'not slow' $(PYTEST_ARGS)

lint: install  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/type_check.py

docs: install  ## the documentation, in .build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

matrix: install  ## oldest and newest of what is supported; ONLY=python3.13
	$(BIN)/python tools/matrix.py $(ONLY)

bench: install  ## measure the block; tables in benchmarks/README.md
	$(BIN)/python -m benchmarks.layer

bench-peers: $(PEERS)/.installed  ## measure against torch and anomalib
	$(PEERS)/bin/python -m benchmarks.peers --output benchmarks/results/peers

clean:  ## remove the environments and caches
	rm -rf $(VENV) $(VENV_216) .build build dist *.egg-info
