# Everything runs from .venv, which `make install` creates; see `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEVICE ?= cpu
EXTRAS := $(DEVICE),train,test
SHARED ?= ../shared
STARTER_DETECTOR := models/configs/Detection/starter_detector.yaml
STARTER := models/configs/GeneralRecognition/starter_hasher.yaml
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo serve test test-slow test-docker fuzz lint format bench image starter-hasher starter-detector \
  deep-hash clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/.installed  ## create .venv and install the project (DEVICE=gpu for CUDA)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

demo: install  ## enrol a drawn sample gallery, search a shelf photo, leave the service up (DEMO_EXIT=1 stops it)
	$(BIN)/python -m service.demo $(if $(DEMO_EXIT),--exit,)

serve: install  ## start the service (settings: SHITU_* variables, see README)
	$(BIN)/shitu serve

test: install lint  ## lint, type-check and run all tests
	$(BIN)/python -m pytest

test-slow: install  ## the slow tests: two steps of each shipped configuration at full size, and more (ten minutes)
	$(BIN)/python -m pytest -m slow

test-docker: install  ## build the image and drive docker-compose.yml on a real engine (DOCKER_BUILD_FLAGS=--network=host ...)
	DOCKER_BUILD_FLAGS="$(DOCKER_BUILD_FLAGS)" $(BIN)/python -m pytest -m docker --exitfirst -s tests/e2e

fuzz: install  ## thousands of requests made up from the OpenAPI document, another lot each time (minutes)
	$(BIN)/python -m pytest -m slow -s tests/service/test_schema_fuzz.py

lint: install  ## ruff (format and rules) and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install  ## rewrite the code in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install  ## run every benchmark and print its table (takes a while; see benchmarks/README.md)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

image: ## build the CPU image, shitu-hash:latest (DOCKER_BUILD_FLAGS=--network=host ...)
	docker build $(DOCKER_BUILD_FLAGS) --file docker/Dockerfile --tag shitu-hash:latest \
	  --build-arg VERSION=$$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml) .

starter-hasher: install  ## train the bundled hash model again, resumable (hours on a CPU; SHARED=DIR holds the data)
	$(BIN)/python -m models.training.starter_data --source $(SHARED)/data --target data/starter
	$(BIN)/python -m models.train -c $(STARTER) --resume \
	  -o Arch.Backbone.pretrained=$(SHARED)/data/pretrained/mobilenet_v1_1.0_224_imagenet.npz
	$(BIN)/python -m models.export -c $(STARTER) --target models/starter/hasher
	$(BIN)/python -m models.recommend --model models/starter/hasher --write \
	  --root data/starter/drink --list data/starter/drink_held_out.txt

starter-detector: install  ## train the bundled detector again, resumable (an hour on a CPU; SHARED=DIR holds the data)
	$(BIN)/python -m models.training.detection.starter_data --source $(SHARED)/data --target data/starter_detector
	$(BIN)/python -m models.train -c $(STARTER_DETECTOR) --resume \
	  -o Arch.pretrained=$(SHARED)/data/pretrained/picodet_s_416_coco.npz
	$(BIN)/python -m models.export -c $(STARTER_DETECTOR) --target models/starter/detector \
	  --weights output/starter_detector/final.pdparams

deep-hash: install  ## train and compare the deep-hash methods on CIFAR-10, resumable (an hour; SHARED=DIR holds the data)
	$(BIN)/python benchmarks/cifar10_hash.py --train --shared $(SHARED)

clean:  ## remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
